"""The topic map's rules, applied to an identity. Pure: what the application says is passed in.

A check has three results: allowed, denied, or open until the application has answered certain
questions. Topics of the map obey their row, all others the rules for topics outside it; below `$`
nobody hears or publishes anything (MQTT 5 §4.7.2: those topics are the server's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from gapless.auth.gate import Identity
from gapless.mqtt.filters import covers
from gapless.topicmap import TopicMap
from gapless.topicmap.map import TOPIC_ROOM
from gapless.topicmap.row import CAPTURE, Row, as_text
from gapless.topicmap.rules import ANY, Condition, Rule

Bindings = Mapping[str, str | None]
"""Values of captures; None where a filter leaves one open: it then stands for every value."""

Action = Literal["subscribe", "publish"]


class Question(NamedTuple):
    """What the application is asked about an identity.

    Attributes:
        kind: whether `subject` is a room or a topic.
    """

    action: Action
    kind: Literal["room", "topic"]
    subject: str


class Decision(NamedTuple):
    """The result of a check.

    Attributes:
        allowed: None where the application must be asked first.
        asked: whether the application's answers were looked at: then it holds only as long as they do.
        questions: what it must be asked.
    """

    allowed: bool | None
    asked: bool = False
    questions: tuple[Question, ...] = ()


class Grant(NamedTuple):
    """One line of the policy, for people and tests that enumerate it.

    Attributes:
        kind: `room`, `topic`, `unmapped` or `everything`.
        pattern: of the room or topic; empty for the others.
        rules: as written.
    """

    kind: Literal["room", "topic", "unmapped", "everything"]
    pattern: str
    action: Action
    rules: tuple[str, ...]


Answers = Callable[[Question], bool | None]
"""What the application has said; None where it has not."""


class Policy:
    """Who may do what, by the map.

    Attributes:
        topic_map: whose rules these are.
    """

    def __init__(self, topic_map: TopicMap) -> None:
        self.topic_map = topic_map
        self._access = topic_map.access
        self._rows = [_Row(number, row) for number, row in enumerate(topic_map.rows)]
        rules = zip(topic_map.rows, self._access.publish, strict=True)
        self._uniform = {row.pattern for row, publish in rules if not _depends_on_topic(publish)}

    def room(self, identity: Identity, room: str, answers: Answers) -> Decision:
        """Whether the identity may hear a room."""
        return _Check(self, identity, answers).decide(lambda check: check.hears_room(room))

    def topic_filter(self, identity: Identity, topic_filter: str, answers: Answers) -> Decision:
        """Whether the identity may hear all that a valid filter (without `$share`) covers."""
        levels = topic_filter.split("/")
        return _Check(self, identity, answers).decide(lambda check: check.hears_filter(topic_filter, levels))

    def publish(self, identity: Identity, topic: str, answers: Answers) -> Decision:
        """Whether the identity may publish to a valid topic name."""
        return _Check(self, identity, answers).decide(lambda check: check.publishes(topic))

    def publish_filter(self, identity: Identity, topic_filter: str, answers: Answers) -> Decision:
        """Whether the identity may publish to every topic that a valid filter covers: for lists of rights."""
        levels = topic_filter.split("/")
        return _Check(self, identity, answers).decide(lambda check: check.publishes_filter(topic_filter, levels))

    def subject_of(self, topic: str) -> str:
        """For keeping decisions about publishing: the row's pattern, where they are the same for all its topics."""
        if topic.startswith("$"):
            return topic
        row = self.topic_map.route(topic).row
        return row.pattern if row is not None and row.pattern in self._uniform else topic

    def row(self, identity: Identity, action: Action, number: int, bindings: Bindings) -> Decision:
        """Whether the identity may do it with all topics of a row whose captures are these; None leaves one open.

        No other row has such topics, nor is any outside the map: so this says what asking for the filter says.
        """
        row = self._rows[number]
        return _Check(self, identity, _unknown).decide(lambda check: check.acts_in_row(action, row, bindings))

    def grants(self) -> list[Grant]:
        """The whole policy, line by line. What is not in it is denied."""
        access = self._access
        found = [Grant("room", room.pattern, "subscribe", _texts(room.rules)) for room in access.rooms]
        for number, row in enumerate(self.topic_map.rows):
            found.append(Grant("topic", row.pattern, "publish", _texts(access.publish[number])))
            found.append(Grant("topic", row.pattern, "subscribe", _texts(access.subscribe[number])))
        found.append(Grant("unmapped", "", "publish", _texts(access.unmapped_publish)))
        found.append(Grant("unmapped", "", "subscribe", _texts(access.unmapped_subscribe)))
        found.append(Grant("everything", "", "publish", _texts(access.everything)))
        found.append(Grant("everything", "", "subscribe", _texts(access.everything)))
        return found

    def narrower(self, topic_filter: str) -> list[str]:
        """The filter, for each row of the map that it meets: what to ask for in its place."""
        levels = topic_filter.split("/")
        return ["/".join(_level(level, bindings) for level in row.levels) for row, bindings in self.rows_of(levels)]

    def row_of(self, levels: list[str]) -> tuple[_Row, Bindings] | None:
        """The row of a topic. One that differs from the row's topics only by an empty level obeys it too."""
        for row in self._rows:
            bindings = unify(levels, row.levels)
            if bindings is not None:
                return row, bindings
        return None

    def rows_of(self, levels: list[str]) -> Iterable[tuple[_Row, Bindings]]:
        """Every row with a topic that the filter covers, and what the filter says of the captures."""
        for row in self._rows:
            bindings = unify(levels, row.levels)
            if bindings is not None:
                yield row, bindings

    def is_mapped(self, topic_filter: str) -> bool:
        """Whether some row holds every topic that the filter covers."""
        return any(covers(row.filter, topic_filter) for row in self._rows)


