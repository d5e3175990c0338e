"""One reader through any history of subscribing, asking for the past, leaving rooms, falling behind and coming back."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.delivery import Cursor, RoomSubscriptions
from gapless.event import Event, Origin, Record
from gapless.eventlog import Page, Selector

ROOMS = ("a", "b", "c")


def record(offset: int, *rooms: str) -> Record:
    event = Event(id=str(offset), type="t", topic="t", rooms=rooms, data=b"1", time=0, origin=Origin("x"))
    return Record(event, offset, f"e:{offset}")


@dataclass(eq=False)
class Subscription:
    """One room from when it was subscribed to until it is left."""

    room: str
    since: int
    others: frozenset[Subscription]
    """Those that were there when it was made."""

    def hears(self, record: Record) -> bool:
        return self.room in record.event.rooms and record.offset > self.since


@dataclass(frozen=True)
class Delivery:
    """An event that the client received, and the subscriptions that it was received through."""

    record: Record
    via: frozenset[Subscription]


@dataclass
class Model:
    """A reader driven as a transport drives it, beside the plainest account of what it should get."""

    cursor: Cursor = field(default_factory=lambda: Cursor(0, live=True))
    subscriptions: RoomSubscriptions = field(default_factory=RoomSubscriptions)
    events: list[Record] = field(default_factory=list)
    heard: dict[str, Subscription] = field(default_factory=dict)
    made: list[Subscription] = field(default_factory=list)
    received: list[Delivery] = field(default_factory=list)
    connected_at: int = 0
    """Deliveries before the present connection."""
    left: bool = False
    unclear: bool = False
    """It had left rooms before it came back: some events may be repeated."""
    reading: tuple[Selector, Page] | None = None

    @property
    def head(self) -> int:
        return len(self.events)

    @property
    def position(self) -> int:
        return self.head if self.cursor.live else self.cursor.position

    def publish(self, rooms: frozenset[str]) -> None:
        event = record(self.head + 1, *sorted(rooms))
        self.events.append(event)
        if self.cursor.live and rooms & self.subscriptions.since.keys():
            self.deliver(event)

    def deliver(self, event: Record) -> None:
        via = frozenset(each for each in self.heard.values() if each.hears(event))
        assert via, "through no subscription"
        for earlier in self.received:
            if earlier.record is event:  # only where it was asked for after those subscriptions had been left
                anew = any(each.hears(event) and not earlier.via & {each, *each.others} for each in self.made)
                assert anew or self.unclear, f"{event.offset} twice"
        self.received.append(Delivery(event, via))

    def subscribe(self, rooms: frozenset[str], after: int | None) -> None:
        start = self.head if after is None else min(after, self.head)
        position = self.position
        reached = self.subscriptions.subscribe(sorted(rooms), start=start, position=position)
        if reached < position:
            self.cursor.live = False
            self.cursor.position = reached
            self.reading = None
        there = frozenset(self.heard.values())
        for room in rooms - self.heard.keys():
            self.heard[room] = Subscription(room, start, there)
            self.made.append(self.heard[room])

    def unsubscribe(self, rooms: frozenset[str]) -> None:
        self.subscriptions.unsubscribe(sorted(rooms), position=self.position)
        self.left = True
        for room in rooms:
            self.heard.pop(room, None)

    def stall(self) -> None:
        self.cursor.fall_behind(self.head)

    def feed(self, limit: int) -> None:
        self.begin_reading(limit)
        self.end_reading()

    def begin_reading(self, limit: int) -> None:
        if self.reading is None and not self.cursor.join(self.head):
            selector = self.subscriptions.selector
            self.reading = selector, self.page(selector, limit)

    def page(self, selector: Selector, limit: int) -> Page:
        after = self.cursor.position
        found = [each for each in self.events[after:] if selector.wants(each.event)]
        through = found[limit - 1].offset if len(found) > limit else self.head
        return Page(found[:limit], through, complete=True)

    def end_reading(self) -> None:
        reading, self.reading = self.reading, None
        if reading is None:
            return
        selector, page = reading
        if selector is not self.subscriptions.selector:  # read for other rooms
            return
        for each in self.cursor.take(page):
            if self.subscriptions.wants(each.event, each.offset):
                self.deliver(each)
        if self.cursor.join(self.head):
            self.subscriptions.passed(self.cursor.position)

    def come_back(self, lost: int) -> None:
        """The connection breaks with some events on the way; the client comes back and says which it had last."""
        kept = max(self.connected_at, len(self.received) - lost)
        del self.received[kept:]
        self.connected_at = kept
        self.unclear |= self.left
        self.reading = None
        self.subscriptions = RoomSubscriptions(dict(self.subscriptions.since), self.subscriptions.windows)
        offset, last = None, None
        if self.received:
            offset, last = self.received[-1].record.offset, self.received[-1].record.event
        self.cursor = Cursor(self.subscriptions.resume(0, offset, last))

    def fork(self) -> Model:
        subscriptions = copy(self.subscriptions)
        subscriptions.since, subscriptions.windows = dict(subscriptions.since), subscriptions.windows[:]
        return replace(
            self,
            cursor=copy(self.cursor),
            subscriptions=subscriptions,
            events=self.events[:],
            heard=dict(self.heard),
            made=self.made[:],
            received=self.received[:],
        )

    def check_whole(self) -> None:
        """Each subscription's events came: through it, or before it for one that was there when it was made."""
        while not self.cursor.live:
            self.feed(2)
        for subscription in self.heard.values():
            missing = [
                each.offset for each in self.events if subscription.hears(each) and not self.has(subscription, each)
            ]
            assert not missing, f"{subscription.room} from {subscription.since}: {missing}"

    def has(self, subscription: Subscription, event: Record) -> bool:
        if any(each.record is event and subscription in each.via for each in self.received):
            return True
        return any(each.hears(event) and self.has(each, event) for each in subscription.others)


