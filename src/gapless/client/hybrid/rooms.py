"""Which rooms an event belongs to, as `/api/connect` describes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

_TOPIC_ROOM = "topic:"
_FIELD = re.compile(r"\{([^{}]*)\}")
_MOST_TOPICS = 1000


class Source(msgspec.Struct, frozen=True):
    """Topics of a pattern belong to the room that the template gives."""

    pattern: str
    room: str


class RoomDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A room as `/api/connect` describes it.

    Attributes:
        room_filter: the one MQTT filter that brings everything, at the gateway's own MQTT server.
        filters: its MQTT topic filters.
        mqtt: whether these bring everything.
        match: how to know its events.
        error: why it cannot be heard, `{code, message, …}`.
    """

    room: str
    room_filter: str | None = None
    filters: tuple[str, ...] = ()
    mqtt: bool | None = None
    match: tuple[Source, ...] = ()
    error: dict[str, Any] | None = None

    @property
    def heard_by(self) -> tuple[str, ...]:
        """What to subscribe to over MQTT."""
        return self.filters if self.room_filter is None else (self.room_filter,)

    @property
    def whole_over_mqtt(self) -> bool:
        """Whether that brings everything."""
        return self.room_filter is not None or self.mqtt is not False


class _Found(msgspec.Struct):
    """What a topic says: its captures, and for each room it may be in the template that decides; None: it is."""

    captures: dict[str, str]
    rooms: list[tuple[str, str | None]]


class RoomMatcher:
    """Finds the rooms of events; remembers topics, a bounded number of them."""

    def __init__(self, rooms: Sequence[RoomDescription] = ()) -> None:
        self._rooms = rooms
        self._topics: dict[str, _Found] = {}

    def rooms_of(self, topic: str, data: Any) -> set[str]:
        """The names of the rooms that an event is in."""
        found = self._look(topic)
        return {
            name for name, template in found.rooms if template is None or _fill(template, found.captures, data) == name
        }

    def captures(self, topic: str) -> dict[str, str]:
        """What the map's pattern takes from the topic (`leadId`)."""
        return self._look(topic).captures

    def _look(self, topic: str) -> _Found:
        known = self._topics.get(topic)
        if known is not None:
            return known
        found = _Found({}, [])
        for about in self._rooms:
            if about.room == _TOPIC_ROOM + topic:
                found.rooms.append((about.room, None))
            for source in about.match:
                captures = _capture(source.pattern, topic)
                if captures is not None:
                    found.captures = captures
                    found.rooms.append((about.room, source.room))
        if len(self._topics) >= _MOST_TOPICS:
            self._topics.clear()
        self._topics[topic] = found
        return found


def _capture(pattern: str, topic: str) -> dict[str, str] | None:
    """What a pattern (`crm/leads/{leadId}/+`, `a/#`) takes from a topic; None where it does not fit."""
    levels = topic.split("/")
    wanted = pattern.split("/")
    captures: dict[str, str] = {}
    for index, level in enumerate(wanted):
        if level == "#":
            return captures
        if index >= len(levels):
            return None
        found = levels[index]
        if level.startswith("{"):
            if not found:
                return None
            captures[level[1:-1]] = found
        elif level not in ("+", found):
            return None
    return captures if len(levels) == len(wanted) else None


def _fill(template: str, captures: dict[str, str], data: Any) -> str | None:
    """A room's name; None where a value is absent or cannot be part of a name. As the topic map does it."""
    parts: list[str] = []
    end = 0
    for match in _FIELD.finditer(template):
        key = match[1]
        if key.startswith("data."):
            value = _as_text(data.get(key[5:])) if isinstance(data, dict) else None
        else:
            value = captures.get(key)
        if value is None:
            return None
        parts += (template[end : match.start()], value)
        end = match.end()
    return "".join(parts) + template[end:]


def _as_text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    return text if 0 < len(text) <= 256 and not any(c.isspace() or c == "," for c in text) else None
