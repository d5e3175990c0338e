"""Keeps one connection to the gateway: the state machine of docs/client-protocol.md. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from gapless.client.backoff import Backoff
from gapless.client.connect import TransportName
from gapless.client.hybrid.bounds import Bounds, Mean, open_bound
from gapless.client.hybrid.errors import NetworkError, NoAnswer, NoTransport
from gapless.client.hybrid.inbox import Inbox, parse, reaches
from gapless.client.hybrid.link import Link
from gapless.client.hybrid.process import Cancel, Later, Process, Running, Scheduler, nothing
from gapless.client.hybrid.rooms import RoomDescription
from gapless.client.hybrid.status import ConnectionState, Failover, Status
from gapless.client.hybrid.tokens import Tokens
from gapless.client.hybrid.world import Description, Opened, Page, World
from gapless.errors import GaplessError, InvalidPosition

STABLE = 5.0
"""Seconds a connection must have been whole for delays to begin again, and its transport not to stand back."""

PAGE = 500
_FORWARD_FIRST = 5.0
_FORWARD_MOST = 300.0
_OFFLINE_RETRY = 30.0
_HISTORY_BOUND = 30.0
_State = ConnectionState


class Rooms(Protocol):
    """Those who want rooms."""

    def heard(self, rooms: Sequence[RoomDescription], refused: Sequence[RoomDescription]) -> None:
        """These rooms are heard from now on; those are refused."""

    def revoked(self, rooms: Sequence[str]) -> None:
        """These may be heard no more."""

    def connected(self) -> None:
        """A connection is whole."""

    def presence(self, event: str, document: dict[str, Any]) -> None:
        """Who is in a room."""


class Connector:
    """Keeps a link whole, over the best transport that there is.

    Args:
        ladder: the transports in order.
        begin: where a client without a cursor begins: `now`, `start` or a position.
        bounds: the application's limits.
        random: draws evenly from 0 up to 1.
        wall: seconds since the Unix epoch.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        world: World,
        *,
        inbox: Inbox,
        tokens: Tokens,
        rooms: Rooms,
        ladder: Sequence[TransportName],
        begin: str,
        bounds: Bounds,
        random: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.scheduler = scheduler
        self.bounds = bounds
        self.world = world
        self.inbox = inbox
        self.latency = Mean()
        self.status = Status()
        self._tokens = tokens
        self._rooms = rooms
        self._ladder = tuple(ladder)
        self._begin = begin
        self._wall = wall
        self._delays = Backoff(first=0.5, limit=30.0, random=random)
        self._forward_delays = Backoff(first=_FORWARD_FIRST, limit=_FORWARD_MOST, random=random)
        self._stood_back: set[TransportName] = set()
        self._active: Link | None = None
        self._last_name: TransportName | None = None
        self._last_loss = ""
        self._round: Running | None = None
        self._candidate: Running | None = None
        self._applying: Running | None = None
        self._drain: Later | None = None
        self._is_started = False
        self._device_offline = False
        self._cancel_retry: Cancel = nothing
        self._cancel_forward: Cancel = nothing
        self._cancel_stable: Cancel = nothing

    # --- what the application and the device say

    def start(self) -> None:
        """Connect, and never give up. Again: nothing."""
        if not self._is_started and not self._is_closed:
            self._is_started = True
            self._again()

    def reconnect(self) -> None:
        """Connect anew, now."""
        if self._is_closed or not self._is_started:
            return
        self._drop()
        self._last_loss = "reconnect"
        self._again()

    def close(self) -> None:
        """End."""
        self._drop()
        self.tell(connection=_State.closed, transport=None, error=None, retry_at=None)

    def rooms_changed(self) -> None:
        """Other rooms are wanted."""
        link = self._active
        if link is None or self._applying is not None or self._is_closed:
            return
        self._applying = mine = self.scheduler.spawn(self._apply_rooms(link))

        def ended(outcome: Later) -> None:
            if self._applying is mine:
                self._applying = None
                if outcome.error is not None and self._active is link:
                    link.down(outcome.error)

        mine.outcome.then(ended)

    def renewed(self, token: str | None) -> None:
        """There is a fresh token, and the old one still holds."""
        if self._active is not None and token is not None:
            self.scheduler.spawn(self._renew(self._active, token))

    def signal(self, word: str) -> None:
        """The device's word: `offline`, `online`, `changed`, `hidden`, `visible`."""
        if self._is_closed or not self._is_started or word == "hidden":
            return
        if word == "offline":
            self._device_offline = True
            if self._active is not None:
                self._active.check()
            return
        if word != "visible":
            self._device_offline = False
        self._delays.reset()
        self._forward_delays.reset()
        link = self._active
        if link is None:
            self._again()
            return
        if word == "visible" or (link.opened is not None and link.opened.is_live):
            link.check()
        else:
            self.scheduler.spawn(self._reopen(link))
        if self.status.connection is _State.degraded:
            self.forward(None, "better")

    def drained(self) -> None:
        """Handlers have caught up."""
        if self._drain is not None:
            self._drain.resolve()

    # --- what links say

    def received(self) -> None:
        """See `Host`."""
        now = self._wall()
        # Not told for each event: a second is exact enough for people.
        if now - (self.status.last_event_at or 0.0) >= 1.0:
            self.tell(last_event_at=now)

    def revoked(self, link: Link, rooms: Sequence[str]) -> None:
        """See `Host`."""
        link.rooms = tuple(room for room in link.rooms if room.room not in rooms)
        self._rooms.revoked(rooms)

    def presence(self, event: str, document: dict[str, Any]) -> None:
        """See `Host`."""
        self._rooms.presence(event, document)

    def lost(self, link: Link, error: GaplessError) -> None:
        """See `Host`."""
        if link is not self._active:
            return  # one that is not whole yet: its opening fails
        if link.whole_since is not None and self.scheduler.now() - link.whole_since < STABLE:
            self._stood_back.add(link.name)
        self._drop()
        self._last_loss = error.code
        if error.code == "unauthorized":
            self._tokens.refuse(link.token)
        self.tell(connection=_State.connecting, transport=None, error=error, retry_at=None)
        self._connect()

    # --- attempts

    def _drop(self) -> None:
        for cancel in (self._cancel_retry, self._cancel_forward, self._cancel_stable):
            cancel()
        for running in (self._round, self._candidate, self._applying):
            if running is not None:
                running.cancel()
        self._round = self._candidate = self._applying = None
        link, self._active = self._active, None
        if link is not None:
            link.close()

    def _again(self) -> None:
        if self._round is not None:
            self._round.cancel()
        self._cancel_retry()
        self._delays.reset()
        self._stood_back.clear()
        self.tell(connection=_State.connecting, transport=None, retry_at=None)
        self._connect()

    def _connect(self) -> None:
        self._round = self.scheduler.spawn(self._one_round())
        mine = self._round
        mine.outcome.then(lambda outcome: self._round_failed(mine, outcome.error))

    def _round_failed(self, round_: Running, error: GaplessError | None) -> None:
        if round_ is not self._round:
            return
        self._round = None
        if error is None or self._is_closed:
            return
        self._stood_back.clear()
        delay = _OFFLINE_RETRY if self._device_offline else self._delays.next()
        self.tell(connection=_State.offline, transport=None, error=error, retry_at=self._wall() + delay)
        self._cancel_retry = self.scheduler.timer(delay, self._connect)

    def _one_round(self) -> Process[None]:
        """Over the ladder, until one is whole."""
        token: str | None = None
        yield self.scheduler.pause(0)  # what is subscribed to in one moment begins together
        try:
            yield from self._has_room()
            token = yield from self._tokens.get()
            about = yield from self._describe(token)
            ladder = self._usable(about)
            failure: GaplessError = NoTransport(
                "no transport can be used here", hint="allow more of socketio, mqtt, sse and poll"
            )
            for name in [each for each in ladder if each not in self._stood_back] or ladder:
                try:
                    after = yield from self._catch_up(about, token)
                    link = yield from self._open(name, about, after, token)
                except GaplessError as error:
                    failure = error
                    self._last_loss = self._last_loss or error.code
                    if error.code in ("unauthorized", "closed"):
                        break
                else:
                    self._take(link, ladder, self._last_loss or "network")
                    return
            raise failure
        except GaplessError as error:
            if error.code == "unauthorized":
                self._tokens.refuse(token)
            raise

    def _open(self, name: TransportName, about: _View, after: str, token: str | None) -> Process[Link]:
        """Open a link and subscribe after a position."""
        link = Link(name, self, token)
        link.asked = about.asked
        link.rooms = about.audible
        link.door = self.world.connection(name, about.transports, token, link)
        # Known before the first event comes.
        self._rooms.heard(about.audible, [room for room in about.rooms if room.error is not None])
        try:
            opened: Opened = yield self.scheduler.bounded(link.door.open(about.audible, after), self.bound)
        except GaplessError:
            link.close()
            raise
        if not link.is_open:
            raise NetworkError("the connection ended at once")
        link.is_whole(opened)
        return link

    def _catch_up(self, about: _View, token: str | None) -> Process[str]:
        """Fetch what was missed, up to the head at the description; the position to subscribe from."""
        inbox = self.inbox
        after = inbox.received or self._begin
        if after == "now":
            inbox.moved(about.position)
            return about.position
        rooms = [room.room for room in about.audible]
        self._rooms.heard(about.audible, [room for room in about.rooms if room.error is not None])
        while rooms and not reaches(after, about.position):
            if self.status.connection is not _State.catching_up:
                self.tell(connection=_State.catching_up, retry_at=None)
            asked = self.world.history(rooms, after, PAGE, token)
            try:
                page: Page = yield self.scheduler.bounded(asked, max(_HISTORY_BOUND, self.bound))
            except InvalidPosition:
                inbox.gap(about.position, "epoch")  # ahead of the log: it was put back to an older state
                return about.position
            if not page.complete:
                here = parse(after)
                inbox.gap(None, "expired" if here is not None and here.epoch == about.epoch else "epoch")
            for event in page.events:
                self.received()
                inbox.event(event)
            inbox.moved(page.position)
            if page.position == after:
                break  # nothing more, whatever the head says
            after = page.position
            yield from self._has_room()
        return about.position if after == "start" else after

    def _has_room(self) -> Process[None]:
        """Wait until handlers have caught up by half."""
        if not self.inbox.has_room:
            self._drain = Later()
            yield self._drain
            self._drain = None

    def _take(self, link: Link, ladder: Sequence[TransportName], reason: str) -> None:
        """A link is whole: it takes over."""
        previous, self._active = self._active, link
        for cancel in (self._cancel_retry, self._cancel_forward, self._cancel_stable):
            cancel()
        link.whole_since = self.scheduler.now()
        if self._applying is not None:
            self._applying.cancel()
            self._applying = None
        if previous is not None:
            previous.close()
        best = ladder[0] == link.name
        changes: dict[str, Any] = {}
        if self._last_name is not None and self._last_name != link.name:
            failover = Failover(self._wall(), self._last_name, link.name, reason)
            changes = {"failovers": self.status.failovers + 1, "last_failover": failover}
        state = _State.live if best else _State.degraded
        self.tell(connection=state, transport=link.name, error=None, retry_at=None, **changes)
        self._last_name = link.name
        self._last_loss = ""
        self._cancel_stable = self.scheduler.timer(STABLE, lambda: self._is_stable(best=best))
        if not best:
            self._plan_forward(_FORWARD_FIRST)
        self._rooms.connected()
        self.rooms_changed()

    def _is_stable(self, *, best: bool) -> None:
        self._delays.reset()
        self._stood_back.clear()
        if best:
            self._forward_delays.reset()

    # --- coming forward

    def _plan_forward(self, delay: float) -> None:
        self._cancel_forward()
        self._cancel_forward = self.scheduler.timer(delay, lambda: nothing(self.forward(None, "better")))

    def forward(self, names: Sequence[TransportName] | None, reason: str) -> Running | None:
        """Open another link beside the active one, to take over; `names` None: those better than it."""
        link = self._active
        if link is None or self._candidate is not None or self._is_closed:
            return None
        self._candidate = mine = self.scheduler.spawn(self._come_forward(link, names, reason))

        def ended(outcome: Later) -> None:
            if self._candidate is mine:
                self._candidate = None
                if not outcome.value and self.status.connection is _State.degraded:
                    self._plan_forward(self._forward_delays.next())

        mine.outcome.then(ended)
        return mine

    def _come_forward(self, link: Link, names: Sequence[TransportName] | None, reason: str) -> Process[bool]:
        token = yield from self._tokens.get()
        about = yield from self._describe(token)
        ladder = self._usable(about)
        at = ladder.index(link.name) if link.name in ladder else len(ladder)
        if names is None and at == 0:
            self.tell(connection=_State.live)  # what was better is not on offer any more
            return True
        for name in ladder[:at] if names is None else names:
            try:
                after = self.inbox.received or about.position
                better = yield from self._open(name, about, after, token)
            except GaplessError as error:
                if error.code == "closed":
                    raise
                continue
            self._candidate = None
            self._take(better, ladder, reason)
            return True
        return False

    def _reopen(self, link: Link) -> Process[None]:
        """A link that cannot be pinged, after a change of network."""
        running = self.forward([link.name], "changed")
        if running is None:
            return
        try:
            done = yield running.outcome
        except GaplessError:
            done = False
        if not done and self._active is link:
            link.down(NoAnswer("it could not be opened anew"))

    def _renew(self, link: Link, token: str) -> Process[None]:
        if link.opened is not None and link.opened.renews:
            try:
                yield self.scheduler.bounded(link.door.renew(token), self.bound)
            except GaplessError:
                pass  # a new connection, then
            else:
                link.token = token
                return
        if self._active is link:
            self.forward([link.name], "renewed")

    # --- rooms

    def _apply_rooms(self, link: Link) -> Process[None]:
        """Until the link hears what is wanted."""
        # Let all of a moment's changes come together.
        yield self.scheduler.pause(0)
        while self._active is link and set(self.inbox.rooms) != set(link.asked):
            if not link.asked:
                self.reconnect()  # it has no place in the log yet: the rooms go on from the cursor
                return
            yield from self._apply_once(link)

    def _apply_once(self, link: Link) -> Process[None]:
        token = yield from self._tokens.get()
        about = yield from self._describe(token)
        if self._active is not link:
            return
        ladder = self._usable(about)
        if link.name not in ladder or not (link.opened is not None and link.opened.is_live):
            # It cannot hear them, or cannot be told: another connection, beside it.
            names = ladder if link.name not in ladder else [link.name]
            running = self.forward(names, "rooms")
            if running is None and self._candidate is not None:
                yield self._candidate.outcome  # another one is on its way; then look again
            elif running is None or not (yield running.outcome):
                raise NoTransport("no transport carries these rooms")
            return
        before = {room.room: room for room in link.rooms}
        wanted = {room.room: room for room in about.audible}
        self._rooms.heard(about.audible, [room for room in about.rooms if room.error is not None])
        link.asked, link.rooms = about.asked, about.audible
        gone = [room for name, room in before.items() if name not in wanted]
        new = [room for name, room in wanted.items() if name not in before]
        if gone:
            yield self.scheduler.bounded(link.door.leave(gone, about.audible), self.bound)
        if new:
            yield self.scheduler.bounded(link.door.join(new), self.bound)
        self._rooms.connected()
        if ladder[0] == link.name and self.status.connection is _State.degraded:
            self.tell(connection=_State.live)

    # --- what is on offer

    def _describe(self, token: str | None) -> Process[_View]:
        asked = tuple(self.inbox.rooms)
        began = self.scheduler.now()
        about: Description = yield self.scheduler.bounded(self.world.describe(asked, token), self.bound)
        self.latency.add(self.scheduler.now() - began)
        self.tell(latency=self.latency.value)
        return _View(**{name: getattr(about, name) for name in Description.__struct_fields__}, asked=asked)

    def _usable(self, about: _View) -> list[TransportName]:
        """The ladder without what is not on offer, cannot be done here, or does not carry a room whole."""
        whole = all(room.whole_over_mqtt for room in about.audible)
        return [name for name in self._ladder if self.world.can(name, about.transports) and (name != "mqtt" or whole)]

    @property
    def link(self) -> Link | None:
        """The one that is whole now."""
        return self._active

    @property
    def bound(self) -> float:
        """Seconds that an answer may take."""
        return open_bound(self.latency.value, self.bounds.open)

    @property
    def _is_closed(self) -> bool:
        return self.status.connection is _State.closed

    def tell(self, **changes: Any) -> None:
        """Change the status."""
        if self._is_closed or all(getattr(self.status, name) == value for name, value in changes.items()):
            return
        self.status = msgspec.structs.replace(self.status, **changes)
        self.world.told(self.status)


class _View(Description, frozen=True, kw_only=True):
    """What the gateway says, and the rooms it was asked for."""

    asked: tuple[str, ...]
