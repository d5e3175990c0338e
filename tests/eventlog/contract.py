"""What every event log must do, whatever it is made of. Inherit `LogContract` and say how to make one."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gapless.errors import InvalidRequest, LogUnavailable, Overloaded
from gapless.event import Author, MqttMessage, Origin, Record
from gapless.eventlog import EVERYTHING, EventLog, Retention, Selector, StateKind, StateWrite
from gapless.mqtt import matches
from tests.eventlog.events import answers_of, make_event, make_events, offsets_of, read_all

PUMP, SESSION = StateKind.PUMP, StateKind.MQTT_SESSION


class Clock:
    """Seconds since the Unix epoch, as told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """Makes logs, remembers what their listener heard, and closes them."""

    def __init__(self, contract: LogContract, folder: Path) -> None:
        self.contract = contract
        self.folder = folder
        self.clock = Clock()
        self.heard: list[Record] = []
        self._logs: list[EventLog] = []

    def listen(self, records: Sequence[Record]) -> None:
        self.heard.extend(records)

    async def open(self, **options: Any) -> EventLog:
        """A new log in the test's folder."""
        log = self.contract.create(self.folder, clock=self.clock, **options)
        await log.open(self.listen)
        self._logs.append(log)
        return log

    async def reopen(self, log: EventLog, **options: Any) -> EventLog:
        """Close the log and open what it left."""
        await log.close()
        again = self.contract.restart(log, self.folder, clock=self.clock, **options)
        await again.open(self.listen)
        self._logs.append(again)
        return again

    async def close(self) -> None:
        for log in self._logs:
            await log.close()


class Told:
    """Who waits for single events.

    Attributes:
        calls: offset and duplicate of each that was stored, in order.
        heard_before: of each, whether the listener had heard of it by then.
    """

    def __init__(self, bench: Bench) -> None:
        self.calls: list[tuple[int, bool]] = []
        self.heard_before: list[bool] = []
        self._bench = bench
        self._more = asyncio.Event()

    def stored(self, record: Record, *, duplicate: bool) -> None:
        self.calls.append((record.offset, duplicate))
        self.heard_before.append(record.offset in offsets_of(self._bench.heard))
        self._more.set()

    def refused(self, error: BaseException) -> None:
        raise AssertionError(f"refused: {error}")

    async def reach(self, count: int) -> None:
        while len(self.calls) < count:
            self._more.clear()
            await self._more.wait()


class LogContract(ABC):
    """The guarantees of `gapless.eventlog.contract`, each as a test."""

    @abstractmethod
    def create(self, folder: Path, **options: Any) -> EventLog:
        """A log that is not open yet; a second call with another folder gives another log.

        Options: `retention`, `max_waiting_bytes`, `clock`.
        """

    @abstractmethod
    def restart(self, log: EventLog, folder: Path, **options: Any) -> EventLog:
        """A log over what a closed one left, not open yet."""

    @pytest_asyncio.fixture
    async def bench(self, tmp_path: Path) -> AsyncIterator[Bench]:
        bench = Bench(self, tmp_path)
        yield bench
        await bench.close()

    @pytest_asyncio.fixture
    async def log(self, bench: Bench) -> EventLog:
        return await bench.open()


