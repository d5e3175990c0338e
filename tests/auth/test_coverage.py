"""What a filter is allowed to cover, against brute force: no event is heard that may not be heard."""

from __future__ import annotations

from itertools import product

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.auth import Identity, Policy, Question
from gapless.errors import ConfigError
from gapless.mqtt.filters import matches, validate_filter
from gapless.topicmap import RoomRule, Row, TopicMap
from gapless.topicmap.row import levels_overlap

# Few words, so that what is drawn meets; an empty level too, and a text that looks like a room's end.
WORDS = ("a", "b", "7", "", "$x", "7:b")
TOPICS = ["/".join(levels) for length in (1, 2, 3) for levels in product(WORDS, repeat=length)]

_level = st.sampled_from(["a", "b", "7", "{x}", "{y}", "{z}", "+", "$x"])
_template = st.sampled_from(
    ["all", "r:{x}", "r:{y}", "r:{x}:{y}", "r:{x}:b", "{x}", "s:{y}:a", "r:7", "r:{data.d}", "a:{x}", "{y}:{x}"]
)
_room_pattern = st.sampled_from(
    ["all", "r:{v}", "r:{v}:{w}", "r:7", "r:{v}:b", "{v}", "s:{v}:a", "s:{v}", "{v}:{w}", "a:{v}:b", "r:7:{v}"]
)
_room_rules = st.lists(
    st.sampled_from(
        ["everyone", "users", "role:R", "claim:sub={v}", "rooms", "role:R and rooms", "ask", "role:Q and ask"]
    ),
    max_size=2,
)
_row_rules = st.lists(
    st.sampled_from(["users", "role:R", "claim:sub={x}", "claim:t={y}", "room:all", "room:r:{x}", "role:Q and ask"]),
    max_size=2,
)
_map_rules = st.sampled_from([[], ["role:R"], ["everyone"], ["ask"]])


@st.composite
def maps(draw: st.DrawFn) -> TopicMap:
    """A map of what fits together of what was drawn."""
    rows: list[Row] = []
    for number in range(draw(st.integers(1, 4))):
        levels = draw(
            st.lists(_level, min_size=1, max_size=3, unique_by=lambda level: level if "{" in level else object())
        )
        if draw(st.integers(0, 4)) == 0:
            levels.append("#")
        captures = {level[1:-1] for level in levels if level.startswith("{")}
        fitting = [text for text in draw(st.lists(_template, max_size=4, unique=True)) if _names(text) <= captures]
        row = Row("/".join(levels), f"t{number}", tuple(fitting))
        if not any(levels_overlap(row.pattern, other.pattern) for other in rows):
            rows.append(row)
    rooms: list[RoomRule] = []
    for pattern in draw(st.lists(_room_pattern, max_size=6, unique=True)):
        texts = [text for text in draw(_room_rules) if _names(text) <= _names(pattern)]
        if _fits(rows, [*rooms, RoomRule(pattern, tuple(texts))]):
            rooms.append(RoomRule(pattern, tuple(texts)))
    for index, row in enumerate(rows):
        captures = set(row.captures)
        rules = tuple(text for text in draw(_row_rules) if _names(text) <= captures)
        ruled = [*rows[:index], msgspec.structs.replace(row, subscribe=rules), *rows[index + 1 :]]
        rows = ruled if _fits(ruled, rooms) else rows
    return TopicMap(
        rows,
        rooms=rooms,
        everything=draw(st.sampled_from([(), ("role:R and users",)])),
        unmapped_subscribe=draw(_map_rules),
    )


def _fits(rows: list[Row], rooms: list[RoomRule]) -> bool:
    try:
        TopicMap(rows, rooms=rooms)
    except ConfigError:
        return False
    return True


def _names(text: str) -> set[str]:
    return {part.split("}")[0] for part in text.split("{")[1:] if not part.startswith("data.")}