class _Row:
    """A row of the map, taken apart."""

    __slots__ = ("filter", "levels", "number", "rooms")

    def __init__(self, number: int, row: Row) -> None:
        self.number = number
        self.levels = row.pattern.split("/")
        self.filter = CAPTURE.sub("+", row.pattern)
        # No filter selects by payload: rooms that come from it count for nothing here.
        self.rooms = [template for template in row.rooms if "{data." not in template]


def _depends_on_topic(rules: tuple[Rule, ...]) -> bool:
    return any(condition.kind == "ask" or "{" in condition.template for rule in rules for condition in rule.conditions)


def _level(level: str, bindings: Bindings) -> str:
    return (bindings[level[1:-1]] or "+") if level.startswith("{") else level


def unify(wanted: list[str], pattern: list[str]) -> dict[str, str | None] | None:
    """What the levels of a filter (or topic) say of a pattern's captures; None where no topic fits both."""
    if pattern[0].startswith("$") and wanted[0] in ("+", "#"):
        return None
    bindings: dict[str, str | None] = {}
    for index, level in enumerate(pattern):
        given = wanted[index] if index < len(wanted) else None
        if given == "#":
            bindings.update((rest[1:-1], None) for rest in pattern[index:] if rest.startswith("{"))
            return bindings
        if level == "#":
            return bindings
        if given is None:
            return None
        if level.startswith("{"):
            bindings[level[1:-1]] = None if given == "+" else given
        elif "+" not in (level, given) and level != given:
            return None
    beyond = wanted[len(pattern) :]
    return bindings if not beyond or beyond == ["#"] else None


