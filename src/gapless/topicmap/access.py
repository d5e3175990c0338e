"""The rules of a whole map, checked together: rooms, topic rows, what lies outside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gapless.errors import ConfigError
from gapless.topicmap.row import CAPTURE, Row
from gapless.topicmap.rules import ANY, EVERYTHING_BY_DEFAULT, RoomRule, Rule, parse_rules


class RoomAccess:
    """One `[[room]]`, compiled.

    Attributes:
        rules: who may hear what it fits.
        captures: names of the pattern's captures, in order.
    """

    __slots__ = ("captures", "pattern", "regex", "rules", "shape")

    def __init__(self, rule: RoomRule, where: str) -> None:
        self.pattern = rule.pattern
        self.captures = rule.captures
        self.shape = CAPTURE.sub(ANY, rule.pattern)
        # Lazy: a capture ends where the text behind it first occurs, so what is known of a room's beginning
        # decides the captures there, whatever follows (see `bindings`).
        body = re.escape(self.shape).replace(re.escape(ANY), "(.*?)")
        self.regex = re.compile(body, re.DOTALL)
        self.rules = parse_rules(rule.subscribe, where=where, captures=self.captures, place="room")

    def bindings(self, room: str) -> dict[str, str | None] | None:
        """The captures' values where the pattern fits the room; None where it does not.

        In a room that is known in part (`ANY` for the rest), it must fit whatever the rest is;
        and a capture is None where its value depends on the rest.
        """
        match = self.regex.fullmatch(room)
        if match is None:
            return None
        known = room.find(ANY)
        if known < 0:
            return dict(zip(self.captures, match.groups(), strict=True))
        values: dict[str, str | None] = {}
        for number, name in enumerate(self.captures, 1):
            # Its end is certain where the text behind it lies before the first unknown.
            behind = match.start(number + 1) if number < len(self.captures) else len(room)
            values[name] = match.group(number) if behind <= known else None
        return values

    def meets(self, room: str) -> bool:
        """Whether it fits some room of this partly known form."""
        if ANY not in room:
            return self.regex.fullmatch(room) is not None
        return shapes_meet(self.shape, room)


def shapes_meet(one: str, other: str) -> bool:
    """Whether some text has both forms, `ANY` standing for any text (also none).

    Where both hold an `ANY`, the first of one takes in what the other has in its middle: only
    what both fix at the beginning and at the end can contradict.
    """
    if ANY not in one:
        return _regex(other).fullmatch(one) is not None
    if ANY not in other:
        return _regex(one).fullmatch(other) is not None
    head, other_head = one[: one.find(ANY)], other[: other.find(ANY)]
    tail, other_tail = one[one.rfind(ANY) + 1 :], other[other.rfind(ANY) + 1 :]
    heads = head.startswith(other_head) or other_head.startswith(head)
    return heads and (tail.endswith(other_tail) or other_tail.endswith(tail))


def _regex(shape: str) -> re.Pattern[str]:
    return re.compile(re.escape(shape).replace(re.escape(ANY), ".*?"), re.DOTALL)


class Access:
    """Who may do what, by the map.

    Args:
        rows: the topic rows.
        rooms: the `[[room]]` rules.
        everything: who may hear and publish everything.
        unmapped_publish, unmapped_subscribe: of topics outside the map.

    Attributes:
        rooms: in their order; the first that fits a room decides.
        publish, subscribe: by the row's number.

    Raises:
        ConfigError: naming the row, the rule and the fix.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        rooms: Iterable[RoomRule] = (),
        *,
        everything: Sequence[str] = EVERYTHING_BY_DEFAULT,
        unmapped_publish: Sequence[str] = (),
        unmapped_subscribe: Sequence[str] = (),
    ) -> None:
        self.rooms = [_room_access(number, rule, rows) for number, rule in enumerate(rooms, 1)]
        _check_reachable(self.rooms)
        self.publish: list[tuple[Rule, ...]] = []
        self.subscribe: list[tuple[Rule, ...]] = []
        for number, row in enumerate(rows, 1):
            where = f"topic map row {number} ({row.pattern!r})"
            self.publish.append(self._of_row(row, row.publish, f"{where}, publish"))
            self.subscribe.append(self._of_row(row, row.subscribe, f"{where}, subscribe"))
        self.everything = _of_map(everything, "everything")
        self.unmapped_publish = _of_map(unmapped_publish, "unmapped_publish")
        self.unmapped_subscribe = _of_map(unmapped_subscribe, "unmapped_subscribe")

    def _of_row(self, row: Row, texts: Sequence[str], where: str) -> tuple[Rule, ...]:
        rules = parse_rules(texts, where=where, captures=row.captures, place="topic")
        for condition in (condition for rule in rules for condition in rule.conditions if condition.kind == "room"):
            shape = CAPTURE.sub(ANY, condition.template)
            if not any(room.meets(shape) for room in self.rooms):
                raise ConfigError(
                    f"{where}: no [[room]] says who may hear {condition.template!r}",
                    hint=f'add [[room]] with pattern = "{condition.template}" and subscribe = […]',
                )
        return rules

    @property
    def asks(self) -> bool:
        """Whether some rule asks the application."""
        lists = [room.rules for room in self.rooms] + self.publish + self.subscribe
        lists += [self.everything, self.unmapped_publish, self.unmapped_subscribe]
        return any(condition.kind == "ask" for rules in lists for rule in rules for condition in rule.conditions)


def _room_access(number: int, rule: RoomRule, rows: Sequence[Row]) -> RoomAccess:
    where = f"room {number} ({rule.pattern!r})"
    rest = CAPTURE.sub("", rule.pattern)
    if not rule.pattern or any(c in rest for c in "{},\0") or any(c.isspace() for c in rest):
        raise ConfigError(f"{where}: not a room", hint="a room looks like 'lead:{leadId}' or 'org:global'")
    if len(set(rule.captures)) != len(rule.captures) or not all(name.isidentifier() for name in rule.captures):
        raise ConfigError(f"{where}: its captures need different names", hint="such as 'team:{teamId}:{memberId}'")
    if re.search(r"\}\{", rule.pattern):
        raise ConfigError(f"{where}: two captures touch", hint="put a text between them, such as '{a}:{b}'")
    shape = CAPTURE.sub(ANY, rule.pattern)
    templates = dict.fromkeys(template for row in rows for template in row.rooms)
    if not any(shapes_meet(shape, CAPTURE.sub(ANY, template)) for template in templates):
        raise ConfigError(f"{where}: no topic row sends to such a room", hint=f"rooms here: {', '.join(templates)}")
    return RoomAccess(rule, where)


def _check_reachable(rooms: Sequence[RoomAccess]) -> None:
    for index, later in enumerate(rooms):
        for number, earlier in enumerate(rooms[:index], 1):
            if earlier.bindings(later.shape) is not None:
                raise ConfigError(
                    f"room {index + 1} ({later.pattern!r}) is never reached: "
                    f"room {number} ({earlier.pattern!r}) fits all of it",
                    hint="the first that fits decides: put the narrower pattern first, or remove one",
                )


def _of_map(texts: Sequence[str], where: str) -> tuple[Rule, ...]:
    return parse_rules(texts, where=where, captures=(), place="everything" if where == "everything" else "unmapped")
