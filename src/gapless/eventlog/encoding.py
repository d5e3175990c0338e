"""Events as the log's implementations store them: MessagePack arrays, new fields at the end."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gapless.errors import InvalidRequest, LogCorrupt
from gapless.event import Event
from gapless.eventlog.contract import StateWrite

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Event).decode


def encode_event(event: Event) -> bytes:
    """The event's stored form.

    Raises:
        InvalidRequest: it cannot be stored: its id, topic, type or a room holds U+0000 or a
            surrogate, or a number is out of range.
    """
    if "\0" in event.id or "\0" in event.topic or "\0" in "".join(event.rooms):
        raise InvalidRequest("the event's id, topic or a room contains U+0000", hint="remove it")
    try:
        return _encode(event)
    except (ValueError, OverflowError, TypeError) as error:
        raise InvalidRequest(f"the event cannot be stored: {error}") from error


def decode_event(body: bytes) -> Event:
    """The event of a stored form.

    Raises:
        LogCorrupt: the bytes are no stored event.
    """
    try:
        return _decode(body)
    except msgspec.DecodeError as error:
        raise LogCorrupt(
            f"a stored event cannot be read: {error}", hint="restore the log from a backup, or check it"
        ) from error


def check_state(writes: Sequence[StateWrite]) -> int:
    """The weight in bytes of state values, for memory bounds.

    Raises:
        InvalidRequest: a key holds U+0000 or a surrogate.
    """
    size = 0
    for _, key, value in writes:
        if not key.isascii() and any("\ud800" <= character <= "\udfff" for character in key):
            raise InvalidRequest("the key of a state value contains a surrogate")
        if "\0" in key:
            raise InvalidRequest("the key of a state value contains U+0000")
        size += len(key) + 100 + (len(value) if value is not None else 0)
    return size
