"""Who asked to be told of which rooms, and telling them. Pure: no event loop, no encoding.

Nobody is told of a room that the gate does not let them hear, at the moment of telling. A watcher whose
connection is full misses changes; it is told the whole room once it takes something again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from gapless.auth import Gate, Identity
from gapless.errors import Forbidden, NotDecided
from gapless.presence.news import RoomNews


class Watcher(Protocol):
    """A connection that asked. The calls must neither block nor raise."""

    @property
    def identity(self) -> Identity:
        """Whom the gate let in."""

    def presence(self, news: RoomNews) -> bool:
        """Write the news to the client. False where its connection takes nothing now."""

    def presence_denied(self, room: str) -> None:
        """The client may hear the room no more, and is told nothing of it from now on."""


class Watches:
    """The watchers by room.

    Args:
        gate: asked before each telling.
        whole: makes news of a whole room.
        ask: called with a watcher and a room where the application must be asked first; `asked` ends that.
    """

    def __init__(
        self, gate: Gate, *, whole: Callable[[str], RoomNews], ask: Callable[[Watcher, str], None] = lambda *_: None
    ) -> None:
        self._gate = gate
        self._whole = whole
        self._ask = ask
        self._by_room: dict[str, dict[Watcher, None]] = {}
        self._rooms: dict[Watcher, set[str]] = {}
        self._stale: dict[Watcher, set[str]] = {}
        self._asking: set[tuple[Watcher, str]] = set()

    @property
    def stale(self) -> bool:
        """Whether somebody waits to be told whole rooms."""
        return bool(self._stale)

    def __len__(self) -> int:
        return len(self._rooms)

    def rooms_of(self, watcher: Watcher) -> frozenset[str]:
        """The rooms that it watches."""
        return frozenset(self._rooms.get(watcher, ()))

    def add(self, watcher: Watcher, rooms: Iterable[str]) -> list[str]:
        """Tell it of these rooms from now on. Returns those that nobody watched before."""
        new = []
        own = self._rooms.setdefault(watcher, set())
        for room in rooms:
            own.add(room)
            if room not in self._by_room:
                self._by_room[room] = {}
                new.append(room)
            self._by_room[room][watcher] = None
        return new

    def remove(self, watcher: Watcher, rooms: Iterable[str] | None = None) -> list[str]:
        """Tell it no more, of these rooms or (None) of any. Returns those that nobody watches now."""
        over: list[str] = []
        own = self._rooms.get(watcher)
        if own is None:
            return over
        for room in tuple(own) if rooms is None else own.intersection(rooms):
            own.discard(room)
            self._forget_stale(watcher, room)
            watching = self._by_room[room]
            del watching[watcher]
            if not watching:
                del self._by_room[room]
                over.append(room)
        if not own:
            del self._rooms[watcher]
        return over

    def tell(self, news: RoomNews) -> list[str]:
        """Tell news to those who watch its room. Returns the room where nobody watches it any more."""
        over: list[str] = []
        for watcher in tuple(self._by_room.get(news.room, ())):
            if news.room in self._stale.get(watcher, ()):
                continue  # it is told all of it
            over += self._tell_one(watcher, news)
        return over

    def tell_whole(self) -> list[str]:
        """Tell whole rooms to those who missed changes. Returns rooms that nobody watches any more."""
        over: list[str] = []
        wholes: dict[str, RoomNews] = {}
        for watcher, rooms in list(self._stale.items()):
            for room in tuple(rooms):
                if (watcher, room) in self._asking:
                    continue
                self._forget_stale(watcher, room)
                if room not in wholes:
                    wholes[room] = self._whole(room)
                over += self._tell_one(watcher, wholes[room])
        return over

    def asked(self, watcher: Watcher, room: str) -> None:
        """The application has answered."""
        self._asking.discard((watcher, room))

    def _tell_one(self, watcher: Watcher, news: RoomNews) -> list[str]:
        room = news.room
        try:
            self._gate.check_subscribe_room(watcher.identity, room)
        except NotDecided:
            self._stale.setdefault(watcher, set()).add(room)
            if (watcher, room) not in self._asking:
                self._asking.add((watcher, room))
                self._ask(watcher, room)
            return []
        except Forbidden:
            watcher.presence_denied(room)
            return self.remove(watcher, (room,))
        if not watcher.presence(news):
            self._stale.setdefault(watcher, set()).add(room)
        return []

    def _forget_stale(self, watcher: Watcher, room: str) -> None:
        stale = self._stale.get(watcher)
        if stale is not None:
            stale.discard(room)
            if not stale:
                del self._stale[watcher]
