"""Filters against a naive matcher, the tree against the matcher, covering against enumeration."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.errors import InvalidTopic
from gapless.mqtt import (
    MAX_TOPIC_BYTES,
    FilterTree,
    covers,
    matches,
    parse_shared,
    validate_filter,
    validate_topic,
)
from tests.mqtt.strategies import repeatable

LEVELS = ["a", "b", "", "$s", "ab"]
small_topics = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4).map("/".join).filter(bool)


@st.composite
def small_filters(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.sampled_from([*LEVELS, "+", "+"]), min_size=0, max_size=4))
    if not parts or draw(st.booleans()):
        parts.append("#")
    return "/".join(parts) or "+"


def naive_match(name: str, topic: str) -> bool:
    """The rules of MQTT 5 §4.7 as a regular expression."""
    if topic.startswith("$") and name[0] in "+#":
        return False
    if name == "#":
        return True
    pattern = "/".join("[^/]*" if level == "+" else re.escape(level) for level in name.split("/"))
    if name.endswith("/#"):
        pattern = pattern.removesuffix("/" + re.escape("#")) + "(/.*)?"
    return re.fullmatch(pattern, topic, re.DOTALL) is not None


@pytest.mark.parametrize(
    ("name", "topic", "expected"),
    [  # MQTT 5 §4.7.1.2, §4.7.1.3, §4.7.2: the standard's own examples
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "sport/tennis", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/x", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/x", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("ACCOUNTS", "Accounts", False),
        ("a/$b/#", "a/$b", True),
        ("+/$b", "a/$b", True),
    ],
)
def test_the_examples_of_the_standard(name: str, topic: str, expected: bool) -> None:
    assert matches(name, topic) is expected
    tree: FilterTree[str, int] = FilterTree()
    tree.add(name, "me", 1)
    assert tree.match(topic) == ([("me", 1)] if expected else [])


@repeatable
@given(small_filters(), small_topics)
def test_matching_is_what_the_naive_matcher_says(name: str, topic: str) -> None:
    assert matches(name, topic) is naive_match(name, topic)


@repeatable
@given(st.lists(st.tuples(small_filters(), st.integers(0, 3), st.integers()), max_size=30), st.data())
def test_the_tree_is_a_dictionary_with_matching(entries: list[tuple[str, int, int]], data: st.DataObject) -> None:
    tree: FilterTree[int, int] = FilterTree()
    model: dict[tuple[str, int], int] = {}
    for name, key, value in entries:
        assert tree.add(name, key, value) == model.get((name, key))
        model[name, key] = value
    gone = data.draw(st.lists(st.sampled_from(sorted(model)), unique=True) if model else st.just([]))
    for name, key in gone:
        assert tree.remove(name, key) == model.pop((name, key))
        assert tree.remove(name, key) is None
    assert len(tree) == len(model)
    for topic in data.draw(st.lists(small_topics, min_size=1, max_size=8)):
        wanted = sorted((key, value) for (name, key), value in model.items() if naive_match(name, topic))
        assert sorted(tree.match(topic)) == wanted
    for (name, key), value in model.items():
        assert tree.get(name, key) == value


@repeatable
@given(st.lists(st.tuples(small_filters(), st.integers(0, 3)), unique=True, max_size=30))
def test_removing_everything_frees_the_nodes(entries: list[tuple[str, int]]) -> None:
    tree: FilterTree[int, None] = FilterTree()
    for name, key in entries:
        tree.add(name, key, None)
    for name, key in sorted(entries, reverse=True):
        tree.remove(name, key)
    assert len(tree) == 0
    assert tree._root.is_empty
    assert tree._root.children is None


def test_removing_what_is_not_there_changes_nothing() -> None:
    tree: FilterTree[str, int] = FilterTree()
    tree.add("a/b", "k", 1)
    for name, key in [("a", "k"), ("a/b", "other"), ("a/b/c", "k"), ("a/b/#", "k"), ("+/b", "k"), ("#", "k")]:
        assert tree.remove(name, key) is None
        assert tree.get(name, key) is None
    assert tree.match("a/b") == [("k", 1)]


def test_a_value_of_none_is_counted_once() -> None:
    tree: FilterTree[str, None] = FilterTree()
    tree.add("a", "k", None)
    tree.add("a", "k", None)
    assert len(tree) == 1
    tree.remove("a", "k")
    assert len(tree) == 0


ALL_TOPICS = [
    "/".join(parts)
    for depth in range(1, 5)
    for parts in itertools.product(["a", "b", "", "$s", "other"], repeat=depth)
    if "/".join(parts)
]


@repeatable
@given(st.one_of(small_filters(), small_topics), st.one_of(small_filters(), small_topics))
def test_covering_is_what_enumeration_says(a: str, b: str) -> None:
    """Exact where the alphabet has a level that no filter names, and topics one deeper than filters."""
    a, b = a.replace("ab", "b"), b.replace("ab", "b")
    if a.count("/") > 2 or b.count("/") > 2:
        return
    assert covers(a, b) is all(naive_match(a, topic) for topic in ALL_TOPICS if naive_match(b, topic))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("#", "+/#", True),
        ("+/#", "#", True),
        ("#", "$SYS/#", False),
        ("+/x", "$SYS/x", False),
        ("a/#", "a", True),
        ("a/#", "a/#", True),
        ("a/+/#", "a/#", False),
        ("a/+", "a/b", True),
        ("a/b", "a/+", False),
        ("crm/leads/+/updated", "crm/leads/7/updated", True),
        ("crm/+/updated", "crm/#", False),
    ],
)
def test_covering(a: str, b: str, expected: bool) -> None:
    assert covers(a, b) is expected


@pytest.mark.parametrize("topic", ["a", "/", "a//b", " ", "$SYS/x", "\ufeff", "x" * MAX_TOPIC_BYTES])
def test_valid_topics(topic: str) -> None:
    validate_topic(topic)
    validate_filter(topic)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a+b", "a\0", "\ud800", "x" * (MAX_TOPIC_BYTES + 1), "/" * 128])
def test_invalid_topics(topic: str) -> None:
    with pytest.raises(InvalidTopic):
        validate_topic(topic)


@pytest.mark.parametrize("name", ["#", "+", "/#", "+/+/#", "a/+/b", "$share/g/#", "$share/g//", "$shared", "$SYS/#"])
def test_valid_filters(name: str) -> None:
    validate_filter(name)


@pytest.mark.parametrize("name", ["", "a#", "#/", "##", "a+", "++", "a/#/b", "$share", "$share/g", "$share//a", "a\0"])
def test_invalid_filters(name: str) -> None:
    with pytest.raises(InvalidTopic):
        validate_filter(name)


def test_limits_are_told() -> None:
    with pytest.raises(InvalidTopic) as caught:
        validate_topic("a/b/c", max_levels=2)
    assert caught.value.details == {"levels": 3, "limit": 2}
    with pytest.raises(InvalidTopic) as caught:
        validate_filter("\u00e4\u00e4", max_bytes=3)
    assert caught.value.details == {"size": 4, "limit": 3}


def test_shared_filters_are_split() -> None:
    assert parse_shared("$share/g/a/+/#") == ("g", "a/+/#")
    assert parse_shared("$share/g//") == ("g", "/")
    assert parse_shared("a/b") is None
    assert parse_shared("$shared/g/a") is None
    with pytest.raises(InvalidTopic):
        parse_shared("$share/g")
    with pytest.raises(InvalidTopic):
        parse_shared("$share/+/a")


def test_many_deep_filters_match_in_bounded_work() -> None:
    """2^12 filters of '+' and a literal all match one topic, and nothing is found twice."""
    tree: FilterTree[int, None] = FilterTree()
    for number, parts in enumerate(itertools.product("+x", repeat=12)):
        tree.add("/".join(parts), number, None)
    found = tree.match("/".join("x" * 12))
    assert sorted(key for key, _ in found) == list(range(2**12))