ONE = st.sampled_from([frozenset(room) for room in ROOMS])
SOME = ONE | st.just(frozenset("ab"))
PUBLISH = st.tuples(st.just("publish"), SOME)
BACK = st.tuples(st.just("subscribe"), ONE, st.integers(0, 4))
STEPS = st.one_of(
    PUBLISH,
    PUBLISH,
    BACK,
    st.tuples(st.just("subscribe"), SOME, st.none()),
    st.tuples(st.just("unsubscribe"), ONE),
    st.tuples(st.just("stall")),
    st.tuples(st.just("feed"), st.integers(1, 3)),
    st.tuples(st.just("begin_reading"), st.integers(1, 3)),
    st.tuples(st.just("end_reading")),
    st.tuples(st.just("come_back"), st.integers(0, 3)),
)


@settings(max_examples=250, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_each_event_once_whatever_the_reader_does(steps: list[tuple[object, ...]]) -> None:
    model = Model()
    for name, *arguments in steps:
        getattr(model, str(name))(*arguments)
    model.check_whole()


A, B = frozenset("a"), frozenset("b")
FEW_STEPS: list[Callable[[Model], object]] = [
    lambda model: model.publish(A),
    lambda model: model.publish(A | B),
    lambda model: model.subscribe(A, 0),
    lambda model: model.subscribe(B, 0),
    lambda model: model.subscribe(B, 2),
    lambda model: model.unsubscribe(A),
    lambda model: model.begin_reading(1),
    lambda model: model.end_reading(),
    lambda model: model.come_back(1),
]


def test_each_event_once_in_every_short_history() -> None:
    """All orders of five steps, from the moment when a reader of room a has two events."""
    begun = Model()
    begun.subscribe(A, None)
    begun.publish(A)
    begun.publish(A | B)
    histories = 0

    def go_on(model: Model, path: tuple[int, ...]) -> None:
        nonlocal histories
        if len(path) == 5:
            histories += 1
            model.check_whole()
            return
        for number, step in enumerate(FEW_STEPS):
            follower = model.fork()
            try:
                step(follower)
                go_on(follower, (*path, number))
            except AssertionError as error:
                error.add_note(f"steps {path} of FEW_STEPS, then {number}")
                raise

    go_on(begun, ())
    assert histories == len(FEW_STEPS) ** 5


def test_a_room_that_was_left_is_heard_no_more() -> None:
    subscriptions = RoomSubscriptions({"a": 0, "b": 0})
    subscriptions.unsubscribe(["a"], position=0)
    assert subscriptions.selector.rooms == {"b"}


def test_windows_are_few_and_none_is_forgotten_before_it_was_passed() -> None:
    subscriptions = RoomSubscriptions()
    for number in range(20):
        subscriptions.subscribe([f"r{number}"], start=number, position=100 + number)
    subscriptions.passed(105)
    assert [window.upto for window in subscriptions.windows] == list(range(106, 120))
    subscriptions.passed(200)
    assert [window.upto for window in subscriptions.windows] == list(range(112, 120))


starts = st.dictionaries(st.sampled_from(ROOMS), st.integers(0, 6), min_size=1)


@given(
    since=starts,
    stepped_back=st.booleans(),
    after=st.integers(0, 8),
    offset=st.integers(1, 9),
    rooms=st.sets(st.sampled_from(ROOMS)),
)
def test_the_short_answer_for_a_page_is_that_of_each_of_its_events(
    since: dict[str, int], stepped_back: bool, after: int, offset: int, rooms: set[str]
) -> None:
    subscriptions = RoomSubscriptions(dict(since))
    if stepped_back:
        subscriptions.subscribe(["d"], start=0, position=5)
    if offset > after and rooms & since.keys() and subscriptions.wants_all_after(after):
        assert subscriptions.wants(record(offset, *rooms).event, offset)


def test_the_short_answer_is_given_where_nothing_is_left_out() -> None:
    assert RoomSubscriptions({"a": 3, "b": 5}).wants_all_after(5)
    assert not RoomSubscriptions({"a": 3, "b": 5}).wants_all_after(4)
