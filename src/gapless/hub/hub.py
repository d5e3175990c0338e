"""The hub: hands each committed event to every transport, and pages of history to those behind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from gapless.delivery import Cursor, RecentEvents, SharedRuns
from gapless.errors import InvalidPosition
from gapless.event import Event, Position, Record
from gapless.eventlog import EVERYTHING, EventLog, Page, Selector
from gapless.hub.retained import RetainedMessages

logger = logging.getLogger("gapless.hub")


class Fanout(Protocol):
    """One transport's live side.

    `deliver` is called once per event, durable ones in log order, each after `Hub.head` was
    set to its offset. It writes to (or queues for) every live reader of the transport, must
    not block and must not raise; a reader that cannot take the event falls behind alone.
    Ephemeral events have offset 0 and go to live readers only.
    """

    def deliver(self, record: Record) -> None: ...


class Hub:
    """The middle between the log and the transports of this node.

    A transport registers a `Fanout`, keeps one `Cursor` per reader, and feeds readers that
    are behind by `page` (or, without suspending, `page_now`) until `Cursor.join(hub.head)`.

    Attributes:
        head: offset of the newest event handed out; never ahead of the log.
        alone: whether no other event follows the one being handed out in this step of the event loop, so
            that there is nothing to write it together with.
        runs: what readers were sent that came back.
    """

    def __init__(self, log: EventLog, *, recent_events: int = 100_000, recent_bytes: int = 256 << 20) -> None:
        self._log = log
        self._recent_events = recent_events
        self._recent_bytes = recent_bytes
        self._recent = RecentEvents()
        self._fanouts: list[Fanout] = []
        self._flushes: list[Callable[[], None]] = []
        self.retained = RetainedMessages()
        self.runs = SharedRuns()
        self.head = 0
        self.alone = True

    @property
    def epoch(self) -> str:
        """The log's epoch."""
        return self._log.epoch

    def position(self, offset: int | None = None) -> str:
        """An offset (default: the head) as clients see it."""
        return f"{self._log.epoch}:{self.head if offset is None else offset}"

    async def start(self) -> None:
        """Load the retained messages and the newest events; call after the log was opened."""
        head = self._log.head
        start = max(self._log.oldest - 1, head - min(self._recent_events, 20_000))
        self._recent = RecentEvents(max_events=self._recent_events, max_bytes=self._recent_bytes, head=start)
        while self._recent.head < head:
            page = await self._log.read(EVERYTHING, self._recent.head, limit=1000, upto=head)
            for record in page.records:
                self._recent.append(record)
        self.head = head
        for record in await self._log.all_retained():
            self.retained.set(record)

    def add(self, fanout: Fanout) -> None:
        """Register a transport's fan-out."""
        self._fanouts.append(fanout)

    def remove(self, fanout: Fanout) -> None:
        """Forget a transport's fan-out."""
        self._fanouts.remove(fanout)

    def after_each_batch(self, flush: Callable[[], None]) -> None:
        """Call this once all events that were committed together are handed out, in the same step
        of the event loop: a fan-out may write them together."""
        self._flushes.append(flush)

    def deliver(self, records: Sequence[Record]) -> None:
        """Hand committed events out, in log order. This is the log's committed listener."""
        self.alone = len(records) == 1
        for record in records:
            self._recent.append(record)
            self.head = record.offset
            if record.event.retain:
                self.retained.set(record)
            self._hand_out(record)
        self._flush()

    def deliver_ephemeral(self, event: Event) -> None:
        """Hand an event out that is not in the log: at most once, to those live now."""
        record = Record(event)
        self.alone = True
        if event.retain:
            self.retained.set(record)
        self._hand_out(record)
        self._flush()

    def _flush(self) -> None:
        for flush in self._flushes:
            try:
                flush()
            except Exception:  # as in `_hand_out`
                logger.exception("fan-out: %r failed", flush)

    def _hand_out(self, record: Record) -> None:
        for fanout in self._fanouts:
            try:
                fanout.deliver(record)
            except Exception:  # a defect in one transport must not stop the others
                logger.exception("fan-out %s failed on %r", type(fanout).__name__, record)

    def page_now(self, selector: Selector, after: int, *, limit: int = 1000) -> Page | None:
        """A page from memory without suspending; None where only the log can answer."""
        return self._recent.page(selector, after, limit=limit)

    async def page(self, selector: Selector, after: int, *, limit: int = 1000) -> Page:
        """A page of what was handed out after an offset, from memory or from the log.

        Never reaches past `head` as it was at the call, so that what a page holds was, or
        is never to be, offered as a live event to a reader that is behind.
        """
        page = self._recent.page(selector, after, limit=limit)
        if page is not None:
            return page
        return await self._log.read(selector, after, limit=limit, upto=self.head)

    def cursor_at(self, position: Position | None) -> Cursor:
        """A cursor for a client that comes with its own position; None begins at the head.

        A position of another epoch, or before the oldest event kept, gives a cursor that is
        not `complete` and starts with the oldest event kept (another epoch: at the head).

        Raises:
            InvalidPosition: the position is of this epoch, but ahead of the log.
        """
        if position is None:
            return Cursor(self.head)
        if position.epoch != self._log.epoch:
            cursor = Cursor(self.head)
            cursor.complete = False
            return cursor
        if position.offset > self._log.head:
            raise InvalidPosition(
                f"position {position} lies ahead of the log, which ends at {self.position(self._log.head)}",
                hint="use a position exactly as the server gave it",
            )
        cursor = Cursor(position.offset)
        cursor.complete = position.offset >= self._log.oldest - 1
        return cursor
