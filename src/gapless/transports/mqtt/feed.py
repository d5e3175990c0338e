"""Feeding those that are behind from the log: bounded work per step of the loop, each in turn."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from gapless.delivery import Cursor
from gapless.errors import GaplessError
from gapless.event import Record
from gapless.eventlog import EVERYTHING, Page, Selector
from gapless.hub import Hub
from gapless.transports.mqtt.tasks import Tasks

logger = logging.getLogger("gapless.mqtt")

PAGE = 128
"""Records that are read ahead for one reader at most."""
AHEAD_BYTES = 256 * 1024
"""Bytes, by `Event.size`, of records that are read ahead; one record may be larger. So much does a
reader hold that takes nothing, beside what its socket holds."""
SLICE = 0.002
"""Seconds that feeding may take of one step of the loop."""
RETRY = 1.0
"""Seconds until a read of the log that failed is tried again."""


class Feeder:
    """Gives all that are behind their turns, one after the other, a slice of each step's time."""

    def __init__(self, hub: Hub, tasks: Tasks) -> None:
        self.hub = hub
        self.tasks = tasks
        self._waiting: deque[Feed] = deque()
        self._running = False

    def schedule(self, feed: Feed) -> None:
        """Give it a turn soon."""
        if feed.scheduled:
            return
        feed.scheduled = True
        self._waiting.append(feed)
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + SLICE
        waiting = self._waiting
        for _ in range(len(waiting)):
            feed = waiting.popleft()
            feed.scheduled = False
            try:
                more = feed.turn()
            except Exception as error:  # a defect in one must not stop the others
                logger.exception("feeding failed")
                feed.on_broken(error)
                continue
            if more and not feed.scheduled:
                feed.scheduled = True
                waiting.append(feed)
            if loop.time() >= end:
                break
        if waiting:
            loop.call_soon(self._run)
        else:
            self._running = False


class Feed(Cursor):
    """A cursor that reads ahead in the log by pages, from memory where it can."""

    __slots__ = (
        "_ahead",
        "_generation",
        "_limit",
        "_lookup",
        "_reading",
        "_selector",
        "_through",
        "closed",
        "feeder",
        "hub",
        "scheduled",
    )

    def __init__(self, position: int, feeder: Feeder) -> None:
        super().__init__(position)
        self.feeder = feeder
        self.hub = feeder.hub
        self.scheduled = False
        self.closed = False
        self._ahead: deque[Record] = deque()
        self._through = 0
        self._limit = PAGE
        self._reading = False
        self._generation = 0
        self._lookup: tuple[int, Record | None] | None = None
        self._selector: Selector | None = None

    @property
    def reading(self) -> bool:
        """Whether a page is on its way from the log; `turn` is called once it is there."""
        return self._reading

    @property
    def read_ahead(self) -> bool:
        """Whether records are at hand that `turn` has not come to yet."""
        return bool(self._ahead)

    @property
    def where(self) -> int:
        """Offset up to which everything was delivered, behind or live."""
        return max(self.position, self.hub.head) if self.live else self.position

    def make_selector(self) -> Selector:
        """What to read."""
        raise NotImplementedError

    def turn(self) -> bool:
        """Do one bounded piece of work; whether there is more to do at once."""
        raise NotImplementedError

    def on_hole(self, position: int) -> None:
        """Events after this position are gone, which should have been delivered."""
        raise NotImplementedError

    def on_broken(self, error: Exception) -> None:
        """A turn raised; there will be no other unless it is scheduled again."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget what was read ahead: the position or the selector changed."""
        self._ahead.clear()
        self._through = 0
        self._generation += 1
        self._selector = None

    def peek(self) -> Record | None:
        """The next record after the position; None where none is at hand.

        Then either `reading`, or the position has moved on over what does not concern us.
        """
        ahead = self._ahead
        while ahead and ahead[0].offset <= self.position:
            ahead.popleft()
        if ahead:
            return ahead[0]
        self.position = max(self.position, self._through)
        if self._reading or self.position >= self.hub.head:
            return None
        if self._selector is None:
            self._selector = self.make_selector()
        if not (self._selector.filters or self._selector.rooms):
            self.position = self.hub.head
            return None
        page = self.hub.page_now(self._selector, self.position, limit=self._limit)
        if page is None:
            self._reading = True
            self.feeder.tasks.spawn(self._read(self._selector), "mqtt-feed")
            return None
        return self._accept(page)

    def _accept(self, page: Page) -> Record | None:
        if not page.complete:
            self.complete = False
            self.on_hole(self.position)
        self._through = self._keep_ahead(page)
        if self._ahead:
            return self._ahead[0]
        self.position = max(self.position, page.through)
        return None

    def _keep_ahead(self, page: Page) -> int:
        """Keep of a page what may be held; how far it reaches. The next one asks for as many as fitted."""
        ahead = self._ahead
        size = 0
        for record in page.records:
            if record.offset <= self.position:
                continue
            size += record.event.size
            if size > AHEAD_BYTES and ahead:
                self._limit = len(ahead)
                return ahead[-1].offset
            ahead.append(record)
        self._limit = min(PAGE, 2 * self._limit)
        return page.through

    def find_record(self, offset: int) -> tuple[bool, Record | None]:
        """One record by its offset: (found out, record); None where the log has it no more.

        Where it is not found out yet, a turn follows once it is.
        """
        if self._lookup is not None and self._lookup[0] == offset:
            return True, self._lookup[1]
        page = self.hub.page_now(EVERYTHING, offset - 1, limit=1)
        if page is not None:
            return True, _exactly(page, offset)
        if not self._reading:
            self._reading = True
            self.feeder.tasks.spawn(self._read_one(offset), "mqtt-feed-one")
        return False, None

    async def _read_one(self, offset: int) -> None:
        try:
            page = await self.hub.page(EVERYTHING, offset - 1, limit=1)
        except GaplessError as error:
            logger.warning("reading the log failed, trying again: %s", error)
            asyncio.get_running_loop().call_later(RETRY, self._read_over)
            return
        self._lookup = (offset, _exactly(page, offset))
        self._read_over()

    async def _read(self, selector: Selector) -> None:
        generation = self._generation
        try:
            page = await self.hub.page(selector, self.position, limit=self._limit)
        except GaplessError as error:
            logger.warning("reading the log failed, trying again: %s", error)
            asyncio.get_running_loop().call_later(RETRY, self._read_over)
            return
        if generation == self._generation:
            self._accept(page)
        self._read_over()

    def _read_over(self) -> None:
        self._reading = False
        if not self.closed:
            self.feeder.schedule(self)


def _exactly(page: Page, offset: int) -> Record | None:
    return page.records[0] if page.records and page.records[0].offset == offset else None