class OrderContract(LogContract):
    """One order, durable then visible."""

    async def test_new_log_is_empty(self, log: EventLog) -> None:
        assert (log.head, log.oldest) == (0, 1)
        assert log.epoch.isalnum()
        assert await log.read(EVERYTHING, 0) == ([], 0, True)

    async def test_offsets_rise_by_one(self, log: EventLog) -> None:
        first = await log.append(make_events(3))
        second = await log.append(make_events(2, start=4))
        assert answers_of(first + second) == [(1, False), (2, False), (3, False), (4, False), (5, False)]
        assert (log.head, log.oldest) == (5, 1)

    async def test_answers_carry_event_and_position(self, log: EventLog) -> None:
        event = make_event(1)
        [(record, duplicate)] = await log.append([event])
        assert (record.event, record.offset, record.position) == (event, 1, f"{log.epoch}:1")
        assert not duplicate

    async def test_listener_hears_each_event_once_in_order(self, bench: Bench, log: EventLog) -> None:
        sizes = [number % 4 for number in range(300)]
        start = 1
        futures = []
        for size in sizes:
            futures.append(log.append(make_events(size, start)))
            start += size
        answers = await asyncio.gather(*futures)
        assert offsets_of(bench.heard) == list(range(1, sum(sizes) + 1))
        assert [record.event.id for record in bench.heard] == [make_event(n).id for n in range(1, start)]
        assert [offset for answer in answers for offset, _ in answers_of(answer)] == offsets_of(bench.heard)

    async def test_listener_hears_before_futures_resolve(self, bench: Bench, tmp_path: Path) -> None:
        log = self.create(tmp_path)
        story: list[tuple[str, int]] = []

        def listen(records: Sequence[Record]) -> None:
            assert not any(future.done() for future in futures[records[0].offset - 1 :])
            assert log.head == records[-1].offset
            story.extend(("heard", record.offset) for record in records)

        await log.open(listen)
        futures = [log.append([make_event(number)]) for number in range(1, 6)]
        for future in futures:
            future.add_done_callback(lambda done: story.append(("told", done.result()[0].record.offset)))
        await asyncio.gather(*futures)
        await log.close()
        assert sorted(story) == [("heard", n) for n in range(1, 6)] + [("told", n) for n in range(1, 6)]
        assert all(story.index(("heard", n)) < story.index(("told", n)) for n in range(1, 6))

    async def test_nothing_is_heard_within_the_call(self, bench: Bench, log: EventLog) -> None:
        future = log.append([make_event(1)])
        assert not future.done()
        assert (bench.heard, log.head) == ([], 0)
        await future

    async def test_dropped_future_does_not_drop_the_event(self, bench: Bench, log: EventLog) -> None:
        log.append([make_event(1)]).cancel()
        await log.append([make_event(2)])
        assert offsets_of(bench.heard) == [1, 2]

    async def test_failing_listener_does_not_fail_the_append(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        def listen(records: Sequence[Record]) -> None:
            raise RuntimeError("a defect in the listener")

        log = self.create(tmp_path)
        await log.open(listen)
        assert answers_of(await log.append([make_event(1)])) == [(1, False)]
        await log.close()
        assert "the committed listener failed" in caplog.text

    async def test_append_of_nothing(self, bench: Bench, log: EventLog) -> None:
        assert await log.append([]) == []
        assert (bench.heard, log.head) == ([], 0)


class IdempotencyContract(LogContract):
    """An event whose id the log keeps is not stored again."""

    async def test_across_calls(self, bench: Bench, log: EventLog) -> None:
        first = make_event(1)
        await log.append([first])
        [(record, duplicate)] = await log.append([make_event(1, data=b'"other"')])
        assert (record.offset, record.event, duplicate) == (1, first, True)
        assert offsets_of(bench.heard) == [1]
        assert log.head == 1

    async def test_within_a_call(self, bench: Bench, log: EventLog) -> None:
        one, two = make_events(2)
        assert answers_of(await log.append([one, one, two, one])) == [(1, False), (1, True), (2, False), (1, True)]
        assert offsets_of(bench.heard) == [1, 2]

    async def test_among_calls_under_way(self, bench: Bench, log: EventLog) -> None:
        answers = await asyncio.gather(*[log.append([make_event(1), make_event(n)]) for n in range(2, 20)])
        assert answers_of(answers[0]) == [(1, False), (2, False)]
        assert [answers_of(answer)[0] for answer in answers[1:]] == [(1, True)] * 17
        assert offsets_of(bench.heard) == list(range(1, 20))

    async def test_an_id_is_its_authors_own(self, bench: Bench, log: EventLog) -> None:
        """Two users with one id are two events, also over transactions, and each is known again."""
        authors = [("7", Author.KNOWN), ("8", Author.KNOWN), (None, Author.KNOWN), (None, Author.NOBODY)]
        events = [
            make_event(1, user_id=user, author=author, data=b'{"by":%d}' % number)
            for number, (user, author) in enumerate(authors)
        ]
        assert answers_of(await log.append(events[:2])) == [(1, False), (2, False)]
        assert answers_of(await log.append(events[2:] + events[:1])) == [(3, False), (4, False), (1, True)]
        assert answers_of(await log.append(events)) == [(1, True), (2, True), (3, True), (4, True)]
        [again] = await log.append([make_event(1, user_id="8", author=Author.KNOWN, data=b'"other"')])
        assert again.record.event == events[1]
        assert [record.event.id for record in bench.heard] == ["id-00000001"] * 4
        pages = await read_all(log, EVERYTHING)
        assert [record.event for page in pages for record in page.records] == events

    async def test_what_is_equal_is_the_same_whoever_brings_it(self, log: EventLog) -> None:
        await log.append([make_event(1, user_id="7", author=Author.KNOWN)])
        brought = [
            make_event(1, author=Author.KNOWN),  # by the link, or a back end
            make_event(1, user_id="8", author=Author.KNOWN),
            make_event(1, user_id="8"),  # where there is no policy
            make_event(1, user_id="8", author=Author.KNOWN, topic="elsewhere"),
            make_event(1, user_id="8", author=Author.KNOWN, binary=True, topic="elsewhere"),
        ]
        assert answers_of(await log.append(brought)) == [(1, True), (1, True), (1, True), (2, False), (2, True)]

    async def test_authors_with_one_id_after_the_first_is_gone(self, bench: Bench, log: EventLog) -> None:
        one, two = (make_event(1, user_id=user, author=Author.KNOWN, data=user.encode()) for user in "78")
        await log.append([one, make_event(2)])
        await log.append([two])
        await log.trim(now=bench.clock.now + 8 * 86400, keep_after=2)
        assert log.oldest == 3
        assert answers_of(await log.append([two, one, one])) == [(3, True), (4, False), (4, True)]

    async def test_with_ids_that_do_not_rise(self, log: EventLog) -> None:
        numbers = list(range(200))
        random.Random(7).shuffle(numbers)
        for start in range(0, 200, 20):
            await log.append([make_event(n) for n in numbers[start : start + 20]])
        again = await log.append([make_event(n) for n in reversed(numbers)])
        assert answers_of(again) == [(offset, True) for offset in range(200, 0, -1)]
        assert log.head == 200

    async def test_ids_of_any_script(self, log: EventLog) -> None:
        ids = ["", "a'b", '"', "é", "日本", "\U0001f600", "\ufffd", "a b\n"]
        await log.append([make_event(n, id=event_id) for n, event_id in enumerate(ids)])
        again = await log.append([make_event(n, id=event_id) for n, event_id in enumerate(ids)])
        assert answers_of(again) == [(offset, True) for offset in range(1, 9)]

    async def test_after_reopening(self, bench: Bench, log: EventLog) -> None:
        await log.append(make_events(3))
        log = await bench.reopen(log)
        assert answers_of(await log.append([make_event(2), make_event(4)])) == [(2, True), (4, False)]

    async def test_no_longer_after_trimming(self, bench: Bench) -> None:
        log = await bench.open(retention=Retention(None, 0))
        await log.append([make_event(1)])
        await log.trim(now=bench.clock.now)
        assert answers_of(await log.append([make_event(1)])) == [(2, False)]


class AtomicityContract(LogContract):
    """The events and the state of a call are stored together or not at all."""

    async def test_state_is_stored_with_events(self, bench: Bench, log: EventLog) -> None:
        await log.append([make_event(1)], state=[StateWrite(PUMP, "position", b"1")])
        log = await bench.reopen(log)
        assert log.head == 1
        assert await log.read_state(PUMP, "position") == b"1"

    async def test_state_is_stored_with_a_duplicate(self, log: EventLog) -> None:
        await log.append([make_event(1)])
        await log.append([make_event(1)], state=[StateWrite(PUMP, "position", b"1")])
        assert await log.read_state(PUMP, "position") == b"1"

    async def test_state_is_stored_without_events(self, log: EventLog) -> None:
        assert await log.append([], state=[StateWrite(PUMP, "position", b"1")]) == []
        assert await log.read_state(PUMP, "position") == b"1"

    @pytest.mark.parametrize(
        "bad",
        [
            make_event(2, topic="a/\ud800"),
            make_event(2, id="\udfff"),
            make_event(2, rooms=("a\0b",)),
            make_event(2, time=2**70),
        ],
        ids=["surrogate in the topic", "surrogate in the id", "U+0000 in a room", "time out of range"],
    )
    async def test_event_that_cannot_be_stored_stores_nothing(self, bench: Bench, log: EventLog, bad: Any) -> None:
        before = log.append([make_event(1)])
        refused = log.append([make_event(8), bad], state=[StateWrite(PUMP, "position", b"1")])
        after = log.append([make_event(9)])
        with pytest.raises(InvalidRequest):
            await refused
        assert answers_of(await before + await after) == [(1, False), (2, False)]
        assert [record.event.id for record in bench.heard] == [make_event(1).id, make_event(9).id]
        assert await log.read_state(PUMP, "position") is None

    async def test_one_event_is_told_by_a_call_once_the_listener_heard_of_it(self, bench: Bench, log: EventLog) -> None:
        told = Told(bench)
        log.append_one(make_event(1), told, state=[StateWrite(PUMP, "position", b"1")])
        assert not told.calls
        log.append_one(make_event(2), told)
        log.append_one(make_event(1), told)
        batch = log.append([make_event(3)])
        await told.reach(3)
        assert told.calls == [(1, False), (2, False), (1, True)]
        assert told.heard_before == [True] * 3
        assert answers_of(await batch) == [(3, False)]
        assert await log.read_state(PUMP, "position") == b"1"

    async def test_one_event_that_cannot_be_taken_is_refused_at_once(self, bench: Bench) -> None:
        log = await bench.open(max_waiting_bytes=2000)
        told = Told(bench)
        with pytest.raises(InvalidRequest):
            log.append_one(make_event(1, topic="a/\ud800"), told, state=[StateWrite(PUMP, "k", b"1")])
        log.append_one(make_event(2, data=b"x" * 1500), told)
        with pytest.raises(Overloaded):
            log.append_one(make_event(3), told)
        await told.reach(1)
        await log.close()
        with pytest.raises(LogUnavailable):
            log.append_one(make_event(4), told)
        assert told.calls == [(1, False)]

    async def test_one_publisher_that_fails_costs_the_others_nothing(
        self, bench: Bench, log: EventLog, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Failing(Told):
            def stored(self, record: Record, *, duplicate: bool) -> None:
                raise RuntimeError("a defect")

        told = Told(bench)
        log.append_one(make_event(1), Failing(bench))
        log.append_one(make_event(2), told)
        await told.reach(1)
        assert told.calls == [(2, False)]
        assert "a defect" in caplog.text

    async def test_closing_answers_everyone(self, bench: Bench, log: EventLog) -> None:
        told = Told(bench)
        for number in range(200):
            log.append_one(make_event(number), told)
        await log.close()
        await told.reach(200)
        assert [offset for offset, _ in told.calls] == list(range(1, 201))

    @pytest.mark.parametrize("key", ["a\0b", "\ud800"])
    async def test_state_key_that_cannot_be_stored(self, log: EventLog, key: str) -> None:
        with pytest.raises(InvalidRequest):
            await log.append([make_event(1)], state=[StateWrite(PUMP, key, b"1")])
        with pytest.raises(InvalidRequest):
            await log.write_state([StateWrite(PUMP, key, b"1")], durable=True)
        assert log.head == 0
        assert await log.all_state(PUMP) == {}

    async def test_overload_refuses_the_whole_call(self, bench: Bench) -> None:
        log = await bench.open(max_waiting_bytes=2000)
        first = log.append([make_event(1, data=b"x" * 1500)])
        refused = log.append([make_event(2)], state=[StateWrite(PUMP, "position", b"1")])
        refused_state = log.write_state([StateWrite(PUMP, "k", b"x" * 2000)], durable=False)
        with pytest.raises(Overloaded) as caught:
            await refused
        with pytest.raises(Overloaded):
            await refused_state
        assert caught.value.details["limit"] == 2000
        assert caught.value.retryable
        await first
        assert await log.all_state(PUMP) == {}
        assert answers_of(await log.append([make_event(2)])) == [(2, False)]

    async def test_lone_call_over_the_bound_is_taken(self, bench: Bench) -> None:
        log = await bench.open(max_waiting_bytes=2000)
        assert answers_of(await log.append([make_event(1, data=b"x" * 5000)])) == [(1, False)]


class ReadContract(LogContract):
    """Pages of history are in order, whole, and honest about their ends."""

    async def test_everything(self, log: EventLog) -> None:
        events = make_events(5)
        await log.append(events)
        page = await log.read(EVERYTHING, 0)
        assert [record.event for record in page.records] == events
        assert [record.position for record in page.records] == [f"{log.epoch}:{n}" for n in range(1, 6)]
        assert (page.through, page.complete) == (5, True)

    async def test_by_room(self, log: EventLog) -> None:
        await log.append(make_events(10))
        page = await log.read(Selector(rooms=frozenset({"lead:4"})), 0)
        assert (offsets_of(page.records), page.through, page.complete) == ([4], 10, True)

    async def test_event_in_two_of_the_rooms_comes_once(self, log: EventLog) -> None:
        await log.append(make_events(4))
        page = await log.read(Selector(rooms=frozenset({"lead:2", "org:global", "none"})), 0)
        assert offsets_of(page.records) == [1, 2, 3, 4]

    async def test_event_that_names_a_room_twice_comes_once(self, log: EventLog) -> None:
        await log.append([make_event(1, rooms=("a", "a"))])
        assert offsets_of((await log.read(Selector(rooms=frozenset({"a"})), 0)).records) == [1]

    async def test_by_unknown_room(self, log: EventLog) -> None:
        await log.append(make_events(4))
        assert await log.read(Selector(rooms=frozenset({"none"})), 0) == ([], 4, True)

    async def test_by_nothing(self, log: EventLog) -> None:
        await log.append(make_events(4))
        assert await log.read(Selector(), 0) == ([], 4, True)

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            (("crm/leads/3/updated",), [3]),
            (("crm/leads/+/updated",), [1, 2, 3, 4, 5]),
            (("crm/#",), [1, 2, 3, 4, 5]),
            (("#",), [1, 2, 3, 4, 5]),  # not $SYS/x (MQTT 5 §4.7.2)
            (("$SYS/#",), [6]),
            (("crm/leads/3/updated", "crm/+/3/+", "crm/leads/1/updated"), [1, 3]),
            (("crm/leads/+",), []),
        ],
    )
    async def test_by_filters(self, log: EventLog, filters: tuple[str, ...], expected: list[int]) -> None:
        await log.append([*make_events(5), make_event(6, topic="$SYS/x")])
        page = await log.read(Selector(filters=filters), 0)
        assert (offsets_of(page.records), page.through, page.complete) == (expected, 6, True)

    async def test_by_rooms_or_filters(self, log: EventLog) -> None:
        await log.append(make_events(10))
        selector = Selector(rooms=frozenset({"lead:2", "lead:7"}), filters=("crm/leads/7/#", "crm/leads/9/#"))
        assert offsets_of((await log.read(selector, 0)).records) == [2, 7, 9]

    async def test_after_and_upto(self, log: EventLog) -> None:
        await log.append(make_events(10))
        page = await log.read(EVERYTHING, 3, upto=6)
        assert (offsets_of(page.records), page.through, page.complete) == ([4, 5, 6], 6, True)
        page = await log.read(Selector(rooms=frozenset({"lead:2", "lead:5", "lead:8"})), 2, upto=7)
        assert (offsets_of(page.records), page.through) == ([5], 7)

    async def test_never_past_the_head(self, log: EventLog) -> None:
        await log.append(make_events(3))
        assert (await log.read(EVERYTHING, 0, upto=99)).through == 3
        assert await log.read(EVERYTHING, 3, upto=99) == ([], 3, True)

    @pytest.mark.parametrize("after", [4, 99])
    async def test_after_the_end_never_goes_back(self, log: EventLog, after: int) -> None:
        await log.append(make_events(4))
        assert await log.read(EVERYTHING, after) == ([], after, True)
        assert await log.read(EVERYTHING, after, upto=2) == ([], after, True)

    async def test_limit_ends_a_page_at_its_last_event(self, log: EventLog) -> None:
        await log.append(make_events(10))
        page = await log.read(EVERYTHING, 0, limit=4)
        assert (offsets_of(page.records), page.through) == ([1, 2, 3, 4], 4)
        page = await log.read(Selector(rooms=frozenset({"lead:2", "lead:5", "lead:8"})), 0, limit=2)
        assert (offsets_of(page.records), page.through) == ([2, 5], 5)

    async def test_limit_must_be_positive(self, log: EventLog) -> None:
        with pytest.raises(ValueError, match="limit"):
            await log.read(EVERYTHING, 0, limit=0)

    @pytest.mark.parametrize("seed", range(4))
    async def test_any_read_agrees_with_its_selector(self, log: EventLog, seed: int) -> None:
        choose = random.Random(seed)
        events = [
            make_event(
                n,
                topic=f"a/{choose.randrange(6)}/{choose.choice('xyz')}",
                rooms=tuple({f"r{choose.randrange(8)}" for _ in range(choose.randrange(4))}),
            )
            for n in range(1, 121)
        ]
        for start in range(0, 120, 30):
            await log.append(events[start : start + 30])
        for _ in range(40):
            selector = Selector(
                rooms=frozenset(f"r{choose.randrange(9)}" for _ in range(choose.randrange(3))),
                filters=tuple(choose.choice(["a/+/x", "a/1/#", "a/2/y", "b/#"]) for _ in range(choose.randrange(3))),
            )
            after, upto, limit = choose.randrange(-3, 125), choose.randrange(125), choose.randrange(1, 20)
            page = await log.read(selector, after, limit=limit, upto=upto)
            expected = [
                n for n, e in enumerate(events, 1) if after < n <= min(upto, page.through) and selector.wants(e)
            ]
            assert offsets_of(page.records) == expected
            assert len(page.records) <= limit
            assert page.through >= min(upto, 120) or len(page.records) == limit or after >= upto
            assert page.complete == (after >= 0)

    async def test_long_history_page_by_page(self, log: EventLog) -> None:
        count, step = 10_000, 2500
        for start in range(1, count + 1, step):
            await log.append(
                [make_event(n, rooms=(f"mod:{n % 7}", "all"), topic=f"t/{n % 5}") for n in range(start, start + step)]
            )
        for selector, expected in [
            (EVERYTHING, range(1, count + 1)),
            (Selector(rooms=frozenset({"mod:3"})), range(3, count + 1, 7)),
            (Selector(rooms=frozenset({"all", "mod:3"})), range(1, count + 1)),
            (Selector(filters=("t/2",)), range(2, count + 1, 5)),
        ]:
            pages = await read_all(log, selector, limit=700)
            assert [offset for page in pages for offset in offsets_of(page.records)] == list(expected)
            assert all(page.complete for page in pages)

    async def test_few_among_many_by_filter(self, log: EventLog) -> None:
        count, step, rare = 30_000, 5000, 997
        for start in range(1, count + 1, step):
            await log.append(
                [make_event(n, topic=f"t/{n}" if n % rare else f"rare/{n}/x") for n in range(start, start + step)]
            )
        all_rare = list(range(rare, count + 1, rare))
        for filters, expected in [
            (("rare/#",), all_rare),
            (("rare/+/x",), all_rare),
            (("+/+/x",), all_rare),
            (("rare/1994/+", "t/7", "t/29999"), [7, 1994, 29_999]),
            (("rare/1994/#", "rare/+/x"), all_rare),
            (("rare/1994/x/#", "t/+/x"), [1994]),
            (("rar/#", "rare", "t/0"), []),
        ]:
            for limit in (1, 3, 1000):
                pages = await read_all(log, Selector(filters=filters), limit=limit)
                assert [offset for page in pages for offset in offsets_of(page.records)] == expected
            page = await log.read(Selector(filters=filters), 1994, limit=5, upto=20_000)
            assert offsets_of(page.records) == [n for n in expected if 1994 < n <= min(20_000, page.through)]

    async def test_filters_and_topics_with_odd_characters(self, log: EventLog) -> None:
        topics = ["a'b\"c/1", "日本/\U0010ffff", "/", "a//b", "a /b", "a\\u0000/b", "a", "a/", "a0"]
        await log.append([make_event(n, topic=topic) for n, topic in enumerate(topics, 1)])
        await log.append([make_event(n) for n in range(100, 200)])
        for n, topic in enumerate(topics, 1):
            assert offsets_of((await log.read(Selector(filters=(topic,)), 0, limit=1)).records) == [n]
        for wanted in ("a/#", "a'b\"c/+", "日本/+", "/#", "a/+/b", "a\\u0000/#"):
            expected = [n for n, topic in enumerate(topics, 1) if matches(wanted, topic)]
            pages = await read_all(log, Selector(filters=(wanted,)), limit=1)
            assert [offset for page in pages for offset in offsets_of(page.records)] == expected

    async def test_large_events(self, log: EventLog) -> None:
        events = [make_event(n, data=bytes([n]) * 300_000, binary=True) for n in range(1, 40)]
        await log.append(events)
        pages = await read_all(log, EVERYTHING)
        assert [record.event for page in pages for record in page.records] == events

    async def test_every_field_comes_back(self, bench: Bench, log: EventLog) -> None:
        full = make_event(
            1,
            data=bytes(range(256)),
            binary=True,
            origin=Origin("mqtt", "client-1", 7),
            user_id="user-1",
            captures={"leadId": "1", "日本": "\U0001f600"},
            qos=2,
            retain=True,
            expires=1_800_000_000_000,
            rooms=("lead:1", "日本", "a'b\"c"),
            mqtt=MqttMessage(b"\0\xff", 1, "text/plain", "reply/to", b"\x01\x02", (("k", "v"), ("k", "w"))),
        )
        bare = make_event(2, data=b"", rooms=())
        await log.append([full, bare])
        log = await bench.reopen(log)
        page = await log.read(EVERYTHING, 0)
        assert [record.event for record in page.records] == [full, bare]
        assert offsets_of((await log.read(Selector(rooms=frozenset({"a'b\"c"})), 0)).records) == [1]

    async def test_find(self, log: EventLog) -> None:
        await log.append(make_events(3))
        found = await log.find(make_event(2).id)
        assert found is not None
        assert (found.event, found.offset, found.position) == (make_event(2), 2, f"{log.epoch}:2")
        assert await log.find("unknown") is None


