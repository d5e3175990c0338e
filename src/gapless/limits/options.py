"""Settings of what may come in, and how much of it."""

from __future__ import annotations

import msgspec

from gapless.errors import ConfigError
from gapless.limits.address import Networks


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one connection may send. 0 is no limit.

    Attributes:
        requests_per_second: publishes, subscriptions and other requests of one connection.
        bytes_per_second: what it sends, in bytes.
    """

    requests_per_second: float = 500
    bytes_per_second: float = 4 << 20


class Shares(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all connections of one user may take together. 0 is no limit.

    Attributes:
        connections: open at once. Each WebSocket, MQTT connection, event stream and long-polling session is one.
        subscriptions: rooms and topic filters of all its connections.
        sessions: MQTT sessions stored for when their clients come back, of those connected and those away.
        requests_per_second: publishes, subscriptions and other requests.
        bytes_per_second: what they send, in bytes.
    """

    connections: int = 200
    subscriptions: int = 10_000
    sessions: int = 500
    requests_per_second: float = 1000
    bytes_per_second: float = 8 << 20


class AddressShares(Shares, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all connections from one address may take together, or from one IPv6 /64. 0 is no limit.

    Attributes:
        connections: open at once, of any kind.
        subscriptions: rooms and topic filters of all its connections.
        sessions: MQTT sessions stored for clients without a user, and for back ends, that came last from there.
        requests_per_second: publishes, subscriptions and other requests, each HTTP request being one.
        bytes_per_second: what they send, in bytes.
    """

    connections: int = 2000
    subscriptions: int = 100_000
    sessions: int = 5000
    requests_per_second: float = 5000
    bytes_per_second: float = 32 << 20


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what comes in.

    Attributes:
        payload_bytes: largest data (and MQTT payload) of one event, in bytes.
        topic_bytes: longest topic in UTF-8 bytes.
        topic_levels: most levels of a topic.
        batch_events: most events of one REST request.
        retained_bytes: all retained messages together, by their data and 400 bytes each; one that does not fit is
            refused. 0 is no limit.
        burst_seconds: how many seconds' worth of a rate may come at once, after a time of silence.
        exempt: addresses and networks whose clients are held to none of the rates and shares, such as your own
            back ends. By default this machine: behind a proxy on it, name the proxy in `http.trusted_proxies`.
        remembered: most users and addresses whose rates are remembered after they left.
        connection: what one connection may send; a table of its own, as are the next two.
        user: what all connections of one user may take.
        address: what all connections from one address may take (IPv6: one /64).
    """

    payload_bytes: int = 256 * 1024
    topic_bytes: int = 1024
    topic_levels: int = 32
    batch_events: int = 10_000
    retained_bytes: int = 256 << 20
    burst_seconds: float = 10
    exempt: tuple[str, ...] = ("127.0.0.0/8", "::1")
    remembered: int = 100_000
    connection: Rates = Rates()
    user: Shares = Shares()
    address: AddressShares = AddressShares()

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: naming the option.
        """
        Networks(self.exempt, setting="limits.exempt")
        for table in ("connection", "user", "address"):
            options: Rates | Shares = getattr(self, table)
            for name in options.__struct_fields__:
                if not getattr(options, name) >= 0:
                    raise ConfigError(f"limits.{table}.{name} is below 0", hint="0 is no limit")
        if self.retained_bytes < 0:
            raise ConfigError("limits.retained_bytes is below 0", hint="0 is no limit")
        if not self.burst_seconds > 0 or self.remembered < 1:
            raise ConfigError("limits.burst_seconds and limits.remembered must be above 0", hint="such as 10 and 1000")
