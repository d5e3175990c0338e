"""Presence on the event loop: what the doors call, one timer, and telling the watchers."""

from __future__ import annotations

import asyncio
import logging
import time as _time
from collections.abc import Callable, Iterable

from gapless.auth import DevelopmentGate, Gate, Identity
from gapless.event import format_time
from gapless.presence.news import Change, Person, RoomNews, Snapshot
from gapless.presence.options import PresenceOptions
from gapless.presence.roster import EVERYWHERE, RoomChange, Roster
from gapless.presence.watches import Watcher, Watches

logger = logging.getLogger("gapless.presence")

_EVERYWHERE = (EVERYWHERE,)


class Presence:
    """Who is where on this gateway, by the connections of all doors.

    A trusted service that speaks for nobody is not counted. A user stays in a room until `options.grace` has
    passed since the last connection left it.

    Args:
        gate: who may know of whom.
        clock: seconds of a clock that only goes forward.
        wall: seconds since the Unix epoch, to tell times.
    """

    def __init__(
        self,
        options: PresenceOptions | None = None,
        *,
        gate: Gate | None = None,
        clock: Callable[[], float] = _time.monotonic,
        wall: Callable[[], float] = _time.time,
    ) -> None:
        self.options = options or PresenceOptions()
        self.roster = Roster(grace=self.options.grace, clock=clock)
        self._gate = gate or DevelopmentGate()
        self._watches = Watches(self._gate, whole=self.whole, ask=self._ask)
        self._clock = clock
        self._wall = wall
        self._crowded: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._told_at = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._announce: Callable[[Iterable[str]], None] | None = None
        self._stopped = False

    def announce(self, announce: Callable[[Iterable[str]], None]) -> None:
        """Call this with users who came online or went offline."""
        self._announce = announce
        self.roster.watch(EVERYWHERE)

    def expect(self, users: Iterable[str]) -> None:
        """These were online before the start; gone, where they do not come back in time."""
        for user_id in users:
            self.roster.expect(user_id, max(self.options.start_grace, self.options.grace))
        self._wake()

    async def stop(self) -> None:
        """Tell nobody anything more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()
        await self.settled()

    async def settled(self) -> None:
        """Wait until the application has answered what it was asked."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # --- connections

    def arrived(self, identity: Identity) -> None:
        """A connection is open."""
        self.entered(identity, _EVERYWHERE)

    def departed(self, identity: Identity, rooms: Iterable[str] = ()) -> None:
        """A connection that `arrived` is gone, from these rooms too."""
        self.left(identity, (EVERYWHERE, *rooms))

    def entered(self, identity: Identity, rooms: Iterable[str]) -> None:
        """A connection is in these rooms."""
        if not _speaks_for_nobody(identity):
            self.roster.enter(identity.user_id, rooms)
            self._wake()

    def left(self, identity: Identity, rooms: Iterable[str]) -> None:
        """A connection that `entered` these rooms is there no more."""
        if not _speaks_for_nobody(identity):
            self.roster.leave(identity.user_id, rooms)
            self._wake()

    # --- asking and watching

    @property
    def users(self) -> int:
        """Users who are connected."""
        return self.roster.count(EVERYWHERE)

    @property
    def watchers(self) -> int:
        """Connections that are told of rooms."""
        return len(self._watches)

    def is_online(self, user_id: str) -> bool:
        """Whether the user is connected by any door."""
        return self.roster.has(EVERYWHERE, user_id)

    def snapshot(self, room: str) -> Snapshot:
        """Who is in a room now. Ask the gate first."""
        offset, most = self._wall() - self._clock(), self.options.max_users
        people: list[Person] = []
        for user_id, place in self.roster.users(room):
            if len(people) == most:
                break
            seen = None if place.left is None else _time_text(place.left + offset)
            people.append(Person(user_id, _time_text(place.since + offset), place.connections, seen))
        return Snapshot(people, self.roster.anonymous(room), self.roster.count(room) <= most)

    def whole(self, room: str) -> RoomNews:
        """Who is in a room, as news."""
        return RoomNews(room, whole=self.snapshot(room), forms={})

    def watched_by(self, watcher: Watcher) -> frozenset[str]:
        """The rooms of which a connection is told."""
        return self._watches.rooms_of(watcher)

    def watch(self, watcher: Watcher, rooms: Iterable[str]) -> None:
        """Tell a connection what changes in these rooms from now on. Ask the gate first."""
        for room in self._watches.add(watcher, rooms):
            self.roster.watch(room)
            if self.roster.count(room) > self.options.max_users:
                self._crowded.add(room)

    def unwatch(self, watcher: Watcher, rooms: Iterable[str] | None = None) -> None:
        """Tell it no more of these rooms; None: of any, because it is gone."""
        self._over(self._watches.remove(watcher, rooms))

    # --- telling

    def _wake(self) -> None:
        """Plan the next look, where there is something to look at."""
        if self._stopped:
            return
        due = self.roster.next_due
        if self.roster.has_changed or self._watches.stale:
            soon = max(self._told_at + self.options.interval, self._clock())
            due = soon if due is None else min(due, soon)
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self._clock()), self._look)

    def _look(self) -> None:
        self._timer = None
        self.roster.expire()
        now = self._clock()
        if now >= self._told_at + self.options.interval:
            self._told_at = now
            self.tell()
        self._wake()

    def tell(self) -> None:
        """Tell what changed since the last call."""
        for room, changes in list(self.roster.changes()):
            if room == EVERYWHERE:
                if self._announce is not None:
                    self._announce(change.user_id for change in changes if change.user_id is not None)
                continue
            news = self._news(room, changes)
            if news is not None:
                self._over(self._watches.tell(news))
        self._over(self._watches.tell_whole())

    def _news(self, room: str, changes: list[RoomChange]) -> RoomNews | None:
        crowded = self.roster.count(room) > self.options.max_users
        if crowded and room in self._crowded:
            return None
        if crowded != (room in self._crowded):
            self._crowded ^= {room}
            return self.whole(room)
        told = [Change(room, user_id, count > 0, count) for _, user_id, count in changes]
        return RoomNews(room, told, forms={})

    def _over(self, rooms: list[str]) -> None:
        for room in rooms:
            self.roster.unwatch(room)
            self._crowded.discard(room)

    def _ask(self, watcher: Watcher, room: str) -> None:
        async def ask() -> None:
            try:
                await self._gate.prepare(watcher.identity, rooms=(room,))
            finally:
                self._watches.asked(watcher, room)
                self._wake()

        task = asyncio.get_running_loop().create_task(ask(), name="presence-ask")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("the application could not be asked for a watcher", exc_info=error)


def _speaks_for_nobody(identity: Identity) -> bool:
    return identity.service and identity.user_id is None


def _time_text(seconds: float) -> str:
    return format_time(int(seconds * 1000))
