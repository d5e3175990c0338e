"""Who is in a room: told over Socket.IO, asked for over other transports. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from gapless.client.hybrid.errors import NotAGateway
from gapless.client.hybrid.link import Link
from gapless.client.hybrid.process import Cancel, Process, Running, Scheduler, nothing
from gapless.client.hybrid.tokens import Tokens
from gapless.client.hybrid.world import World
from gapless.errors import Forbidden, GaplessError

INTERVAL = 15.0
"""Seconds between two questions, where changes are not told."""


class Member(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A user who is in a room.

    Attributes:
        connections: 0 where the last one is just gone, and they may come back.
        since, last_seen: RFC 3339, as the gateway wrote it; None where it was not told.
    """

    user_id: str
    connections: int
    since: str | None = None
    last_seen: str | None = None


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """Who is in a room; see docs/presence.md.

    Attributes:
        users: those who were there first, first.
        anonymous: connections that no user is known of.
        complete: False where there are more than the gateway lists.
    """

    users: tuple[Member, ...] = ()
    anonymous: int = 0
    complete: bool = True


class PresenceChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A user came, left, or has more or fewer connections in a room; without a user: all anonymous ones together."""

    room: str
    user_id: str | None = None
    online: bool
    connections: int


class PresentNow(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, in place of what was known."""

    room: str
    users: tuple[Member, ...] = ()
    anonymous: int = 0
    complete: bool = True


PresenceNews = PresenceChange | PresentNow


class Watch:
    """One who wants to know who is in a room.

    Attributes:
        present: who is there; None before it is known.
        error: why it cannot be known.
    """

    def __init__(self, room: str, changed: Callable[[], None]) -> None:
        self.room = room
        self.present: Present | None = None
        self.error: GaplessError | None = None
        self._changed = changed

    def tell(self, present: Present | None, error: GaplessError | None) -> None:
        """For `Watches`."""
        if error is None and present == self.present and self.error is None:
            return
        self.present, self.error = present, error
        self._changed()


class Connections(Protocol):
    """What is asked over."""

    @property
    def link(self) -> Link | None:
        """The one that is whole now."""

    @property
    def bound(self) -> float:
        """Seconds that an answer may take."""


class Watches:
    """Keeps all that is wanted known: asked at each new connection, told or asked again from then on."""

    def __init__(self, scheduler: Scheduler, world: World, tokens: Tokens, connections: Connections) -> None:
        self._scheduler = scheduler
        self._world = world
        self._tokens = tokens
        self._connections = connections
        self._watches: dict[str, list[Watch]] = {}
        self._asking: dict[str, Running] = {}
        self._timers: dict[str, Cancel] = {}

    def add(self, room: str, changed: Callable[[], None]) -> Watch:
        """Want to know; `changed` is called when it is known, and whenever it changes."""
        watch = Watch(room, changed)
        others = self._watches.setdefault(room, [])
        others.append(watch)
        if len(others) > 1:
            watch.present, watch.error = others[0].present, others[0].error
        else:
            self._ask(room)
        return watch

    def end(self, watch: Watch) -> None:
        """Want it no more."""
        others = self._watches.get(watch.room, [])
        if watch not in others:
            return
        others.remove(watch)
        if others:
            return
        del self._watches[watch.room]
        self._stop(watch.room)
        link = self._connections.link
        if link is not None and link.opened is not None and link.opened.tells_presence:
            link.door.presence(watch.room, live=False)  # nobody waits for the answer

    def connected(self) -> None:
        """There is another connection, or it hears other rooms: what was told over the last one may be old."""
        for room in self._watches:
            self._ask(room)

    def close(self) -> None:
        """Ask no more."""
        for room in list(self._watches):
            self._stop(room)

    def notice(self, news: PresenceNews) -> None:
        """What a connection tells."""
        watches = self._watches.get(news.room, [])
        if isinstance(news, PresentNow):
            self._tell(news.room, Present(users=news.users, anonymous=news.anonymous, complete=news.complete))
        elif watches and watches[0].present is not None:
            self._tell(news.room, _changed(watches[0].present, news))

    def revoked(self, room: str) -> None:
        """It may be known no more."""
        if room in self._watches:
            self._tell(room, None, Forbidden(f"who is in the room {room!r} may be known no more"))

    def _tell(self, room: str, present: Present | None, error: GaplessError | None = None) -> None:
        for watch in list(self._watches.get(room, ())):
            watch.tell(present, error)

    def _stop(self, room: str) -> None:
        self._timers.pop(room, nothing)()
        running = self._asking.pop(room, None)
        if running is not None:
            running.cancel()

    def _ask(self, room: str) -> None:
        self._stop(room)
        mine = self._asking[room] = self._scheduler.spawn(self._ask_once(room))

        def asked(outcome: Any) -> None:
            if self._asking.get(room) is not mine:
                return
            del self._asking[room]
            if outcome.error is not None and not outcome.error.retryable:
                self._tell(room, None, outcome.error)
            if not outcome.value:
                self._timers[room] = self._scheduler.timer(INTERVAL, lambda: self._ask(room))

        mine.outcome.then(asked)

    def _ask_once(self, room: str) -> Process[bool]:
        """Whether changes are told from now on."""
        link = self._connections.link
        told = link is not None and link.opened is not None and link.opened.tells_presence
        if told:
            assert link is not None
            later = link.door.presence(room, live=True)
        else:
            token = yield from self._tokens.get()
            later = self._world.presence(room, token)
        answer = yield self._scheduler.bounded(later, self._connections.bound)
        self._tell(room, present_of(answer, room))
        return told


def present_of(answer: Any, room: str) -> Present:
    """What `presence` and `/api/presence` answer.

    Raises:
        NotAGateway: it is in another form.
    """
    try:
        return msgspec.convert(answer["rooms"][room], Present)
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise NotAGateway(f"the answer is in another form: {error}") from error


def _changed(present: Present, change: PresenceChange) -> Present:
    if change.user_id is None:
        return msgspec.structs.replace(present, anonymous=change.connections)
    before = next((each for each in present.users if each.user_id == change.user_id), None)
    if not change.online:
        users = tuple(each for each in present.users if each is not before)
    elif before is None:
        users = (*present.users, Member(user_id=change.user_id, connections=change.connections))
    else:
        now = msgspec.structs.replace(before, connections=change.connections, last_seen=None)
        users = tuple(now if each is before else each for each in present.users)
    return msgspec.structs.replace(present, users=users)