class StateContract(LogContract):
    """Small values of other parts, and retained messages."""

    async def test_write_overwrite_delete(self, bench: Bench, log: EventLog) -> None:
        await log.write_state([StateWrite(PUMP, "a", b"1"), StateWrite(PUMP, "b", b"")], durable=True)
        await log.write_state([StateWrite(PUMP, "a", b"\0\xff"), StateWrite(PUMP, "c", b"3")], durable=False)
        await log.write_state([StateWrite(PUMP, "c", None), StateWrite(PUMP, "none", None)], durable=False)
        assert await log.all_state(PUMP) == {"a": b"\0\xff", "b": b""}
        log = await bench.reopen(log)
        assert await log.all_state(PUMP) == {"a": b"\0\xff", "b": b""}
        assert await log.read_state(PUMP, "b") == b""
        assert await log.read_state(PUMP, "c") is None

    async def test_last_write_within_a_call_counts(self, log: EventLog) -> None:
        await log.write_state(
            [StateWrite(PUMP, "a", b"1"), StateWrite(PUMP, "a", None), StateWrite(PUMP, "a", b"2")], durable=False
        )
        assert await log.all_state(PUMP) == {"a": b"2"}

    async def test_kinds_are_apart(self, log: EventLog) -> None:
        await log.write_state([StateWrite(PUMP, "k", b"pump"), StateWrite(SESSION, "k", b"session")], durable=False)
        await log.write_state([StateWrite(PUMP, "k", None)], durable=False)
        assert await log.read_state(SESSION, "k") == b"session"
        assert await log.all_state(PUMP) == {}

    async def test_reads_see_every_earlier_write_and_no_later_one(self, log: EventLog) -> None:
        log.write_state([StateWrite(PUMP, "a", b"1")], durable=False)
        log.append([make_event(1)], state=[StateWrite(PUMP, "b", b"1")])
        first = asyncio.ensure_future(log.all_state(PUMP))
        one = asyncio.ensure_future(log.read_state(PUMP, "b"))
        await asyncio.sleep(0)  # the reads begin
        log.write_state([StateWrite(PUMP, "a", None), StateWrite(PUMP, "b", b"2")], durable=False)
        second = await log.all_state(PUMP)
        assert (await first, await one, second) == ({"a": b"1", "b": b"1"}, b"1", {"b": b"2"})

    async def test_retained_event_is_kept_and_replaced(self, bench: Bench, log: EventLog) -> None:
        await log.append([make_event(1, topic="t", retain=True), make_event(2, topic="u", retain=True)])
        await log.append([make_event(3, topic="t", retain=True), make_event(4, topic="t")])
        for _ in range(2):
            kept = {record.event.topic: record for record in await log.all_retained()}
            assert {topic: (r.offset, r.event.id) for topic, r in kept.items()} == {
                "t": (3, make_event(3).id),
                "u": (2, make_event(2).id),
            }
            assert kept["t"].position == f"{log.epoch}:3"
            log = await bench.reopen(log)

    @pytest.mark.parametrize("mqtt", [MqttMessage(), MqttMessage(payload=b"")])
    async def test_empty_mqtt_payload_clears(self, log: EventLog, mqtt: MqttMessage) -> None:
        await log.append([make_event(1, topic="t", retain=True), make_event(2, topic="u", retain=True)])
        data = b"" if mqtt.payload is None else b"null"
        await log.append([make_event(3, topic="t", retain=True, data=data, mqtt=mqtt)])
        assert [record.event.topic for record in await log.all_retained()] == ["u"]
        assert log.head == 3

    async def test_ephemeral_retained(self, bench: Bench, log: EventLog) -> None:
        await log.write_retained("t", make_event(1, topic="t", retain=True))
        await log.write_retained("u", make_event(2, topic="u", retain=True))
        await log.write_retained("v", make_event(3, topic="v", retain=True))
        await log.write_retained("u", None)
        await log.write_retained("v", make_event(4, topic="v", data=b"", retain=True, mqtt=MqttMessage()))
        log = await bench.reopen(log)
        [record] = await log.all_retained()
        assert (record.event, record.offset, record.position) == (make_event(1, topic="t", retain=True), 0, None)
        assert log.head == 0

    async def test_last_retained_call_counts(self, log: EventLog) -> None:
        log.append([make_event(1, topic="t", retain=True)])
        log.write_retained("t", make_event(2, topic="t", retain=True))
        assert [record.event.id for record in await log.all_retained()] == [make_event(2).id]
        log.write_retained("t", None)
        log.append([make_event(3, topic="t", retain=True)])
        assert offsets_of(await log.all_retained()) == [2]

    async def test_duplicate_is_not_retained_again(self, log: EventLog) -> None:
        old, new = make_event(1, topic="t", retain=True), make_event(2, topic="t", retain=True)
        await log.append([old, new])
        await log.append([old])
        assert offsets_of(await log.all_retained()) == [2]


