"""The event log in memory: for tests, and where events need not outlive the process."""

from __future__ import annotations

import asyncio
import logging
import time as _time
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from gapless.errors import GaplessError, LogUnavailable, Overloaded
from gapless.event import Event, Record
from gapless.eventlog.answers import resolve, tell
from gapless.eventlog.contract import (
    Answer,
    Appended,
    CommittedListener,
    Page,
    Retention,
    Selector,
    StateKind,
    StateWrite,
    Trimmed,
)
from gapless.eventlog.encoding import check_state, encode_event
from gapless.eventlog.epoch import new_epoch

T = TypeVar("T")
logger = logging.getLogger("gapless.eventlog")

_SCANNED_AT_ONCE = 20_000


class _One(msgspec.Struct, frozen=True, eq=False, gc=False):
    """An event whose publisher is told by a call."""

    event: Event
    answer: Answer
    state: tuple[StateWrite, ...]


_Job = _One | tuple[Future[Any], Callable[[list[Record]], Any]]


class MemoryLog:
    """An `EventLog` that keeps everything in this process's memory.

    It gives every guarantee of the contract except that "stable storage" is this object:
    events and state outlive `close` and a second `open` of the same object, nothing more.

    Args:
        retention: what `trim` keeps.
        max_waiting_bytes: appends and writes that wait for the next step of the event loop;
            past it they are refused with `Overloaded`.
        clock: seconds since the Unix epoch; stamps events for the retention by age.
    """

    def __init__(
        self,
        *,
        retention: Retention | None = None,
        max_waiting_bytes: int = 64 << 20,
        clock: Callable[[], float] = _time.time,
    ) -> None:
        self._retention = retention or Retention()
        self._max_waiting_bytes = max_waiting_bytes
        self._clock = clock
        self._epoch = new_epoch()
        self._trimmed = 0
        self._records: list[Record] = []  # the one with offset n stands at n - trimmed - 1
        self._appended: list[float] = []  # seconds, beside the records, never falling
        self._by_id: dict[str, Record] = {}
        self._namesakes: dict[str, list[Record]] = {}  # further ones with an id
        self._bytes = 0
        self._state: dict[StateKind, dict[str, bytes]] = {kind: {} for kind in StateKind}
        self._retained: dict[str, Record] = {}
        self._jobs: list[_Job] = []
        self._waiting_bytes = 0
        self._on_committed: CommittedListener | None = None
        self._head = 0

    @property
    def epoch(self) -> str:
        """Names this life of the log: letters and digits."""
        return self._epoch

    @property
    def head(self) -> int:
        """Offset of the newest event; 0 in an empty log."""
        return self._head

    @property
    def oldest(self) -> int:
        """Offset of the oldest event kept; `head + 1` where none is kept."""
        return self._trimmed + 1

    def status(self) -> str | None:
        """What is wrong with the log, for people; None while it takes writes."""
        return None if self._on_committed is not None else "the log is closed"

    async def open(self, on_committed: CommittedListener) -> None:
        """Begin to take calls. See the contract."""
        self._on_committed = on_committed

    async def close(self) -> None:
        """Store what was accepted, then refuse everything. Closing twice is fine."""
        self._flush()
        self._on_committed = None

    def append(self, events: Sequence[Event], *, state: Sequence[StateWrite] = ()) -> Future[list[Appended]]:
        """Store events, and state values with them. See the contract."""
        events, writes = tuple(events), tuple(state)

        def store(committed: list[Record]) -> list[Appended]:
            self._write(writes)
            return [self._store(event, committed) for event in events]

        def weigh() -> int:
            for event in events:
                encode_event(event)  # refuse here what a log on disk would refuse
            return check_state(writes) + sum(event.size for event in events)

        return self._submit(weigh, store)

    def append_one(self, event: Event, answer: Answer, *, state: Sequence[StateWrite] = ()) -> None:
        """Store one event, and tell `answer`. See the contract."""
        writes = tuple(state)
        self._check_open()
        encode_event(event)
        self._check_room(size := check_state(writes) + event.size)
        self._put(_One(event, answer, writes), size)

    def write_state(self, writes: Sequence[StateWrite], *, durable: bool) -> Future[None]:
        """Store state values; `durable` changes nothing in memory. See the contract."""
        values = tuple(writes)
        return self._submit(lambda: check_state(values), lambda _: self._write(values))

    async def read_state(self, kind: StateKind, key: str) -> bytes | None:
        """One value, or None. Sees every earlier write."""
        return await self._submit(lambda: 0, lambda _: self._state[kind].get(key))

    async def all_state(self, kind: StateKind) -> dict[str, bytes]:
        """All values of a kind, by key. Sees every earlier write."""
        return await self._submit(lambda: 0, lambda _: dict(self._state[kind]))

    def write_retained(self, topic: str, event: Event | None) -> Future[None]:
        """Keep an ephemeral event as its topic's last value; None clears the topic."""

        def keep(_: list[Record]) -> None:
            self._retain(topic, None if event is None else Record(event))

        def weigh() -> int:
            if event is None:
                return 100
            encode_event(event)
            return event.size

        return self._submit(weigh, keep)

    async def all_retained(self) -> list[Record]:
        """The last value of every topic that has one; offset 0 for ephemeral ones."""
        return await self._submit(lambda: 0, lambda _: list(self._retained.values()))

    async def read(self, selector: Selector, after: int, *, limit: int = 1000, upto: int | None = None) -> Page:
        """Matching events. See the contract.

        Raises:
            ValueError: `limit` is not positive.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}, and must be 1 or more")
        self._check_open()
        end = self._head if upto is None else min(upto, self._head)
        await asyncio.sleep(0)  # like a log on disk: others may run before the answer
        complete = after >= self._trimmed
        start = max(after, self._trimmed)
        stop = min(end, start + _SCANNED_AT_ONCE)
        records: list[Record] = []
        for offset in range(start + 1, stop + 1):
            record = self._records[offset - self._trimmed - 1]
            if selector.wants(record.event):
                records.append(record)
                if len(records) == limit:
                    return Page(records, offset, complete)
        return Page(records, max(after, stop), complete)

    async def find(self, event_id: str) -> Record | None:
        """The event with this id, where the log keeps it."""
        self._check_open()
        await asyncio.sleep(0)
        return self._by_id.get(event_id)

    async def trim(self, *, now: float, keep_after: int | None = None) -> Trimmed:
        """Apply the retention. See the contract."""
        return await self._submit(lambda: 0, lambda _: self._trim(now, keep_after))

    def _check_open(self) -> None:
        if self._on_committed is None:
            raise LogUnavailable("the log is closed")

    def _submit(self, weigh: Callable[[], int], apply: Callable[[list[Record]], T]) -> Future[T]:
        future: Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._check_open()
            self._check_room(size := weigh())
        except GaplessError as error:
            future.set_exception(error)
        else:
            self._put((future, apply), size)
        return future

    def _check_room(self, size: int) -> None:
        waiting = self._waiting_bytes
        if waiting and waiting + size > self._max_waiting_bytes:
            raise Overloaded("too much waits to be stored", size=waiting + size, limit=self._max_waiting_bytes)

    def _put(self, job: _Job, size: int) -> None:
        if not self._jobs:
            asyncio.get_running_loop().call_soon(self._flush)
        self._jobs.append(job)
        self._waiting_bytes += size

    def _flush(self) -> None:
        jobs, self._jobs = self._jobs, []
        self._waiting_bytes = 0
        committed: list[Record] = []
        stored: list[tuple[Answer, Record, bool]] = []
        answers: list[tuple[Future[Any], Any]] = []
        for job in jobs:
            if isinstance(job, _One):
                self._write(job.state)
                stored.append((job.answer, *self._store(job.event, committed)))
            else:
                future, apply = job
                answers.append((future, apply(committed)))
        if committed:
            self._head = committed[-1].offset
            try:
                if self._on_committed is not None:
                    self._on_committed(committed)
            except Exception:  # the events are stored: their publishers must hear so
                logger.exception("the committed listener failed")
        tell(stored)
        for future, result in answers:
            resolve(future, result)

    def _store(self, event: Event, committed: list[Record]) -> Appended:
        known = self._by_id.get(event.id)
        if known is not None:
            for record in (known, *self._namesakes.get(event.id, ())):
                if event.is_copy_of(record.event):
                    return Appended(record, duplicate=True)
        offset = self._trimmed + len(self._records) + 1
        record = Record(event, offset, f"{self._epoch}:{offset}")
        now = self._clock()
        self._records.append(record)
        self._appended.append(max(now, self._appended[-1]) if self._appended else now)
        if known is None:
            self._by_id[event.id] = record
        else:
            self._namesakes.setdefault(event.id, []).append(record)
        self._bytes += event.size
        if event.retain:
            self._retain(event.topic, record)
        committed.append(record)
        return Appended(record, duplicate=False)

    def _retain(self, topic: str, record: Record | None) -> None:
        if record is None or record.event.mqtt_payload == b"":
            self._retained.pop(topic, None)
        else:
            self._retained[topic] = record

    def _write(self, writes: tuple[StateWrite, ...]) -> None:
        for kind, key, value in writes:
            if value is None:
                self._state[kind].pop(key, None)
            else:
                self._state[kind][key] = value

    def _trim(self, now: float, keep_after: int | None) -> Trimmed:
        oldest_kept = -float("inf") if self._retention.seconds is None else now - self._retention.seconds
        most_bytes = float("inf") if self._retention.bytes is None else self._retention.bytes
        removed = held = 0
        left = self._bytes
        for record, appended in zip(self._records, self._appended, strict=True):
            # Only what was handed out may go: this batch's own events stay.
            if record.offset > self._head or (appended >= oldest_kept and left <= most_bytes):
                break
            left -= record.event.size
            if keep_after is not None and record.offset > keep_after:
                held += 1
                continue
            removed += 1
            self._bytes -= record.event.size
            self._forget(record.event.id)
        del self._records[:removed], self._appended[:removed]
        self._trimmed += removed
        for topic in [t for t, r in self._retained.items() if _expired(r.event, now)]:
            del self._retained[topic]
        return Trimmed(removed, held)

    def _forget(self, event_id: str) -> None:
        """The oldest event with the id is gone."""
        others = self._namesakes.get(event_id)
        if others is None:
            del self._by_id[event_id]
            return
        self._by_id[event_id] = others.pop(0)
        if not others:
            del self._namesakes[event_id]


def _expired(event: Event, now: float) -> bool:
    return event.expires is not None and event.expires <= now * 1000
