"""What each message says of the one before it in its rooms."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gapless.link.chain import Chain

ROOMS = st.lists(st.sampled_from("abcdefgh"), max_size=3, unique=True)


def test_each_room_has_its_own_last_event() -> None:
    chain = Chain(0)
    assert chain.add(1, ("a", "all")) == (("a", 0), ("all", 0))
    assert chain.add(4, ("b", "all")) == (("b", 0), ("all", 1))
    assert chain.add(5, ("a",)) == (("a", 1),)
    assert chain.recent(1, limit=10) == (1, {"a": 5, "all": 4, "b": 4})
    assert chain.recent(4, limit=10) == (4, {"a": 5})


def test_floor_stands_for_what_is_not_remembered() -> None:
    chain = Chain(100, limit=2)
    assert chain.add(101, ("a",)) == (("a", 100),)
    chain.add(102, ("b",))
    chain.add(103, ("c",))
    assert chain.floor == 101
    assert chain.add(104, ("a",)) == (("a", 101),)
    assert chain.recent(0, limit=10)[0] == chain.floor == 102


def test_rooms_that_nobody_can_subscribe_to_are_not_told() -> None:
    chain = Chain(0)
    assert chain.add(1, ("x" * 600, "a\0b", "\ud800", "a b/c#")) == (("a b/c#", 0),)


@given(st.lists(ROOMS, max_size=40), st.integers(1, 5), st.integers(0, 10), st.data())
def test_no_hole_is_hidden(events: list[list[str]], memory: int, forgotten: int, data: st.DataObject) -> None:
    """Whatever is forgotten, also by a restart: no event lies between what is told and the message."""
    begun = min(forgotten, len(events))
    chain = Chain(begun, limit=memory)
    for offset, rooms in enumerate(events[begun:], begun + 1):
        for room, before in chain.add(offset, rooms):
            last = max((n for n, of in enumerate(events[: offset - 1], 1) if room in of), default=0)
            assert last <= before < offset
    since, found = chain.recent(data.draw(st.integers(0, 40)), limit=data.draw(st.integers(0, 4)))
    for room in "abcdefgh":
        last = max((n for n, of in enumerate(events, 1) if room in of), default=0)
        assert last == found[room] if room in found else last <= since