identities = st.builds(
    Identity,
    user_id=st.sampled_from([None, "a", "7", "", "7:b"]),
    roles=st.sampled_from([frozenset(), frozenset({"R"}), frozenset({"Q"})]),
    rooms=st.lists(st.sampled_from(["all", "r:*", "r:7", "*:b", "r:*:b", "*", "s:*a"]), max_size=2).map(tuple),
    claims=st.sampled_from([{}, {"t": "7"}, {"t": ["a", 7]}]),
)
filters = st.lists(st.sampled_from(["a", "b", "7", "", "+", "#", "$x"]), min_size=1, max_size=4).map("/".join)


@st.composite
def cases(draw: st.DrawFn) -> tuple[TopicMap, str]:
    """A map and a filter: any, or one that fits within a row."""
    topic_map = draw(maps())
    if draw(st.booleans()):
        return topic_map, draw(filters.filter(is_filter))
    levels = draw(st.sampled_from(topic_map.rows)).pattern.split("/")
    chosen = [
        draw(st.sampled_from(["+", "+", "7", "a"])) if "{" in level or level == "+" else level for level in levels
    ]
    return topic_map, "/".join(chosen)


def is_filter(text: str) -> bool:
    try:
        validate_filter(text)
    except Exception:
        return False
    return True


def event_rooms(topic_map: TopicMap, topic: str) -> tuple[str, ...]:
    """The rooms of an event there whose payload puts it into no room."""
    return topic_map.rooms_of(topic_map.route(topic), None)


def hears(policy: Policy, topic_map: TopicMap, identity: Identity, topic: str, says: frozenset[str]) -> bool:
    """Whether an event on the topic is one that the identity may hear: in one of its rooms, or by its row."""

    def answer(question: Question) -> bool:
        return question.subject in says

    rooms = (*event_rooms(topic_map, topic), f"topic:{topic}")
    return any(policy.room(identity, room, answer).allowed for room in rooms)


@settings(max_examples=150, deadline=None)
@given(cases(), identities, st.sets(st.sampled_from(["r:7", "r:a", "all", "a", "a/7"])))
def test_what_is_allowed_is_allowed_of_every_topic(
    case: tuple[TopicMap, str], identity: Identity, says: set[str]
) -> None:
    topic_map, topic_filter = case
    policy = Policy(topic_map)
    decision = policy.topic_filter(identity, topic_filter, lambda question: question.subject in says)
    if not decision.allowed:
        return
    for topic in TOPICS:
        if topic and matches(topic_filter, topic):
            assert hears(policy, topic_map, identity, topic, frozenset(says)), topic


@settings(max_examples=100, deadline=None)
@given(maps(), identities, st.sampled_from([topic for topic in TOPICS if topic]))
def test_a_topic_is_heard_by_filter_exactly_as_by_room(topic_map: TopicMap, identity: Identity, topic: str) -> None:
    policy = Policy(topic_map)
    by_filter = policy.topic_filter(identity, topic, lambda question: None)
    by_room = policy.room(identity, f"topic:{topic}", lambda question: None)
    assert by_filter == by_room
    if topic.startswith("$"):
        assert by_filter.allowed is False


@settings(max_examples=100, deadline=None)
@given(cases(), identities, st.sets(st.sampled_from(["r:7", "r:a", "all", "a", "a/7"])))
def test_what_is_open_is_settled_by_the_answers(case: tuple[TopicMap, str], identity: Identity, says: set[str]) -> None:
    """One round of questions is enough, and gives what a check that knows all answers gives."""
    topic_map, topic_filter = case
    policy = Policy(topic_map)
    asked = policy.topic_filter(identity, topic_filter, lambda question: None)
    known = {question: question.subject in says for question in asked.questions}
    settled = policy.topic_filter(identity, topic_filter, known.get)
    assert settled.allowed is not None
    assert (
        settled.allowed
        == policy.topic_filter(identity, topic_filter, lambda question: question.subject in says).allowed
    )
    assert (asked.allowed is None) == bool(asked.questions)
