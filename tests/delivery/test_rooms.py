"""One reader through any history of subscribing, asking for the past, and falling behind."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.delivery import Cursor, RecentEvents, RoomSubscriptions
from gapless.event import Event, Origin, Record

ROOMS = ("a", "b", "c", "d")


@dataclass
class Model:
    """A reader driven like a transport drives it, beside the plainest account of what it should get."""

    recent: RecentEvents = field(default_factory=RecentEvents)
    cursor: Cursor = field(default_factory=lambda: Cursor(0, live=True))
    subscriptions: RoomSubscriptions = field(default_factory=RoomSubscriptions)
    delivered: list[int] = field(default_factory=list)
    events: list[Record] = field(default_factory=list)
    owed: set[int] = field(default_factory=set)

    @property
    def head(self) -> int:
        return len(self.events)

    @property
    def position(self) -> int:
        return self.head if self.cursor.live else self.cursor.position

    def publish(self, rooms: frozenset[str]) -> None:
        offset = self.head + 1
        event = Event(
            id=str(offset), type="t", topic="t", rooms=tuple(sorted(rooms)), data=b"1", time=0, origin=Origin("x")
        )
        record = Record(event, offset, f"e:{offset}")
        self.recent.append(record)
        self.events.append(record)
        if any(room in self.subscriptions.since for room in rooms):
            self.owed.add(offset)
            if self.cursor.live:
                self.delivered.append(offset)

    def subscribe(self, rooms: frozenset[str], after: int | None) -> None:
        start = self.head if after is None else min(after, self.head)
        new = rooms - self.subscriptions.since.keys()
        for record in self.events[start:]:
            if new & set(record.event.rooms):
                self.owed.add(record.offset)
        position = self.position
        reached = self.subscriptions.subscribe(sorted(rooms), start=start, position=position)
        if reached < position:
            self.cursor.live = False
            self.cursor.position = reached

    def stall(self) -> None:
        self.cursor.fall_behind(self.head)

    def feed(self, limit: int) -> None:
        if self.cursor.join(self.head):
            return
        page = self.recent.page(self.subscriptions.selector, self.cursor.position, limit=limit)
        assert page is not None
        for record in self.cursor.take(page):
            if self.subscriptions.wants(record.event, record.offset):
                self.delivered.append(record.offset)
        if self.cursor.join(self.head):
            self.subscriptions.passed(self.cursor.position)


STEPS = st.one_of(
    st.tuples(st.just("publish"), st.frozensets(st.sampled_from(ROOMS), min_size=1, max_size=3)),
    st.tuples(st.just("subscribe"), st.frozensets(st.sampled_from(ROOMS), min_size=1), st.none() | st.integers(0, 12)),
    st.tuples(st.just("stall")),
    st.tuples(st.just("feed"), st.integers(1, 3)),
)


@settings(max_examples=500)
@given(st.lists(STEPS, max_size=40))
def test_each_event_once_however_the_reader_is_taken_back(steps: list[tuple[object, ...]]) -> None:
    model = Model()
    for name, *arguments in steps:
        getattr(model, str(name))(*arguments)
    while not model.cursor.live:
        model.feed(2)
    assert sorted(model.delivered) == sorted(model.owed)


def test_a_room_that_was_left_is_heard_no_more() -> None:
    subscriptions = RoomSubscriptions({"a": 0, "b": 0})
    subscriptions.unsubscribe(["a"])
    assert subscriptions.selector.rooms == {"b"}