class RetentionContract(LogContract):
    """What is trimmed is said to be gone, and no offset is used twice."""

    async def test_nothing_to_trim(self, bench: Bench, log: EventLog) -> None:
        await log.append(make_events(3))
        assert await log.trim(now=bench.clock.now) == (0, 0)
        assert (log.head, log.oldest) == (3, 1)

    async def test_without_bounds_nothing_goes(self, bench: Bench) -> None:
        log = await bench.open(retention=Retention(None, None))
        await log.append(make_events(3))
        assert await log.trim(now=bench.clock.now + 10**9) == (0, 0)

    async def test_by_bytes(self, bench: Bench) -> None:
        size = make_event(1).size
        log = await bench.open(retention=Retention(None, 3 * size))
        await log.append(make_events(8))
        assert await log.trim(now=bench.clock.now) == (5, 0)
        assert (log.head, log.oldest) == (8, 6)
        assert offsets_of((await log.read(EVERYTHING, 5)).records) == [6, 7, 8]

    async def test_by_age(self, bench: Bench) -> None:
        log = await bench.open(retention=Retention(60.0, None))
        for start in (1, 3, 5):
            await log.append(make_events(2, start=start))
            bench.clock.now += 40
        assert await log.trim(now=bench.clock.now) == (4, 0)
        assert (log.head, log.oldest) == (6, 5)

    async def test_clock_that_steps_back_keeps_the_order(self, bench: Bench) -> None:
        log = await bench.open(retention=Retention(60.0, None))
        await log.append([make_event(1)])
        bench.clock.now -= 1000
        await log.append([make_event(2)])
        assert await log.trim(now=bench.clock.now + 1030) == (0, 0)
        assert await log.trim(now=bench.clock.now + 1061) == (2, 0)

    async def test_what_somebody_still_has_to_read_is_kept(self, bench: Bench) -> None:
        log = await bench.open(retention=Retention(60.0, 3 * make_event(1).size))
        await log.append(make_events(8))
        assert await log.trim(now=bench.clock.now, keep_after=2) == (2, 3)
        assert log.oldest == 3
        assert await log.trim(now=bench.clock.now, keep_after=0) == (0, 3)
        assert await log.trim(now=bench.clock.now + 100, keep_after=2) == (0, 6)
        assert offsets_of((await log.read(EVERYTHING, 2)).records) == [3, 4, 5, 6, 7, 8]
        assert await log.trim(now=bench.clock.now, keep_after=7) == (3, 0)
        assert await log.trim(now=bench.clock.now + 100) == (3, 0)
        assert await log.trim(now=bench.clock.now + 100, keep_after=2) == (0, 0)

    async def test_more_than_one_chunk_up_to_what_is_kept(self, bench: Bench) -> None:
        log = await bench.open(retention=Retention(None, 0))
        await log.append(make_events(2500))
        assert await log.trim(now=bench.clock.now, keep_after=2000) == (2000, 500)
        assert await log.trim(now=bench.clock.now, keep_after=2000) == (0, 500)

    async def test_reads_say_that_events_are_gone(self, bench: Bench) -> None:
        log = await bench.open(retention=Retention(None, 3 * make_event(1).size))
        await log.append(make_events(8))
        await log.trim(now=bench.clock.now)
        for after, complete in [(-1, False), (0, False), (4, False), (5, True), (6, True), (8, True)]:
            for selector in (EVERYTHING, Selector(rooms=frozenset({"org:global"})), Selector(filters=("crm/#",))):
                page = await log.read(selector, after)
                assert offsets_of(page.records) == [n for n in (6, 7, 8) if n > after]
                assert (page.through, page.complete) == (8, complete)
        assert await log.read(EVERYTHING, 0, upto=4) == ([], 4, False)
        assert await log.find(make_event(1).id) is None

    async def test_offsets_are_never_used_again(self, bench: Bench) -> None:
        options = {"retention": Retention(None, 0)}
        log = await bench.open(**options)
        await log.append(make_events(4))
        assert await log.trim(now=bench.clock.now) == (4, 0)
        assert (log.head, log.oldest) == (4, 5)
        assert await log.read(EVERYTHING, 3) == ([], 4, False)
        assert await log.read(EVERYTHING, 4) == ([], 4, True)
        log = await bench.reopen(log, **options)
        assert (log.head, log.oldest) == (4, 5)
        assert answers_of(await log.append([make_event(5)])) == [(5, False)]

    async def test_again_and_again(self, bench: Bench) -> None:
        size = make_event(1, topic="t").size
        options = {"retention": Retention(None, 3 * size)}
        log = await bench.open(**options)
        for start in range(1, 30, 4):
            await log.append([make_event(n, topic="t", data=b"{}".ljust(12)) for n in range(start, start + 4)])
            await log.trim(now=bench.clock.now)
            assert (log.head, log.oldest) == (start + 3, start + 1)
            log = await bench.reopen(log, **options)
        assert offsets_of((await log.read(EVERYTHING, 0)).records) == [30, 31, 32]

    async def test_many_with_appends_between(self, bench: Bench) -> None:
        log = await bench.open(retention=Retention(None, 0))
        for start in range(1, 9001, 3000):
            await log.append(make_events(3000, start=start))
        trimming = asyncio.create_task(log.trim(now=bench.clock.now))
        number = 9001
        while not trimming.done():
            await log.append([make_event(number)])
            number += 1
        removed = (await trimming).removed
        assert removed >= 9000
        assert log.head == number - 1
        assert log.oldest == removed + 1
        page = await log.read(Selector(rooms=frozenset({"org:global"})), 0)
        assert offsets_of(page.records) == list(range(removed + 1, number))

    async def test_retained_outlives_its_event(self, bench: Bench) -> None:
        options = {"retention": Retention(None, 0)}
        log = await bench.open(**options)
        await log.append([make_event(1, topic="t", retain=True)])
        await log.trim(now=bench.clock.now)
        log = await bench.reopen(log, **options)
        assert [(record.offset, record.event.topic) for record in await log.all_retained()] == [(1, "t")]

    async def test_expired_retained_goes(self, bench: Bench, log: EventLog) -> None:
        now = bench.clock.now
        await log.append([make_event(1, topic="t", retain=True, expires=int(now * 1000) + 5000)])
        await log.write_retained("u", make_event(2, topic="u", retain=True, expires=2**63))
        await log.trim(now=now + 4)
        assert len(await log.all_retained()) == 2
        await log.trim(now=now + 5)
        assert [record.event.topic for record in await log.all_retained()] == ["u"]


