"""The topic map: from a topic to its event type and rooms, from a type to its topic, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gapless.errors import ConfigError, InvalidRequest, UnknownRoom, UnknownTopic
from gapless.mqtt.filters import validate_topic
from gapless.topicmap.access import Access
from gapless.topicmap.row import (
    CAPTURE,
    Alias,
    EphemeralIf,
    Row,
    as_text,
    check_row,
    fill,
    levels_overlap,
    templates_of,
)
from gapless.topicmap.rules import EVERYTHING_BY_DEFAULT, RoomRule

TOPIC_ROOM = "topic:"
"""A topic outside the map is heard in the room `topic:<topic>`."""

_CACHE_LIMIT = 20_000
_ROOM_BYTES = 512


class Route(NamedTuple):
    """What the map says of one topic.

    Attributes:
        row: None outside the map.
        captures: what the row's pattern took from the topic.
        rooms: where the topic alone decides them; None where the payload does too.
        always: whether every event is logged, whatever its QoS and its payload.
    """

    row: Row | None
    captures: dict[str, str]
    rooms: tuple[str, ...] | None
    always: bool = False

    @property
    def type(self) -> str:
        """The event type; `message` outside the map."""
        return self.row.type if self.row is not None else "message"


class TopicMap:
    """An immutable, checked set of rows and aliases.

    Args:
        rows: the rows; no two may match one topic.
        aliases: older Socket.IO event names.
        unmapped: whether topics outside the map are admitted (QoS 0 ephemeral, QoS 1 and 2 logged).
        rooms: who may hear which rooms; the first that fits a room decides.
        everything: rules that say who may hear and publish everything.
        unmapped_publish, unmapped_subscribe: rules for topics outside the map.

    Attributes:
        access: who may do what, by the map's rules; they hold once the gateway has keys.

    Raises:
        ConfigError: naming the row and the fix.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        *,
        aliases: Iterable[Alias] = (),
        unmapped: bool = True,
        rooms: Iterable[RoomRule] = (),
        everything: Sequence[str] = EVERYTHING_BY_DEFAULT,
        unmapped_publish: Sequence[str] = (),
        unmapped_subscribe: Sequence[str] = (),
    ) -> None:
        self.rows = tuple(rows)
        self.aliases = tuple(aliases)
        self.unmapped = unmapped
        self.room_rules = tuple(rooms)
        self._check()
        self.access = Access(
            self.rows,
            self.room_rules,
            everything=everything,
            unmapped_publish=unmapped_publish,
            unmapped_subscribe=unmapped_subscribe,
        )
        self._regexes = [(_topic_regex(row.pattern), row) for row in self.rows]
        self._rooms = [_room_regex(template) for template in templates_of(self.rows)]
        self._cache: dict[str, Route] = {}

    def _check(self) -> None:
        for index, row in enumerate(self.rows):
            check_row(row, _where(index, row))
        for index, row in enumerate(self.rows):
            for later in range(index + 1, len(self.rows)):
                self._check_pair(index, row, later, self.rows[later])
        for number, alias in enumerate(self.aliases, 1):
            where = f"alias {number} ({alias.event!r})"
            if alias.action not in ("subscribe", "unsubscribe"):
                raise ConfigError(f"{where}: action is {alias.action!r}", hint="use 'subscribe' or 'unsubscribe'")
            if not alias.event or not alias.room:
                raise ConfigError(f"{where}: event and room are needed", hint="event = 'lead:subscribe'")

    @staticmethod
    def _check_pair(index: int, row: Row, other_index: int, other: Row) -> None:
        if levels_overlap(row.pattern, other.pattern):
            raise ConfigError(
                f"{_where(other_index, other)} is ambiguous: some topics also match {_where(index, row)}",
                hint="make a literal level differ, or merge the two rows",
            )
        if row.type == other.type and set(row.captures) == set(other.captures):
            raise ConfigError(
                f"{_where(other_index, other)} has the event type and the captures of {_where(index, row)}: "
                f"an event of type {row.type!r} would have two topics",
                hint="give one of them another type",
            )

    def route(self, topic: str) -> Route:
        """The row and captures of a valid topic name."""
        route = self._cache.get(topic)
        if route is None:
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            route = self._cache[topic] = self._find(topic)
        return route

    def _find(self, topic: str) -> Route:
        for regex, row in self._regexes:
            match = regex.fullmatch(topic)
            if match is not None:
                captures = match.groupdict()
                by_payload = any("{data." in template for template in row.rooms)
                rooms = None if by_payload else tuple(dict.fromkeys([name.format_map(captures) for name in row.rooms]))
                return Route(row, captures, rooms, row.durable and row.ephemeral_if is None)
        return Route(None, {}, (TOPIC_ROOM + topic,))

    def admit(self, topic: str) -> Route:
        """Like `route`, for a topic from outside.

        Raises:
            InvalidTopic: not a topic name by MQTT's rules.
            UnknownTopic: outside the map, and the map admits no others.
        """
        route = self._cache.get(topic)
        if route is None:
            validate_topic(topic)
            route = self.route(topic)
        if route.row is None and not self.unmapped:
            raise UnknownTopic(
                f"no row of the topic map matches {topic[:120]!r}",
                hint="publish to a topic of the map, or set 'unmapped = true' in it",
            )
        return route

    def topic_for(self, event_type: str, values: Mapping[str, object]) -> str:
        """The topic of an event type, its captures taken from `values` (the event's data).

        Where two rows have the type, the one whose captures are all there and are more
        numerous: a notification with a `userId` goes to the user's private topic.

        Raises:
            UnknownTopic: no row has the type.
            InvalidRequest: a capture is absent or cannot be a topic level.
        """
        rows = [row for row in self.rows if row.type == event_type]
        if not rows:
            known = ", ".join(sorted({row.type for row in self.rows})[:12])
            raise UnknownTopic(f"no event type {event_type[:120]!r} in the topic map", hint=f"known: {known}")
        rows.sort(key=lambda row: len(row.captures), reverse=True)
        for row in rows:
            captures = {name: text for name in row.captures if (text := _as_level(values.get(name))) is not None}
            if len(captures) == len(row.captures) and "+" not in row.pattern and "#" not in row.pattern:
                topic = fill(row.pattern, captures, None)
                assert topic is not None  # all captures are there
                return topic
        missing = [name for name in rows[-1].captures if _as_level(values.get(name)) is None]
        raise InvalidRequest(
            f"an event of type {event_type!r} needs {', '.join(missing) or 'a topic'} in its data",
            hint=f"add it, or name the topic itself: {rows[-1].pattern}",
        )

    def rooms_of(self, route: Route, data: object) -> tuple[str, ...]:
        """Every room that hears an event, each once."""
        if route.rooms is not None:
            return route.rooms
        assert route.row is not None
        return _fill_all(route.row.rooms, route.captures, data)

    def is_ephemeral(self, route: Route, *, qos: int, data: object, raw: bytes, binary: bool) -> bool:
        """Whether the event is never logged. `data` is the decoded JSON, `raw` the bytes."""
        if route.row is None:
            return qos == 0
        if not route.row.durable:
            return True
        rule = route.row.ephemeral_if
        return rule is not None and _applies(rule, data, raw, binary=binary)

    def check_room(self, room: str) -> None:
        """Refuse a room that no event can be sent to.

        Raises:
            UnknownRoom: it fits no room template; the hint names them.
        InvalidTopic: it is `topic:…` with something that is not a topic.
        """
        if len(room.encode("utf-8", "surrogatepass")) <= _ROOM_BYTES:
            if any(regex.fullmatch(room) for regex, _ in self._rooms):
                return
            if self.unmapped and room.startswith(TOPIC_ROOM):
                topic = room[len(TOPIC_ROOM) :]
                validate_topic(topic)
                if self.route(topic).row is None:
                    return
        known = ", ".join(dict.fromkeys(template.replace("{data.", "{") for _, template in self._rooms))
        raise UnknownRoom(f"no room {room[:120]!r}", hint=f"rooms look like: {known}")

    def filters_for(self, room: str) -> list[str]:
        """The MQTT topic filters under which a room's events are heard.

        Rooms that come from the payload (`{data.…}`) have no filter of their own: no topic
        filter selects by payload.
        """
        if room.startswith(TOPIC_ROOM):
            return [room[len(TOPIC_ROOM) :]]
        filters: list[str] = []
        for pattern, template in self.sources_of(room):
            if "{data." not in template:
                match = _room_regex(template)[0].fullmatch(room)
                assert match is not None  # else it were no source
                filters.append(_filter(pattern, match.groupdict()))
        return list(dict.fromkeys(filters))

    def sources_of(self, room: str) -> list[tuple[str, str]]:
        """Patterns of topics whose events may be in the room, each with the template that decides it.

        An event is in the room where the template, filled from topic and data, gives its name. A room
        `topic:…` has none: it is that of its topic.
        """
        return [
            (row.pattern, template)
            for row in self.rows
            for template in row.rooms
            if _room_regex(template)[0].fullmatch(room) is not None
        ]


