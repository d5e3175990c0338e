"""Topics found by filter, against the matcher that looks at each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gapless.mqtt import matches
from gapless.mqtt.topic_tree import TopicTree
from tests.mqtt.strategies import repeatable
from tests.mqtt.test_filters import small_filters, small_topics

CHANGES = st.lists(st.tuples(st.booleans(), small_topics), max_size=30)


@repeatable
@given(CHANGES, small_filters())
def test_a_filter_finds_what_it_matches_in_the_order_in_which_it_was_put(
    changes: list[tuple[bool, str]], filter_: str
) -> None:
    tree: TopicTree[str] = TopicTree()
    kept: dict[str, None] = {}
    for put, topic in changes:
        kept.pop(topic, None)
        if put:
            kept[topic] = None
            tree.put(topic, topic)
        else:
            tree.remove(topic)
    found = [topic for topic in kept if matches(filter_, topic)]
    assert tree.matching(filter_) == found
    assert sorted(tree.few_matching(filter_, most=1000) or []) == sorted(found)
    few = tree.few_matching(filter_, most=3)
    assert few is None or sorted(few) == sorted(found)
    assert few is None or len(few) <= 3


@repeatable
@given(st.lists(small_topics, min_size=1, max_size=20))
def test_what_was_removed_leaves_nothing_behind(topics: list[str]) -> None:
    tree: TopicTree[int] = TopicTree()
    for number, topic in enumerate(topics):
        tree.put(topic, number)
    for topic in topics:
        tree.remove(topic)
    assert not tree._root.children


def test_other_branches_are_not_looked_at() -> None:
    tree: TopicTree[int] = TopicTree()
    for number in range(1000):
        tree.put(f"users/{number}/presence", number)
    tree.put("notes/1", 1)
    tree._root.children["users"].children = None  # type: ignore[assignment]
    assert tree.matching("notes/+") == [1]
