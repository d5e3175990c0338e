"""What is published: an event's data follows from its publisher and its number, so that anybody can check it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

LEADS = 5
"""Events are about this many leads, each a room and a topic."""

EVERYTHING = "org:global"
"""The room that hears every lead."""

_SIZES = ((500, 32_768), (25, 4_096), (1, 64))
"""Bytes of text for numbers that are multiples: most events are small, some do not fit a socket's buffer."""


def data_of(publisher: str, n: int) -> dict[str, Any]:
    """The data of a publisher's event number `n`. The JavaScript clients do the same."""
    digest = sha256(f"{publisher}/{n}".encode()).hexdigest()
    size = next(size for every, size in _SIZES if (n + 1) % every == 0)
    lead = 1 + int(digest[:4], 16) % LEADS
    return {"leadId": str(lead), "p": publisher, "n": n, "text": digest * (size // len(digest))}


def key_of(publisher: str, n: int) -> str:
    """How journals name an event; also its id, where the publisher gives one."""
    return f"{publisher}/{n}"


def topic_of(data: Mapping[str, Any]) -> str:
    """The topic under which an event is published."""
    return f"crm/leads/{data['leadId']}/updated"


def filter_of(room: str) -> str:
    """The MQTT topic filter under which a room's events are heard."""
    lead = "+" if room == EVERYTHING else room.removeprefix("lead:")
    return f"crm/leads/{lead}/updated"


def rooms_of(data: Mapping[str, Any]) -> tuple[str, str]:
    """The rooms that hear an event."""
    return (f"lead:{data['leadId']}", EVERYTHING)


def fingerprint(data: Mapping[str, Any]) -> str:
    """What journals keep of an event's data: any change of it changes this."""
    names = ",".join(sorted(data))
    text = "|".join([names, *(str(data.get(name)) for name in ("leadId", "p", "n", "text"))])
    return sha256(text.encode()).hexdigest()[:16]