def _fill_all(templates: Iterable[str], captures: Mapping[str, str], data: object) -> tuple[str, ...]:
    rooms = [room for template in templates if (room := fill(template, captures, data)) is not None]
    return tuple(dict.fromkeys(rooms))


def _filter(pattern: str, captures: Mapping[str, str]) -> str:
    return CAPTURE.sub(lambda name: captures.get(name.group(1), "+"), pattern)


def _where(index: int, row: Row) -> str:
    return f"topic map row {index + 1} ({row.pattern!r})"


def _topic_regex(pattern: str) -> re.Pattern[str]:
    *levels, last = pattern.split("/")
    body = "/".join(map(_level_regex, levels))
    if last != "#":
        return re.compile(f"{body}/{_level_regex(last)}" if levels else _level_regex(last), re.DOTALL)
    return re.compile(f"{body}(?:/.*)?" if levels else ".*", re.DOTALL)


def _level_regex(level: str) -> str:
    if level == "+":
        return "[^/]*"
    return f"(?P<{level[1:-1]}>[^/]+)" if level.startswith("{") else re.escape(level)


def _room_regex(template: str) -> tuple[re.Pattern[str], str]:
    end, body = 0, ""
    for match in CAPTURE.finditer(template):
        name = match.group(1)
        group = f"(?P<{name}>[^,\\s]+)" if "." not in name else r"[^,\s]+"
        body += re.escape(template[end : match.start()]) + group
        end = match.end()
    return re.compile(body + re.escape(template[end:])), template


def _as_level(value: object) -> str | None:
    text = as_text(value)
    return None if text is None or any(c in "/+#\0" for c in text) else text


def _applies(rule: EphemeralIf, data: object, raw: bytes, *, binary: bool) -> bool:
    if binary:
        return rule.first_byte is not None and raw[:1] == bytes((rule.first_byte,))
    return isinstance(data, dict) and data.get(rule.field) == rule.equals
