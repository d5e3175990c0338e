"""The event that every benchmark sends, and the time of sending within it."""

from __future__ import annotations

import time

TYPE = "lead:updated"
TOPIC = "crm/leads/123/updated"
FILTER = "crm/leads/123/+"
ROOM = "lead:123"
SIZE = 283
"""Bytes of one event's data: JSON as the reference domain has it."""

_STAMP = b'"sent":'
_BASE = 10**15  # keeps the stamp at 16 digits, and below 2**53, so that JavaScript keeps it whole
_DIGITS = 16
_HEAD = b'{"sent":'
_TAIL = (
    b',"name":"Acme Corp","status":"qualified","value":125000,"currency":"EUR",'
    b'"owner":{"id":"7","name":"Ada Lovelace"},"tags":["enterprise","renewal"],"note":"'
)
_PADDING = b"x" * (SIZE - len(_HEAD) - _DIGITS - len(_TAIL) - 2)


def now_us() -> int:
    """Microseconds of the monotonic clock, which server and generator do not share: the generator's own."""
    return time.monotonic_ns() // 1000


def event_data() -> bytes:
    """The data of one event, of `SIZE` bytes, stamped with this moment."""
    return b"".join((_HEAD, b"%d" % (_BASE + now_us()), _TAIL, _PADDING, b'"}'))


def sent_us(received: bytes, start: int, end: int) -> int:
    """When the event in `received[start:end]` was sent, in microseconds of this process's clock.

    Raises:
        ValueError: there is no stamp.
    """
    at = received.index(_STAMP, start, end) + len(_STAMP)
    return int(received[at : at + _DIGITS]) - _BASE


assert len(event_data()) == SIZE
