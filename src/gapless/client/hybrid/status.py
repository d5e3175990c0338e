"""How a client is connected."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gapless.client.connect import TransportName
from gapless.errors import GaplessError


class ConnectionState(StrEnum):
    """See "State" in docs/client-protocol.md."""

    connecting = "connecting"
    catching_up = "catching_up"
    live = "live"
    degraded = "degraded"
    offline = "offline"
    closed = "closed"


class Failover(msgspec.Struct, frozen=True):
    """A change from one transport to another.

    Attributes:
        at: seconds since the Unix epoch.
        before, after: the transports.
        reason: the code of the error that ended the old one, or `better`.
    """

    at: float
    before: TransportName
    after: TransportName
    reason: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a client is connected: one value, replaced at each change.

    Attributes:
        connection: the state.
        transport: over which the events come now.
        latency: smoothed round trip in seconds; None before it was measured.
        last_event_at: when the last event was received, to about a second: seconds since the Unix epoch.
        queue_length: publications that have no answer yet.
        failovers: changes from one transport to another since the start.
        last_failover: the last of them.
        error: why it is not connected now.
        retry_at: when the next attempt begins, where one waits: seconds since the Unix epoch.
    """

    connection: ConnectionState = ConnectionState.connecting
    transport: TransportName | None = None
    latency: float | None = None
    last_event_at: float | None = None
    queue_length: int = 0
    failovers: int = 0
    last_failover: Failover | None = None
    error: GaplessError | None = None
    retry_at: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether everything is here that the gateway has."""
        return self.connection in (ConnectionState.live, ConnectionState.degraded)
