"""The count of connections by room and user. Pure: it is told the time, and says when it wants to be asked again.

Everything here is made of connections that are open now. Nothing is stored, so a gateway that was
killed has left nobody behind.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

EVERYWHERE = ""
"""The name under which all connections are counted, whichever rooms they are in. No room is called so."""


class Place(msgspec.Struct, gc=False):
    """A user in a room.

    Attributes:
        since: when the first of the connections came.
        left: when the last one went; None while there are some.
        due: a look is planned at whether the user has come back.
    """

    connections: int
    since: float
    left: float | None = None
    due: bool = False

    @property
    def shown(self) -> int:
        """Connections as others are told of them: who may still come back has not gone."""
        return self.connections or 1


class RoomChange(NamedTuple):
    """How many connections a user (None: all anonymous ones) has in a room; 0 is gone."""

    room: str
    user_id: str | None
    connections: int


class _Room:
    __slots__ = ("anonymous", "told", "users")

    def __init__(self) -> None:
        self.users: dict[str, Place] = {}
        self.anonymous = 0
        self.told: dict[str | None, int] | None = None
        """What watchers were told last of those who changed since; None while nobody watches."""


class Roster:
    """Who is where. Connections that come and go are told by those who have them.

    Args:
        grace: seconds for which a user without connections still counts as there.
        clock: seconds of a clock that only goes forward.
    """

    def __init__(self, *, grace: float, clock: Callable[[], float]) -> None:
        self._grace = grace
        self._clock = clock
        self._rooms: dict[str, _Room] = {}
        self._changed: set[str] = set()
        self._due: list[tuple[float, str, str]] = []

    def __contains__(self, room: str) -> bool:
        return room in self._rooms

    def enter(self, user_id: str | None, rooms: Iterable[str]) -> None:
        """One more connection of a user (None: anonymous) is in these rooms."""
        for name in rooms:
            room = self._rooms.get(name)
            if room is None:
                room = self._rooms[name] = _Room()
            if user_id is None:
                self._note(name, room, None, room.anonymous)
                room.anonymous += 1
                continue
            place = room.users.get(user_id)
            self._note(name, room, user_id, 0 if place is None else place.shown)
            if place is None:
                room.users[user_id] = Place(1, self._clock())
            else:
                place.connections += 1
                place.left = None

    def leave(self, user_id: str | None, rooms: Iterable[str]) -> None:
        """One of the connections counted by `enter` is no longer in these rooms."""
        for name in rooms:
            room = self._rooms[name]
            if user_id is None:
                self._note(name, room, None, room.anonymous)
                room.anonymous -= 1
                self._drop_if_empty(name, room)
                continue
            place = room.users[user_id]
            self._note(name, room, user_id, place.shown)
            place.connections -= 1
            if not place.connections:
                self._watch_return(name, user_id, place, self._grace)

    def expect(self, user_id: str, seconds: float) -> None:
        """A user was online before the start: gone, unless a connection comes within so many seconds."""
        room = self._rooms.setdefault(EVERYWHERE, _Room())
        if user_id not in room.users:
            place = room.users[user_id] = Place(0, self._clock())
            self._watch_return(EVERYWHERE, user_id, place, seconds)

    def _watch_return(self, room: str, user_id: str, place: Place, seconds: float) -> None:
        place.left = self._clock()
        if not place.due:
            place.due = True
            heapq.heappush(self._due, (place.left + seconds, room, user_id))

    @property
    def next_due(self) -> float | None:
        """When `expire` is to be called next; None for not at all."""
        return self._due[0][0] if self._due else None

    def expire(self) -> None:
        """Let users go whose grace is over."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            _, name, user_id = heapq.heappop(self._due)
            room = self._rooms[name]
            place = room.users[user_id]
            if place.left is None:
                place.due = False
            elif place.left + self._grace > now:  # came back, and went again meanwhile
                heapq.heappush(self._due, (place.left + self._grace, name, user_id))
            else:
                self._note(name, room, user_id, place.shown)
                del room.users[user_id]
                self._drop_if_empty(name, room)

    # --- asking

    def users(self, room: str) -> Iterator[tuple[str, Place]]:
        """The users of a room, those who came first, first."""
        found = self._rooms.get(room)
        return iter(()) if found is None else iter(found.users.items())

    def count(self, room: str) -> int:
        """How many users are in a room."""
        found = self._rooms.get(room)
        return 0 if found is None else len(found.users)

    def anonymous(self, room: str) -> int:
        """How many connections are in a room that no user is known of."""
        found = self._rooms.get(room)
        return 0 if found is None else found.anonymous

    def has(self, room: str, user_id: str) -> bool:
        """Whether a user is in a room."""
        found = self._rooms.get(room)
        return found is not None and user_id in found.users

    # --- watching

    def watch(self, room: str) -> None:
        """Keep what changes in a room from now on, for `changes`."""
        found = self._rooms.setdefault(room, _Room())
        if found.told is None:
            found.told = {}

    def unwatch(self, room: str) -> None:
        """Keep it no more."""
        found = self._rooms.get(room)
        if found is not None:
            found.told = None
            self._changed.discard(room)
            self._drop_if_empty(room, found)

    @property
    def has_changed(self) -> bool:
        """Whether `changes` has something to tell."""
        return bool(self._changed)

    def changes(self) -> Iterator[tuple[str, list[RoomChange]]]:
        """What changed in watched rooms since the last call. Who went and came back did not change."""
        changed, self._changed = self._changed, set()
        for name in changed:
            room = self._rooms[name]
            told = room.told or {}
            room.told = {}
            found = [
                RoomChange(name, user_id, now)
                for user_id, before in told.items()
                if (now := self._shown(room, user_id)) != before
            ]
            if found:
                yield name, found

    @staticmethod
    def _shown(room: _Room, user_id: str | None) -> int:
        if user_id is None:
            return room.anonymous
        place = room.users.get(user_id)
        return 0 if place is None else place.shown

    def _note(self, name: str, room: _Room, user_id: str | None, before: int) -> None:
        if room.told is not None:
            room.told.setdefault(user_id, before)
            self._changed.add(name)

    def _drop_if_empty(self, name: str, room: _Room) -> None:
        if not (room.users or room.anonymous) and room.told is None:
            del self._rooms[name]
