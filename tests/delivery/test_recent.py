"""The window of recent events answers as the log itself would, or says that it cannot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.delivery import RecentEvents
from gapless.delivery.recent import MOST_RUNS, OVERHEAD
from gapless.event import Event, Origin, Record
from gapless.eventlog import EVERYTHING, Selector

ROOMS = "abc"
TOPICS = ("x/1", "x/2", "y/1")


def record(offset: int, rooms: tuple[str, ...] = (), topic: str = "x/1", size: int = 0) -> Record:
    event = Event(id=str(offset), type="t", topic=topic, rooms=rooms, data=b"x" * size, time=0, origin=Origin("rest"))
    return Record(event, offset)


def filled(count: int, *, max_events: int = 100, max_bytes: int = 10**9, size: int = 0) -> RecentEvents:
    recent = RecentEvents(max_events=max_events, max_bytes=max_bytes)
    for offset in range(1, count + 1):
        recent.append(record(offset, ("a",), size=size))
    return recent


rooms_of_event = st.sets(st.sampled_from(ROOMS)).map(lambda rooms: tuple(sorted(rooms)))
events = st.lists(st.tuples(rooms_of_event, st.sampled_from(TOPICS), st.integers(0, 300)), max_size=30)
selectors = st.builds(
    Selector,
    rooms=st.frozensets(st.sampled_from([*ROOMS, "none"])),
    filters=st.lists(st.sampled_from(["x/+", "y/1", "#", "z"]), max_size=2).map(tuple),
    everything=st.booleans(),
)


@given(
    events=events,
    selector=selectors,
    head=st.integers(0, 50),
    max_events=st.integers(1, 40),
    max_bytes=st.integers(0, 40_000),
    after=st.integers(-5, 90),
    limit=st.integers(1, 10),
)
def test_page_agrees_with_the_selector(
    events: list[tuple[tuple[str, ...], str, int]],
    selector: Selector,
    head: int,
    max_events: int,
    max_bytes: int,
    after: int,
    limit: int,
) -> None:
    recent = RecentEvents(max_events=max_events, max_bytes=max_bytes, head=head)
    records = [record(offset, *event) for offset, event in enumerate(events, head + 1)]
    for entry in records:
        recent.append(entry)
    kept = records[len(records) - len(recent) :]
    assert len(recent) <= max_events
    assert recent.bytes == sum(entry.event.size + OVERHEAD for entry in kept)
    assert recent.bytes <= max_bytes or len(recent) <= 1
    assert (recent.head, recent.start) == (head + len(events), head + len(events) - len(kept))

    page = recent.page(selector, after, limit=limit)
    if after < recent.start:
        assert page is None
        return
    assert page is not None
    assert page.complete
    matching = [entry for entry in kept if entry.offset > after and selector.wants(entry.event)]
    assert page.records == matching[:limit]
    if len(matching) > limit:
        assert page.through == matching[limit - 1].offset
    else:
        # A page that is just full may end at its last event: the next one is then empty.
        assert page.through in {recent.head, *[entry.offset for entry in matching[-1:] if len(matching) == limit]}


def test_bounds_by_events() -> None:
    recent = filled(10, max_events=3)
    assert (len(recent), recent.start, recent.head) == (3, 7, 10)
    assert recent.page(EVERYTHING, 6, limit=5) is None


def test_newest_event_is_kept_however_large() -> None:
    recent = filled(3, max_bytes=10, size=1000)
    assert (len(recent), recent.start) == (1, 2)


def test_encodings_made_for_live_clients_count() -> None:
    bare = record(1).event.size + OVERHEAD
    recent = RecentEvents(max_bytes=7 * bare)
    for offset in range(1, 10):
        entry = record(offset)
        recent.append(entry)
        entry.forms["a"] = entry.forms["b"] = b""
    assert (len(recent), recent.bytes) == (3, 7 * bare)


def test_rooms_of_evicted_events_are_forgotten() -> None:
    recent = RecentEvents(max_events=2)
    for offset in range(1, 2000):
        recent.append(record(offset, (f"room:{offset}",)))
    assert len(recent._by_room) == 2


def test_topics_of_evicted_events_are_forgotten() -> None:
    recent = RecentEvents(max_events=2)
    for offset in range(1, 2000):
        recent.append(record(offset, (), f"topic/{offset}"))
    assert len(recent._by_topic) == 2
    page = recent.page(Selector(filters=("topic/+",)), 1997, limit=5)
    assert page is not None
    assert [each.offset for each in page.records] == [1998, 1999]


@pytest.mark.parametrize("topics", [MOST_RUNS, MOST_RUNS + 1])
def test_a_filter_for_many_topics(topics: int) -> None:
    recent = RecentEvents()
    for offset in range(1, 3 * topics + 1):
        recent.append(record(offset, (), f"{'xy'[offset % 2]}/{offset % topics}"))
    wanted = Selector(filters=("x/+",))
    page = recent.page(wanted, 3, limit=1000)
    assert page is not None
    assert [each.offset for each in page.records] == list(range(4, 3 * topics + 1, 2))


def test_little_is_kept_of_evicted_events_in_a_room_that_lives_on() -> None:
    recent = filled(2000, max_events=100)
    assert len(recent._by_room["a"]) <= 202
    page = recent.page(Selector(rooms=frozenset("a")), 1950, limit=10)
    assert page is not None
    assert [each.offset for each in page.records] == list(range(1951, 1961))


@pytest.mark.parametrize("offset", [0, 3, 5, 99])
def test_events_follow_each_other(offset: int) -> None:
    recent = filled(3)
    with pytest.raises(ValueError, match="does not follow 3"):
        recent.append(record(offset))
    assert (len(recent), recent.head) == (3, 3)
