"""The model: events, where they came from, and their place in the log."""

from __future__ import annotations

import random
import secrets
import time as _time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import IntEnum
from functools import lru_cache
from typing import Any, NewType

import msgspec

from gapless.errors import InvalidPosition

Offset = NewType("Offset", int)
"""Place of an event in the log: 1 for the first; 0 stands before every event."""

Room = NewType("Room", str)
MAX_OFFSET = 2**63 - 1


class Position(msgspec.Struct, frozen=True):
    """A client's cursor: the last event it processed, on any transport.

    `epoch` names one life of the log: where it differs, the client must start again.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read `epoch:offset`.

        Raises:
            InvalidPosition: the text has another form.
        """
        epoch, colon, digits = text.rpartition(":")
        plain = digits.isascii() and digits.isdigit() and len(digits) < 20
        if not (colon and epoch.isascii() and epoch.isalnum() and len(epoch) <= 32 and plain):
            raise InvalidPosition(
                f"{text[:80]!r} is not a position",
                hint="use a position exactly as the server gave it, such as 'k3x9a2:42'; leave it out to start now",
            )
        offset = int(digits)
        if offset > MAX_OFFSET:
            raise InvalidPosition(f"the offset {digits} is out of range", hint="positions come from the server")
        return cls(epoch, offset)


class Origin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where an event came in.

    Attributes:
        door: `rest`, `socketio`, `mqtt`, `link`, `python` or `system`.
        client: MQTT client id or Socket.IO session id, where the door has one.
        packet_id: MQTT packet identifier of a QoS 1 or 2 publish, to know a resent one again.
    """

    door: str
    client: str | None = None
    packet_id: int | None = None


class MqttMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an MQTT publisher sent, kept to the byte for MQTT subscribers (MQTT 5 §3.3.2.3).

    `payload` is None where it equals the event's `data`.
    """

    payload: bytes | None = None
    payload_format: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()


class Author(IntEnum):
    """Who gave an event its id, as far as ids are told apart by it."""

    ANYBODY = 0
    """Ids are not told apart: there is no policy."""
    KNOWN = 1
    """The event's user; without one, somebody who is trusted: a back end, the link, the gateway itself."""
    NOBODY = 2
    """A client that did not say who it is."""


class Event(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """One application event, as the log keeps it.

    New fields go to the end and have a default: the log stores events as arrays.

    Attributes:
        id: unique and, where the gateway made it, sortable by time.
        type: `lead:created`; `message` for topics outside the map.
        topic: MQTT topic name.
        rooms: every room that hears it, each once.
        data: JSON text in UTF-8, or any bytes where `binary`.
        time: milliseconds since the Unix epoch, UTC.
        user_id: who caused it.
        captures: what the map's pattern took from the topic (`leadId`).
        qos: 0, 1 or 2: the quality of service it was published with.
        retain: whether it is kept as its topic's last value (MQTT 5 §3.3.1.3).
        expires: milliseconds since the Unix epoch after which it is not delivered any more.
        author: who gave it its id; see `is_copy_of`.
    """

    id: str
    type: str
    topic: str
    rooms: tuple[str, ...]
    data: bytes
    time: int
    origin: Origin
    binary: bool = False
    user_id: str | None = None
    captures: dict[str, str] = {}
    qos: int = 1
    retain: bool = False
    expires: int | None = None
    mqtt: MqttMessage | None = None
    author: int = Author.ANYBODY

    def is_copy_of(self, other: Event) -> bool:
        """Whether an event with the same id is the same event, published again.

        With a policy an id is its author's own, so that nobody keeps another's event out, or learns that it exists,
        by using its id. Only what equals it in topic and data too is the same whoever brings it: the link and a
        back end hand in what a user published elsewhere.
        """
        if self.author == Author.ANYBODY or other.author == Author.ANYBODY:
            return True
        if self.author == other.author and self.user_id == other.user_id:
            return True
        return self.topic == other.topic and self.data == other.data and self.binary == other.binary

    @property
    def mqtt_payload(self) -> bytes | None:
        """The bytes an MQTT client published, or None where the event came by another door."""
        if self.mqtt is None:
            return None
        return self.data if self.mqtt.payload is None else self.mqtt.payload

    @property
    def size(self) -> int:
        """Bytes it weighs in memory bounds: payloads plus a flat allowance for the rest."""
        extra = len(self.mqtt.payload) if self.mqtt is not None and self.mqtt.payload is not None else 0
        return len(self.data) + extra + len(self.topic) + 400


class Record(msgspec.Struct, eq=False, gc=False):
    """An event with its place in the log, and its encodings, each made once.

    Ephemeral events are records with offset 0 and no position.

    Attributes:
        forms: encodings by name, filled by the transports on first use and shared by all
            clients, those that come back later too. They must not refer to the record.
    """

    event: Event
    offset: int = 0
    position: str | None = None
    forms: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"Record({self.event.id!r}, {self.event.topic!r}, offset={self.offset})"


class EventIds:
    """Ids in the form of UUID version 7 (RFC 9562 §5.7), strictly rising within a process.

    Rising ids keep the log's unique index appending at its right edge. The ids of one millisecond are counted by twelve
    bits (RFC 9562 §6.2, method 1), and share the other 62, which are random: ids must be unique, not secret.
    """

    def __init__(self, clock: Callable[[], float] = _time.time) -> None:
        self._clock = clock
        self._last = -1  # milliseconds, and twelve bits that count
        # Seeded once: asking the system let go of the interpreter each time.
        self._random = random.Random(secrets.randbits(256)).getrandbits
        self._before = self._behind = ""  # what stands around the count, within a millisecond

    def __call__(self) -> str:
        stamp = int(self._clock() * 1000) << 12
        if stamp <= self._last:
            stamp = self._last + 1
        self._last = stamp
        count = stamp & 0xFFF
        if not count:  # of a new millisecond, or more than fit in one: these are of the next
            head = f"{stamp >> 12:012x}"
            tail = f"{(0b10 << 62) | self._random(62):016x}"
            self._before = f"{head[:8]}-{head[8:]}-7"
            self._behind = f"-{tail[:4]}-{tail[4:]}"
        return f"{self._before}{count:03x}{self._behind}"


# Socket.IO's own (its client raises them at itself): an event of such a name would call their handlers.
_SOCKETIO_NAMES = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener", "__disconnect_final"}
)


def is_own_name(event_type: str) -> bool:
    """Whether clients would take an event of this type for news of the gateway, or of their connection."""
    return event_type.startswith(("gapless:", "gapless.")) or event_type in _SOCKETIO_NAMES


def format_time(milliseconds: int) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-01-31T09:30:00.125Z`."""
    global _formatted  # many events of one moment follow each other
    known, text = _formatted
    if known != milliseconds:
        text = f"{_format_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"
        _formatted = milliseconds, text
    return text


_formatted = 0, "1970-01-01T00:00:00.000Z"


@lru_cache(256)
def _format_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]  # strftime takes eight times as long


def parse_time(value: object) -> int | None:
    """Milliseconds since the Unix epoch, from RFC 3339 text or a number; None where it is neither.

    Numbers below 10^11 are taken as seconds, as older publishers send them.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        number = value * 1000 if value < 1e11 else value
        return int(number) if 0 <= number < 2.5e14 else None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0, round(moment.timestamp() * 1000))
    return None