class LifeContract(LogContract):
    """Opening, closing, and what lies between."""

    async def test_reopened_log_is_the_same(self, bench: Bench, log: EventLog) -> None:
        await log.append(make_events(3))
        epoch = log.epoch
        log = await bench.reopen(log)
        assert (log.epoch, log.head, log.oldest) == (epoch, 3, 1)
        assert answers_of(await log.append([make_event(4)])) == [(4, False)]
        assert offsets_of(bench.heard) == [1, 2, 3, 4]

    async def test_epochs_differ(self, log: EventLog, tmp_path: Path) -> None:
        other_folder = tmp_path / "other"
        other_folder.mkdir()
        other = self.create(other_folder)
        await other.open(lambda _: None)
        await other.close()
        assert other.epoch != log.epoch

    async def test_close_commits_what_was_accepted(self, bench: Bench, log: EventLog) -> None:
        futures = [log.append([make_event(n)], state=[StateWrite(PUMP, "n", b"%d" % n)]) for n in range(1, 51)]
        state = log.write_state([StateWrite(PUMP, "m", b"1")], durable=False)
        await log.close()
        assert all(future.done() for future in futures)
        assert state.done()
        assert offsets_of(bench.heard) == list(range(1, 51))
        log = await bench.reopen(log)
        assert log.head == 50
        assert await log.all_state(PUMP) == {"n": b"50", "m": b"1"}

    async def test_closed_log_refuses(self, bench: Bench, log: EventLog) -> None:
        await log.append([make_event(1)])
        await log.close()
        await log.close()
        with pytest.raises(LogUnavailable):
            await log.append([make_event(2)])
        with pytest.raises(LogUnavailable):
            await log.write_state([StateWrite(PUMP, "a", b"1")], durable=True)
        with pytest.raises(LogUnavailable):
            await log.write_retained("t", None)
        for read in (
            lambda: log.read(EVERYTHING, 0),
            lambda: log.find("x"),
            lambda: log.read_state(PUMP, "a"),
            lambda: log.all_state(PUMP),
            log.all_retained,
            lambda: log.trim(now=0),
        ):
            with pytest.raises(LogUnavailable):
                await read()
        assert offsets_of(bench.heard) == [1]

    async def test_log_that_was_never_opened_refuses(self, tmp_path: Path) -> None:
        log = self.create(tmp_path)
        with pytest.raises(LogUnavailable):
            await log.append([make_event(1)])
        await log.close()


class EventLogContract(
    OrderContract,
    IdempotencyContract,
    AtomicityContract,
    ReadContract,
    StateContract,
    RetentionContract,
    LifeContract,
):
    """All of it."""
