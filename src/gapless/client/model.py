"""What a client hears and says, whatever the transport."""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

import msgspec

from gapless.errors import GaplessError, InvalidPayload

_KNOWN = frozenset({"id", "type", "topic", "data", "data_base64", "time", "timestamp", "userId", "position"})


class ConnectionLost(GaplessError):
    """The server cannot be reached, or the connection ended; coming again may help."""

    code = "connection_lost"
    http_status = 503
    retryable = True


class Refused(GaplessError):
    """The server understood and said no; `details` carries its own error where it gave one."""

    code = "refused"
    http_status = 400


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A server, and what to hear from it.

    Attributes:
        url: `http(s)://host:port` of a gateway, or `mqtt(s)://…`, `ws(s)://…/mqtt` of an MQTT server.
        rooms: rooms to hear; for an MQTT server, give `filters` instead.
        filters: MQTT topic filters to hear.
        qos: the quality of service to subscribe with, on MQTT; at 2 nothing is resumed (see `MqttConnection`).
        token: what the server asks for; None shows none.
        tls: how to verify the server; None trusts the system's authorities.
    """

    url: str
    rooms: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    qos: int = 1
    token: str | None = None
    tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"Target(url={self.url!r}, rooms={self.rooms}, filters={self.filters})"


class ClientEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event as a client received it.

    Attributes:
        data: decoded JSON, or bytes.
        time: RFC 3339, as the server wrote it; None from a foreign MQTT server.
        position: `epoch:offset`; None for ephemeral events, and from a foreign MQTT server.
        captures: what the topic map took from the topic (`leadId`), where the transport says it.
        retained: it is its topic's last value, handed over at the subscription (MQTT).
        ordered: False where what lies before it may still be missing: only `Moved` moves the cursor then.
    """

    type: str
    topic: str
    data: Any
    id: str | None = None
    time: str | None = None
    user_id: str | None = None
    position: str | None = None
    captures: dict[str, Any] = {}
    retained: bool = False
    ordered: bool = True

    @classmethod
    def from_envelope(cls, envelope: dict[str, Any], *, retained: bool = False) -> ClientEvent:
        """Read an envelope as REST, SSE, polling and MQTT carry it.

        Raises:
            InvalidPayload: its `data_base64` is not base64.
        """
        data = envelope.get("data")
        if "data_base64" in envelope:
            try:
                data = base64.b64decode(envelope["data_base64"], validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                raise InvalidPayload("data_base64 is not base64") from error
        return cls(
            id=envelope.get("id"),
            type=str(envelope.get("type", "message")),
            topic=str(envelope.get("topic", "")),
            data=data,
            time=envelope.get("time"),
            user_id=envelope.get("userId"),
            position=envelope.get("position"),
            captures={name: value for name, value in envelope.items() if name not in _KNOWN},
            retained=retained,
        )

    def to_envelope(self) -> dict[str, Any]:
        """The envelope of the wire formats; `retained` is added where it is."""
        envelope: dict[str, Any] = {"id": self.id, "type": self.type, "topic": self.topic}
        if isinstance(self.data, bytes):
            envelope["data_base64"] = base64.b64encode(self.data).decode()
        else:
            envelope["data"] = self.data
        envelope |= {"time": self.time, "userId": self.user_id, "position": self.position}
        envelope |= {name: value for name, value in self.captures.items() if name not in envelope}
        if self.retained:
            envelope["retained"] = True
        return envelope


class Subscribed(msgspec.Struct, frozen=True):
    """The subscription stands. `position` is where it begins, where the transport tells."""

    position: str | None = None


class Moved(msgspec.Struct, frozen=True):
    """Everything up to `position` was handed out, also where nothing of it was for this client."""

    position: str


class Hole(msgspec.Struct, frozen=True):
    """Events are missing: the log no longer keeps them, or it was replaced.

    `position` is where it goes on, where the transport tells.
    """

    position: str | None = None


class Alive(msgspec.Struct, frozen=True):
    """A sign of life without news."""


class Revoked(msgspec.Struct, frozen=True):
    """These rooms may be heard no more; nothing of them comes any longer."""

    rooms: tuple[str, ...]


class PresenceTold(msgspec.Struct, frozen=True):
    """Who is in a room, as the gateway tells it: `gapless:presence` or `gapless:present`, and its document."""

    event: str
    document: dict[str, Any]


class Reconnecting(msgspec.Struct, frozen=True):
    """The connection is gone; the next attempt follows in `delay` seconds."""

    reason: str
    delay: float


Heard = Subscribed | Moved | Hole | Alive | Revoked | PresenceTold | ClientEvent
"""What one connection hands out."""

Signal = Subscribed | Hole | Reconnecting | ClientEvent
"""What `follow` hands out."""


class Connection(Protocol):
    """One transport to one server."""

    def listen(self, after: str | None) -> AsyncGenerator[Heard, None]:
        """Connect, subscribe, and hand out what comes, in the server's order.

        First `Subscribed`; then events. Closing the generator (`aclose`) closes the
        connection. What it holds for a slow caller is bounded: beyond the bound it stops
        reading, or, where the transport cannot, ends with `ConnectionLost`, to be resumed.

        Args:
            after: the position from which to resume; None begins with what comes now.

        Raises:
            ConnectionLost: the connection could not be made, or ended.
            Refused: the server does not allow it; coming again will not help.
        """


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """An event to publish; it names a `type` or a `topic`.

    Attributes:
        id: its id; with one, a publish that is repeated is still one event.
        data: JSON-ready data.
        qos, retain: None leaves them to the topic map (on MQTT: QoS 1, not retained).
    """

    data: Any
    id: str
    type: str | None = None
    topic: str | None = None
    user_id: str | None = None
    qos: int | None = None
    retain: bool | None = None

    def to_wire(self) -> dict[str, Any]:
        """As the Socket.IO door takes it, and (where the data is not bytes) the REST door; what is None is left out."""
        fields = {"id": self.id, "type": self.type, "topic": self.topic, "data": self.data}
        fields |= {"userId": self.user_id, "qos": self.qos, "retain": self.retain}
        return {name: value for name, value in fields.items() if value is not None or name == "data"}


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """The server has it: durably, unless it is ephemeral. On MQTT only the id is known."""

    id: str
    topic: str | None = None
    type: str | None = None
    position: str | None = None
    duplicate: bool = False


class Publisher(Protocol):
    """One door of one server; an asynchronous context manager that connects and closes."""

    async def __aenter__(self) -> Publisher: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def publish(self, events: Sequence[Outgoing]) -> list[Published]:
        """Publish in order, and wait until the server has them all.

        Raises:
            ConnectionLost: some of them may not have arrived. As they have ids, publish them all again.
            Refused: the server does not take one of them.
        """
