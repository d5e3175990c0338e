"""A client of a broker that drops what it likes becomes whole: each event once, each room in order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.client import ClientEvent
from gapless.client.gaps import Answer, Gaps, Live, Output, Past
from gapless.client.single import Hole
from gapless.event import Position
from gapless.link.chain import Chain

ROOMS = ("a", "b", "c")


def at(offset: int, epoch: str = "e") -> Position:
    return Position(epoch, offset)


def event(offset: int, epoch: str = "e") -> ClientEvent:
    return ClientEvent(type="t", topic="t", data=offset, id=f"{epoch}-{offset}", position=str(at(offset, epoch)))


def live(offset: int, *, epoch: str = "e", **previous: int) -> Live:
    return Live(event(offset, epoch), at(offset, epoch), previous)


def past(offset: int, *rooms: str) -> Past:
    return Past(event(offset), offset, rooms)


def numbers(outputs: Sequence[Output]) -> list[int]:
    return [each.data for each in outputs if isinstance(each, ClientEvent)]


def whole(*rooms: str, at_offset: int = 0) -> Gaps:
    gaps = Gaps(rooms, after=at(at_offset))
    gaps.ask()
    assert gaps.answer(Answer(at(at_offset), True, False, [])) == []
    assert gaps.ask() is None
    return gaps


class World:
    """A gateway with its log and its pump, a broker that drops, and one client."""

    def __init__(self, followed: Sequence[str], remembered: int) -> None:
        self.followed = followed
        self.log: list[tuple[str, ...]] = []  # rooms, by offset
        self.chain = Chain(0, limit=remembered)
        self.gaps = Gaps(followed, after=at(0), most_held=3, most_known=0)
        self.got: list[int] = []
        self.asked = self.gaps.ask()
        self.beats = [0]

    def hand_out(self, outputs: Sequence[Output]) -> None:
        assert Hole() not in outputs
        self.got += numbers(outputs)

    def publish(self, rooms: tuple[str, ...], *, dropped: bool, twice: bool) -> None:
        self.log.append(rooms)
        offset = len(self.log)
        previous = dict(self.chain.add(offset, rooms))
        heard = not dropped and not set(rooms).isdisjoint(self.followed)
        for _ in range(heard * (1 + twice)):
            self.hand_out(self.gaps.live(Live(event(offset), at(offset), previous)))

    def heartbeat(self, *, dropped: bool) -> None:
        since, rooms = self.chain.recent(self.beats[max(0, len(self.beats) - 3)], limit=2)
        self.beats.append(len(self.log))
        if not dropped:
            self.gaps.heartbeat(at(len(self.log)), at(since), rooms)

    def ask(self) -> None:
        self.asked = self.gaps.ask()

    def answer(self, *, limit: int) -> None:
        asked, self.asked = self.asked, None
        if asked is None:
            return
        assert asked.after is not None
        events = [
            past(offset, *rooms)
            for offset, rooms in enumerate(self.log, 1)
            if offset > asked.after.offset and set(rooms) & set(asked.rooms)
        ]
        more = len(events) > limit
        through = events[limit - 1].offset if more else len(self.log)
        self.hand_out(self.gaps.answer(Answer(at(through), True, more, events[:limit])))

    def expected(self, *rooms: str) -> list[int]:
        return [offset for offset, of in enumerate(self.log, 1) if set(of) & set(rooms)]


steps = st.one_of(
    st.tuples(
        st.just("publish"), st.sets(st.sampled_from((*ROOMS, "d", "e")), min_size=1), st.booleans(), st.booleans()
    ),
    st.tuples(st.just("heartbeat"), st.booleans()),
    st.tuples(st.just("ask")),
    st.tuples(st.just("answer"), st.integers(1, 3)),
    st.tuples(st.just("reconnect")),
)


@settings(max_examples=150)
@given(st.lists(steps, max_size=40), st.sets(st.sampled_from(ROOMS), min_size=1), st.integers(1, 5))
def test_whatever_is_dropped_the_client_becomes_whole(
    story: list[tuple[object, ...]], followed: set[str], remembered: int
) -> None:
    world = World(sorted(followed), remembered)
    for step in story:
        match step:
            case ("publish", set(rooms), bool(dropped), bool(twice)):
                world.publish(tuple(sorted(rooms)), dropped=dropped, twice=twice)
            case ("heartbeat", bool(dropped)):
                world.heartbeat(dropped=dropped)
            case ("ask",):
                world.ask()
            case ("answer", int(limit)):
                world.answer(limit=limit)
            case _:
                world.gaps.reconnected()
        assert len(set(world.got)) == len(world.got)
        position = world.gaps.position
        assert position is not None
        assert set(range(1, position.offset + 1)) & set(world.expected(*followed)) <= set(world.got)
    world.heartbeat(dropped=False)  # nothing more is published: the heartbeat alone tells
    for _ in range(3 * len(story) + 10):
        world.ask()
        world.answer(limit=2)
    assert world.gaps.ask() is None
    assert sorted(world.got) == world.expected(*followed)
    for room in followed:
        assert [n for n in world.got if room in world.log[n - 1]] == world.expected(room)


def test_hole_is_noticed_with_the_next_message_and_filled_before_it() -> None:
    gaps = whole("a")
    assert numbers(gaps.live(live(1, a=0))) == [1]
    assert gaps.live(live(3, a=2)) == []
    ask = gaps.ask()
    assert ask is not None
    assert (ask.rooms, ask.after) == (("a",), at(1))
    assert gaps.live(live(4, a=3)) == []
    assert numbers(gaps.answer(Answer(at(4), True, False, [past(2, "a"), past(3, "a"), past(4, "a")]))) == [2, 3, 4]
    assert numbers(gaps.live(live(5, a=4))) == [5]
    assert gaps.position == at(5)


def test_heartbeat_tells_of_the_last_message() -> None:
    gaps = whole("a", "b")
    assert numbers(gaps.live(live(1, a=0))) == [1]
    gaps.heartbeat(at(9), at(0), {"a": 1, "x": 9})
    assert gaps.ask() is None
    assert gaps.position == at(9)  # and so a room that is not used costs nothing later
    gaps.heartbeat(at(12), at(9), {"b": 11})
    ask = gaps.ask()
    assert ask is not None
    assert (ask.rooms, ask.after) == (("b",), at(9))
    assert numbers(gaps.answer(Answer(at(12), True, False, [past(11, "b")]))) == [11]


def test_room_that_a_heartbeat_has_no_place_for_is_asked_for() -> None:
    gaps = whole("a")
    gaps.heartbeat(at(50), at(40), {"x": 50})
    assert gaps.ask() is not None


def test_event_of_a_missed_room_may_come_after_later_ones_of_others() -> None:
    gaps = whole("a", "b")
    assert numbers(gaps.live(live(2, b=0))) == [2]
    assert gaps.position == at(0)  # 1 is missing in a, and nobody knows
    assert gaps.live(live(3, a=1)) == []
    gaps.ask()
    assert numbers(gaps.answer(Answer(at(3), True, False, [past(1, "a"), past(3, "a")]))) == [1, 3]


def test_event_of_two_rooms_waits_for_what_is_missing_in_the_other() -> None:
    gaps = whole("a", "b")
    assert numbers(gaps.live(live(1, a=0))) == [1]
    assert gaps.live(live(4, a=3)) == []  # 2 in b, and 3 in both, were dropped
    ask = gaps.ask()
    assert ask is not None
    assert ask.rooms == ("a",)
    assert gaps.answer(Answer(at(4), True, False, [past(3, "a", "b"), past(4, "a")])) == []
    ask = gaps.ask()
    assert ask is not None
    assert (set(ask.rooms), ask.after) == ({"a", "b"}, at(0))
    events = [past(1, "a"), past(2, "b"), past(3, "a", "b"), past(4, "a")]
    assert numbers(gaps.answer(Answer(at(4), True, False, events))) == [2, 3, 4]


def test_what_the_log_no_longer_has_is_a_hole() -> None:
    gaps = Gaps(("a",), after=at(1))
    gaps.ask()
    outputs = gaps.answer(Answer(at(9), False, False, [past(8, "a")]))
    assert outputs[0] == Hole("e:9")
    assert numbers(outputs) == [8]


def test_new_log_is_a_hole_and_goes_on() -> None:
    gaps = whole("a", at_offset=500)
    assert gaps.live(live(3, epoch="new", a=2)) == []
    ask = gaps.ask()
    assert ask is not None
    assert ask.after == at(500)
    outputs = gaps.answer(Answer(at(2, "new"), False, False, []))
    assert outputs[0] == Hole("new:2")
    assert numbers(outputs) == [3]
    assert gaps.position == at(3, "new")


def test_another_gateway_on_the_broker_is_a_foreign_publisher() -> None:
    gaps = whole("a")
    assert gaps.live(live(70, epoch="other", a=69)) == []
    gaps.ask()
    assert numbers(gaps.answer(Answer(at(0), True, False, []))) == [70]
    assert numbers(gaps.live(live(71, epoch="other", a=70))) == [71]
    assert gaps.ask() is None


def test_event_heard_from_its_publisher_does_not_come_again_with_history() -> None:
    gaps = whole("a")
    assert numbers(gaps.foreign(event(1))) == [1]
    gaps.reconnected()
    gaps.ask()
    assert numbers(gaps.answer(Answer(at(2), True, False, [past(1, "a"), past(2, "a")]))) == [2]
    assert gaps.foreign(event(2)) == []


def test_message_without_the_property_is_handed_out_once_and_makes_the_next_one_ask() -> None:
    gaps = whole("a")
    assert numbers(gaps.live(live(1))) == [1]
    assert gaps.live(live(2, a=1)) == []
    gaps.ask()
    assert numbers(gaps.answer(Answer(at(2), True, False, [past(1, "a"), past(2, "a")]))) == [2]


def test_filters_alone_are_made_whole_at_each_connection() -> None:
    gaps = Gaps()
    ask = gaps.ask()
    assert ask is not None
    assert (ask.rooms, ask.after) == ((), None)
    assert numbers(gaps.live(live(5, a=1))) == []
    assert numbers(gaps.answer(Answer(at(4), True, False, []))) == [5]
    assert numbers(gaps.live(live(9, b=8))) == [9]
    assert gaps.live(live(9, b=8)) == []
    gaps.heartbeat(at(20), at(0), {"a": 20})
    assert gaps.ask() is None
    gaps.reconnected()
    ask = gaps.ask()
    assert ask is not None
    assert ask.after == at(9)
    assert numbers(gaps.answer(Answer(at(20), True, True, [past(12, "a")]))) == [12]


def test_position_that_the_gateway_does_not_know() -> None:
    gaps = whole("a", at_offset=50)
    assert gaps.begin_anew() == [Hole()]
    ask = gaps.ask()
    assert ask is not None
    assert ask.after is None
    assert gaps.answer(Answer(at(7), True, False, [])) == []
    assert numbers(gaps.live(live(8, a=3))) == [8]


@pytest.mark.parametrize("most", [0, 1])
def test_held_events_past_the_bound_are_asked_for(most: int) -> None:
    gaps = Gaps(("a",), after=at(0), most_held=most)
    ask = gaps.ask()
    assert ask is not None
    for offset in (1, 2, 3):
        assert gaps.live(live(offset, a=offset - 1)) == []
    held = numbers(gaps.answer(Answer(at(0), True, False, [])))
    assert held == [1][:most]
    assert gaps.live(live(4, a=3)) == []
    assert gaps.ask() is not None


def test_many_rooms_are_asked_for_in_turns() -> None:
    gaps = Gaps((f"lead:{n}" for n in range(300)), after=at(5))
    asked: list[str] = []
    while ask := gaps.ask():
        assert len(ask.rooms) <= 256
        asked += ask.rooms
        gaps.answer(Answer(at(9), True, False, []))
    assert len(set(asked)) == len(asked) == 300
    assert gaps.position == at(9)
