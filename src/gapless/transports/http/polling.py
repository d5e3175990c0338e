"""`GET /api/events`: history and long poll in one.

A poll reads from its position until it has something or has reached the head; then it waits,
live, and takes what the hub hands out until its task runs again, so that a burst is one answer.
"""

from __future__ import annotations

import asyncio

from gapless.auth import Identity
from gapless.delivery import Cursor
from gapless.envelope import envelope_json
from gapless.errors import Overloaded, Unauthorized
from gapless.event import Record
from gapless.eventlog import Selector
from gapless.transports.http.readers import EventDoor
from gapless.transports.http.request import Request


class Batch:
    """What one answer carries, bounded in events and bytes.

    Attributes:
        full: takes no more.
        stopped_before: offset of the first durable event that found it full, or None.
    """

    __slots__ = ("_bytes", "_limit", "_max_bytes", "events", "full", "stopped_before")

    def __init__(self, *, limit: int, max_bytes: int) -> None:
        self.events: list[bytes] = []
        self.full = False
        self.stopped_before: int | None = None
        self._limit = limit
        self._max_bytes = max_bytes
        self._bytes = 0

    def add(self, record: Record) -> bool:
        """Take an event, and say whether there is room for another.

        Where the batch is full already, note where it stopped (an ephemeral event is dropped).
        """
        if self.full:
            if record.offset and self.stopped_before is None:
                self.stopped_before = record.offset
            return False
        event = envelope_json(record)
        self.events.append(event)
        self._bytes += len(event)
        self.full = len(self.events) >= self._limit or self._bytes >= self._max_bytes
        return not self.full


class Waiter:
    """A poll that has everything and waits for the next event. It is its own `Holder`.

    Attributes:
        ended: why its access ended meanwhile.
        changed: whether rights may have changed meanwhile.
    """

    __slots__ = ("_woken", "batch", "changed", "ended")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.ended: Unauthorized | None = None
        self.changed = False
        self._woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def access_ended(self, error: Unauthorized) -> None:
        """See `Holder`: the poll is answered 401."""
        self.ended = error
        self.wake()

    def access_changed(self) -> None:
        """See `Holder`: the poll is answered by what holds now."""
        self.changed = True
        self.wake()

    def wake(self) -> None:
        """Let it answer with what it has."""
        if not self._woken.done():
            self._woken.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Until `wake`, at most so long."""
        timer = asyncio.get_running_loop().call_later(seconds, self.wake)
        try:
            await self._woken
        finally:
            timer.cancel()


class PollDoor(EventDoor[Waiter]):
    """The fan-out to those who poll."""

    @property
    def waiting(self) -> int:
        """Polls that wait now."""
        return len(self._readers)

    def deliver(self, record: Record) -> None:
        """See `Fanout`."""
        for waiter in self._hearing(record):
            waiter.batch.add(record)
            waiter.wake()

    def stop(self) -> None:
        """Answer every poll now, and later ones at once."""
        self._stopping = True
        for waiter in self._readers.readers:
            waiter.wake()

    async def poll(self, request: Request) -> None:
        """Handle `GET /api/events`."""
        options = self._options
        identity, rooms = await self._admit(request, door="poll")
        limit = request.integer("limit", default=options.poll_limit, maximum=options.poll_max_limit)
        wait = request.seconds("wait", maximum=options.poll_max_wait)
        cursor = self._cursor(request, request.value("after"))
        batch = Batch(limit=limit, max_bytes=options.poll_bytes)
        if wait:  # else it reads history, and is nobody who listens
            self._presence.arrived(identity)
            self._presence.entered(identity, rooms)
        try:
            await self._catch_up(cursor, Selector(rooms=rooms), batch, limit)
            # Rights may have changed while it read; where it waits, its lease tells it from here on.
            await request.check_rooms(self._gate, identity, rooms)
            if wait and cursor.live and cursor.complete and not batch.events and not self._stopping:
                with self._admitted(request, rooms):
                    await self._wait(request, identity, rooms, batch, wait)
        finally:
            if wait:
                self._presence.departed(identity, rooms)
        # Nothing suspends between here and the encoding: a live cursor has all up to this head.
        position = cursor.position
        if cursor.live:
            position = self._hub.head if batch.stopped_before is None else batch.stopped_before - 1
        self.delivered += len(batch.events)
        head = b'{"position":"%b","complete":%b,"events":[' % (
            self._hub.position(position).encode(),
            b"true" if cursor.complete else b"false",
        )
        await request.answer_parts([head, *_with_commas(batch.events), b"]}"])

    async def _catch_up(self, cursor: Cursor, selector: Selector, batch: Batch, limit: int) -> None:
        hub = self._hub
        while not batch.full and not cursor.join(hub.head):
            page = await hub.page(selector, cursor.position, limit=limit)
            for record in cursor.take(page):
                if not self._expired(record) and not batch.add(record):
                    break

    async def _wait(
        self, request: Request, identity: Identity, rooms: frozenset[str], batch: Batch, seconds: float
    ) -> None:
        if self.waiting >= self._options.max_polls:
            raise Overloaded("too many polls are waiting", hint="poll again after a moment", limit=self.waiting)
        waiter = Waiter(batch)
        self._readers.add(waiter, rooms)
        lease = self._gate.hold(identity, waiter)
        watch = request.watch(waiter.wake)
        try:
            await waiter.wait(seconds)
            if waiter.changed:
                await self._gate.prepare(identity, rooms=rooms)
        finally:
            watch.cancel()
            lease.release()
            self._readers.remove(waiter, rooms)
        if waiter.ended is not None:
            raise waiter.ended
        if waiter.changed:
            for room in sorted(rooms):
                self._gate.check_subscribe_room(identity, room)


def _with_commas(events: list[bytes]) -> list[bytes]:
    """As the elements of a JSON array."""
    parts = [b","] * max(0, 2 * len(events) - 1)
    parts[::2] = events
    return parts
