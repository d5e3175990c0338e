"""One connection: what it brings, and whether it still lives. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from gapless.client.connect import TransportName
from gapless.client.hybrid.bounds import Bounds, Mean, check_bound, silence_bound
from gapless.client.hybrid.errors import NoAnswer
from gapless.client.hybrid.inbox import Inbox, reaches
from gapless.client.hybrid.process import Cancel, Process, Running, Scheduler, nothing
from gapless.client.hybrid.rooms import RoomDescription
from gapless.client.hybrid.world import Door, Opened, Page, World
from gapless.client.model import ClientEvent
from gapless.errors import GaplessError, Overloaded


class Host(Protocol):
    """What a link needs of the connector."""

    scheduler: Scheduler
    world: World
    inbox: Inbox
    latency: Mean
    bounds: Bounds

    def received(self) -> None:
        """An event came."""

    def revoked(self, link: Link, rooms: Sequence[str]) -> None:
        """Rooms may be heard no more."""

    def presence(self, event: str, document: dict[str, Any]) -> None:
        """Who is in a room, over the active link."""

    def lost(self, link: Link, error: GaplessError) -> None:
        """The link ended by itself; it is closed already."""


class Link:
    """A connection over one transport.

    Attributes:
        name: the transport.
        token: with which it was opened, or renewed.
        rooms: what it hears.
        asked: what was wanted when it was opened, refused rooms too.
        opened: what it can; None before it is whole.
        whole_since: when it became whole.
        is_open: it was not closed, and did not end.
    """

    def __init__(self, name: TransportName, host: Host, token: str | None) -> None:
        self.name = name
        self.token = token
        self.rooms: tuple[RoomDescription, ...] = ()
        self.asked: tuple[str, ...] = ()
        self.opened: Opened | None = None
        self.whole_since: float | None = None
        self.is_open = True
        self.door: Door
        self._host = host
        self._gaps = Mean()
        self._last_sign = host.scheduler.now()
        self._due = math.inf
        self._unwatch: Cancel = nothing
        self._checking: Running | None = None

    def is_whole(self, opened: Opened) -> None:
        """It is subscribed."""
        self.opened = opened
        self.alive()

    def close(self) -> None:
        """End it."""
        if not self.is_open:
            return
        self.is_open = False
        self._unwatch()
        if self._checking is not None:
            self._checking.cancel()
        self.door.close()

    # --- what the transport tells: `world.Listener`

    def event(self, event: ClientEvent) -> None:
        """See `Listener`."""
        if not self.is_open:
            return
        self.alive()
        self._host.received()
        self._host.inbox.event(event)
        if self._host.inbox.is_full:
            self.down(Overloaded("events come faster than they are handled"))

    def moved(self, position: str) -> None:
        """See `Listener`."""
        if self.is_open:
            self.alive()
            self._host.inbox.moved(position)

    def gap(self, position: str | None) -> None:
        """See `Listener`."""
        if self.is_open:
            self._host.inbox.gap(position, "expired")

    def revoked(self, rooms: Sequence[str]) -> None:
        """See `Listener`."""
        if self.is_open:
            self._host.revoked(self, rooms)

    def presence(self, event: str, document: dict[str, Any]) -> None:
        """See `Listener`."""
        if self.is_open:
            self._host.presence(event, document)

    def down(self, error: GaplessError) -> None:
        """See `Listener`."""
        if self.is_open:
            self.close()
            self._host.lost(self, error)

    def alive(self) -> None:
        """See `Listener`."""
        now = self._host.scheduler.now()
        self._gaps.add(now - self._last_sign)
        self._last_sign = now
        if self.opened is not None and self.is_open and now + self._bound() < self._due - 0.5:
            self._watch(now + self._bound())

    # --- silence

    def _bound(self) -> float:
        heartbeat = self.opened.heartbeat if self.opened is not None else math.inf
        return silence_bound(self._gaps, heartbeat, self._host.bounds.silence)

    def _watch(self, due: float) -> None:
        self._unwatch()
        self._due = due
        self._unwatch = self._host.scheduler.timer(due - self._host.scheduler.now(), self._look)

    def _look(self) -> None:
        if not self.is_open or self.opened is None:
            return
        silence = self._host.scheduler.now() - self._last_sign
        most = 1.5 * self.opened.heartbeat
        self._due = math.inf
        if silence >= most and not self.opened.is_live:
            self.down(_too_silent(silence))
        elif silence < self._bound():
            self._watch(self._last_sign + self._bound())
        else:
            # Checked, and well: again when the silence has doubled, until even the heartbeat is missing.
            again = min(most, max(2 * silence, silence + 1))
            self._watch(max(self._last_sign + again, self._host.scheduler.now() + 1))
            self.check()

    def check(self) -> None:
        """Ask whether it lives, and whether something is missing; where so it is lost."""
        if self._checking is not None or not self.is_open or self.opened is None:
            return
        checking = self._checking = self._host.scheduler.spawn(self._check(self.opened))

        def checked(_: object) -> None:
            self._checking = None
            if checking.outcome.error is not None and not checking.is_cancelled:
                self.down(checking.outcome.error)

        checking.outcome.then(checked)

    def _check(self, opened: Opened) -> Process[None]:
        comparing = self._host.scheduler.spawn(self._compare(opened))
        try:
            if opened.is_live:
                began = self._host.scheduler.now()
                yield self._host.scheduler.bounded(self.door.ping(), self._check_bound)
                self._host.latency.add(self._host.scheduler.now() - began)
                self.alive()
            yield comparing.outcome
        finally:
            comparing.cancel()

    def _compare(self, opened: Opened) -> Process[None]:
        """Whether the gateway has events that did not come here."""
        host = self._host
        rooms = [room.room for room in self.rooms]
        after = host.inbox.received
        try:
            if not rooms or after is None:
                yield host.scheduler.bounded(host.world.describe((), self.token), self._check_bound)
                return
            asked = host.world.history(rooms, after, 1, self.token)
            page: Page = yield host.scheduler.bounded(asked, self._check_bound)
        except GaplessError as error:
            # A gateway that is busy, or wants another token, is there; a ping says what else is to be said.
            if error.code in ("timeout", "network") or not opened.is_live:
                raise
            return
        missing = page.events[0].position if page.events else None
        if missing is None or reaches(host.inbox.received, missing):
            return
        yield host.scheduler.pause(self._check_bound)
        if not reaches(host.inbox.received, missing):
            raise _too_silent(host.scheduler.now() - self._last_sign)

    @property
    def _check_bound(self) -> float:
        return check_bound(self._host.latency.value, self._host.bounds.check)


def _too_silent(seconds: float) -> NoAnswer:
    return NoAnswer(f"nothing arrived for {seconds:.1f} s")