class _Check:
    """One check: of one identity, with what the application has said so far."""

    __slots__ = ("_access", "_answers", "_asked", "_identity", "_policy", "_questions")

    def __init__(self, policy: Policy, identity: Identity, answers: Answers) -> None:
        self._policy = policy
        self._access = policy._access
        self._identity = identity
        self._answers = answers
        self._asked = False
        self._questions: list[Question] = []

    def decide(self, check: Callable[[_Check], bool | None]) -> Decision:
        allowed = check(self)
        return Decision(allowed, self._asked, tuple(dict.fromkeys(self._questions)) if allowed is None else ())

    def hears_room(self, room: str) -> bool | None:
        if room.startswith(TOPIC_ROOM):
            topic = room[len(TOPIC_ROOM) :]
            if not topic or "+" in topic or "#" in topic:
                return False
            return self.hears_filter(topic, topic.split("/"))
        return self._any(self._access.everything, {}) or self._hears(room)

    def hears_filter(self, topic_filter: str, levels: list[str]) -> bool | None:
        if levels[0].startswith("$"):
            return False
        if self._any(self._access.everything, {}):
            return True
        results = [self._hears_row(row, bindings, topic_filter) for row, bindings in self._policy.rows_of(levels)]
        if not self._policy.is_mapped(topic_filter):
            results.append(self._any(self._access.unmapped_subscribe, {}, _about("subscribe", topic_filter)))
        return _all(results)

    def publishes(self, topic: str) -> bool | None:
        levels = topic.split("/")
        if levels[0].startswith("$"):
            return False
        if self._any(self._access.everything, {}):
            return True
        question = Question("publish", "topic", topic)
        found = self._policy.row_of(levels)
        if found is None:
            return self._any(self._access.unmapped_publish, {}, question)
        row, bindings = found
        return self._any(self._access.publish[row.number], bindings, question)

    def acts_in_row(self, action: Action, row: _Row, bindings: Bindings) -> bool | None:
        topic_filter = "/".join(_level(level, bindings) for level in row.levels)
        if topic_filter.startswith("$"):
            return False
        if self._any(self._access.everything, {}):
            return True
        if action == "subscribe":
            return self._hears_row(row, bindings, topic_filter)
        return self._any(self._access.publish[row.number], bindings, _about("publish", topic_filter))

    def publishes_filter(self, topic_filter: str, levels: list[str]) -> bool | None:
        if levels[0].startswith("$"):
            return False
        if self._any(self._access.everything, {}):
            return True
        question = _about("publish", topic_filter)
        results = [
            self._any(self._access.publish[row.number], bindings, question)
            for row, bindings in self._policy.rows_of(levels)
        ]
        if not self._policy.is_mapped(topic_filter):
            results.append(self._any(self._access.unmapped_publish, {}, question))
        return _all(results)

    def _hears_row(self, row: _Row, bindings: Bindings, topic_filter: str) -> bool | None:
        allowed = self._any(self._access.subscribe[row.number], bindings, _about("subscribe", topic_filter))
        for template in row.rooms:
            if allowed:
                return True
            allowed = _or(allowed, self._hears(_fill(template, bindings)))
        return allowed

    def _hears(self, room: str) -> bool | None:
        """Of a room that is known in part (`ANY` for the rest): whether it holds whatever the rest is."""
        results: list[bool | None] = []
        known = ANY not in room
        question = Question("subscribe", "room", room) if known else None
        for rule in self._access.rooms:
            bindings = rule.bindings(room)
            if bindings is not None:
                results.append(self._any(rule.rules, bindings, question, room))
                return _all(results)
            if not known and rule.meets(room):
                results.append(self._any(rule.rules, dict.fromkeys(rule.captures), None, room))
        return False

    def _any(
        self, rules: tuple[Rule, ...], bindings: Bindings, question: Question | None = None, room: str | None = None
    ) -> bool | None:
        allowed: bool | None = False
        for rule in rules:
            allowed = _or(allowed, self._holds(rule, bindings, question, room))
            if allowed:
                return True
        return allowed

    def _holds(self, rule: Rule, bindings: Bindings, question: Question | None, room: str | None) -> bool | None:
        held: bool | None = True
        for condition in rule.conditions:
            result = self._fits(condition, bindings, question, room)
            if result is False:
                return False
            if result is None:
                held = None
        return held

    def _fits(
        self, condition: Condition, bindings: Bindings, question: Question | None, room: str | None
    ) -> bool | None:
        identity = self._identity
        match condition.kind:
            case "everyone":
                return True
            case "users":
                return identity.user_id is not None
            case "service":
                return identity.service and not identity.roles
            case "role":
                return condition.name in identity.roles
            case "claim":
                return _claim_fits(identity, condition, bindings)
            case "rooms":
                return room is not None and _is_named(room, identity.rooms)
            case "room":
                return self._hears(_fill(condition.template, bindings))
            case "ask":
                return self._ask(question)

    def _ask(self, question: Question | None) -> bool | None:
        if question is None:  # about everything that a wildcard leaves open nobody can be asked
            return False
        self._asked = True
        answer = self._answers(question)
        if answer is None:
            self._questions.append(question)
        return answer


def _unknown(question: Question) -> None:
    return None


def _about(action: Action, topic_filter: str) -> Question | None:
    wild = any(level in ("+", "#") for level in topic_filter.split("/"))
    return None if wild else Question(action, "topic", topic_filter)


def _or(one: bool | None, other: bool | None) -> bool | None:
    if one or other:
        return True
    return None if one is None or other is None else False


def _all(results: Iterable[bool | None]) -> bool | None:
    listed = list(results)
    if False in listed:
        return False
    return None if None in listed else True


def _fill(template: str, bindings: Bindings) -> str:
    return CAPTURE.sub(lambda name: ANY if (value := bindings[name[1]]) is None else value, template)


def _claim_fits(identity: Identity, condition: Condition, bindings: Bindings) -> bool:
    wanted = _fill(condition.template, bindings)
    if ANY in wanted or not wanted:
        return False
    if condition.name == "sub":  # the user, whichever claim names it
        return identity.user_id == wanted
    value = claim_of(identity.claims, condition.name)
    values = value if isinstance(value, list | tuple) else (value,)
    return any(as_text(each) == wanted for each in values)


def claim_of(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by the path to it (`realm_access.roles`); None where there is none."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_named(room: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns (`*` is any text) fits the room, whatever its unknown parts are."""
    return any(pattern == room or ("*" in pattern and _glob(pattern, room)) for pattern in patterns)


def _glob(pattern: str, room: str) -> bool:
    first, *middle, last = pattern.split("*")
    if not room.startswith(first) or not room.endswith(last) or len(room) < len(first) + len(last):
        return False
    at, end = len(first), len(room) - len(last)
    for part in middle:
        found = room.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _texts(rules: tuple[Rule, ...]) -> tuple[str, ...]:
    return tuple(rule.text for rule in rules)
