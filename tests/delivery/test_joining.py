"""History and live events joined: every interleaving of appends, hand-outs, reads, stalls,
disconnects and trims gives the reader each event once, in order, or tells it that some are gone."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gapless.delivery import Cursor, RecentEvents
from gapless.event import Event, Origin, Record
from gapless.eventlog import Page, Selector


@dataclass
class Reading:
    """A page that was asked for, and is answered later."""

    after: int
    upto: int
    limit: int


class Joining(RuleBasedStateMachine):
    """The log, the hub and one reader, step by step; each rule is one step of an event loop."""

    @initialize(started_with=st.integers(0, 6), recent=st.integers(1, 5), back=st.integers(0, 6))
    def start(self, started_with: int, recent: int, back: int) -> None:
        self.log: list[Record] = []  # offset n stands at n - 1
        self.trimmed = 0
        self.head = 0  # of the hub: what was handed out
        self.recent = RecentEvents(max_events=recent)
        self.selector = Selector(rooms=frozenset({"a"}))
        self.connect(0)
        self.append(started_with, a_every=2)
        self.hand_out(started_with)
        # The client:
        self.begin = max(0, self.head - back)
        self.received: list[int] = []
        self.told_incomplete = False
        self.connect(self.begin)

    def connect(self, position: int) -> None:
        self.cursor = Cursor(position)
        self.cursor.complete = position >= self.trimmed
        self.reading: Reading | None = None
        self.stalled = False

    @property
    def position(self) -> int:
        """What the client itself would come back with."""
        return self.received[-1] if self.received else self.begin

    @rule(count=st.integers(1, 3), a_every=st.integers(1, 3))
    def append(self, count: int, a_every: int) -> None:
        for _ in range(count):
            offset = len(self.log) + 1
            rooms = ("a",) if offset % a_every == 0 else ("b",)
            event = Event(id=str(offset), type="t", topic="t", rooms=rooms, data=b"", time=0, origin=Origin("rest"))
            self.log.append(Record(event, offset))

    @rule(count=st.integers(1, 3))
    def hand_out(self, count: int) -> None:
        """The committed listener: the hub notes the event, then offers it to who is live."""
        for record in self.log[self.head : self.head + count]:
            self.recent.append(record)
            self.head = record.offset
            if self.selector.wants(record.event) and self.cursor.offer(record.offset):
                self.received.append(record.offset)

    @precondition(lambda self: not self.cursor.live and not self.reading and not self.stalled)
    @rule(limit=st.integers(1, 3), takes=st.integers(0, 4))
    def read_now(self, limit: int, takes: int) -> None:
        """A page from memory, without suspending."""
        page = self.recent.page(self.selector, self.cursor.position, limit=limit)
        if page is not None:
            self.take(page, takes)

    @precondition(lambda self: not self.cursor.live and not self.reading and not self.stalled)
    @rule(limit=st.integers(1, 3))
    def begin_reading(self, limit: int) -> None:
        self.reading = Reading(self.cursor.position, self.head, limit)

    @precondition(lambda self: self.reading is not None)
    @rule(takes=st.integers(0, 4))
    def end_reading(self, takes: int) -> None:
        """The log answers a page that was asked for some steps ago."""
        assert self.reading is not None
        asked, self.reading = self.reading, None
        self.take(self.page_of_log(asked), takes)

    def page_of_log(self, asked: Reading) -> Page:
        complete = asked.after >= self.trimmed
        start = max(asked.after, self.trimmed)
        found = [record for record in self.log[start : asked.upto] if self.selector.wants(record.event)]
        if len(found) > asked.limit:
            return Page(found[: asked.limit], found[asked.limit - 1].offset, complete)
        return Page(found, max(asked.after, asked.upto), complete)

    def take(self, page: Page, takes: int) -> None:
        """The reader can take only so many, then its socket is full."""
        for record in self.cursor.take(page):
            self.received.append(record.offset)
            takes -= 1
            if takes <= 0:
                self.stalled = True
                return
        self.cursor.join(self.head)

    @precondition(lambda self: self.cursor.live)
    @rule()
    def stall(self) -> None:
        self.cursor.fall_behind(self.head)
        self.stalled = True

    @precondition(lambda self: self.stalled)
    @rule()
    def drain(self) -> None:
        self.stalled = False
        self.cursor.join(self.head)

    @rule(lost=st.integers(0, 2))
    def reconnect(self, lost: int) -> None:
        """The connection breaks, with some events on the way; the client comes back with its position."""
        self.told_incomplete |= not self.cursor.complete
        self.received = self.received[: len(self.received) - lost] if lost else self.received
        self.connect(self.position)

    @rule(count=st.integers(1, 4))
    def trim(self, count: int) -> None:
        self.trimmed = min(self.trimmed + count, self.head)

    @invariant()
    def each_once_and_in_order(self) -> None:
        if not hasattr(self, "received"):
            return
        assert self.received == sorted(set(self.received))
        assert all(self.selector.wants(self.log[offset - 1].event) for offset in self.received)
        self.missing_only_what_is_gone(self.cursor.position if not self.cursor.live else self.head)

    def missing_only_what_is_gone(self, through: int) -> None:
        """Up to where the cursor says it stands, the client has everything, or was told."""
        wanted = {r.offset for r in self.log[self.begin : through] if self.selector.wants(r.event)}
        missing = wanted - set(self.received)
        if missing:
            assert self.told_incomplete or not self.cursor.complete, missing
            assert max(missing) <= self.trimmed

    def teardown(self) -> None:
        """Whatever happened: left alone, the reader catches up, turns live and has everything."""
        if not hasattr(self, "received"):
            return
        self.hand_out(len(self.log))
        if self.reading is not None:
            self.end_reading(takes=100)
        self.stalled = False
        for _ in range(len(self.log) + 2):
            if self.cursor.join(self.head):
                break
            page = self.recent.page(self.selector, self.cursor.position, limit=2)
            if page is None:
                page = self.page_of_log(Reading(self.cursor.position, self.head, 2))
            self.take(page, takes=100)
        assert self.cursor.live
        self.each_once_and_in_order()


TestJoining = Joining.TestCase
TestJoining.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
