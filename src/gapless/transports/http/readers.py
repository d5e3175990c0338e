"""What the doors that hand out events share: which readers hear a room, and where a reader begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from typing import Generic, TypeVar

from gapless.auth import Gate, Identity
from gapless.delivery import Cursor
from gapless.errors import InvalidRequest
from gapless.event import Record
from gapless.eventlog import EventLog
from gapless.hub import Hub
from gapless.presence import Presence
from gapless.topicmap import TopicMap
from gapless.transports.http.options import HttpOptions
from gapless.transports.http.request import START, Request

R = TypeVar("R")

_NOBODY: frozenset[object] = frozenset()


class RoomIndex(Generic[R]):
    """Readers by room. A reader in two of an event's rooms is found once."""

    def __init__(self) -> None:
        self._by_room: dict[str, set[R]] = {}
        self._readers: set[R] = set()

    def __len__(self) -> int:
        return len(self._readers)

    @property
    def readers(self) -> Set[R]:
        """All of them."""
        return self._readers

    def add(self, reader: R, rooms: Iterable[str]) -> None:
        """Let a reader hear rooms."""
        self._readers.add(reader)
        for room in rooms:
            self._by_room.setdefault(room, set()).add(reader)

    def remove(self, reader: R, rooms: Iterable[str]) -> None:
        """Undo `add` with the same rooms."""
        self._readers.discard(reader)
        for room in rooms:
            readers = self._by_room[room]
            readers.discard(reader)
            if not readers:
                del self._by_room[room]

    def hearing(self, rooms: tuple[str, ...]) -> Set[R]:
        """The readers of any of the rooms. Use it before the next change."""
        if not self._by_room:
            return _NOBODY  # type: ignore[return-value]  # empty, so of any type
        found = [readers for room in rooms if (readers := self._by_room.get(room))]
        if not found:
            return _NOBODY  # type: ignore[return-value]  # empty, so of any type
        return found[0] if len(found) == 1 else set().union(*found)


class EventDoor(Generic[R]):
    """A door that hands out events of rooms.

    Attributes:
        delivered: events handed to readers.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        log: EventLog,
        gate: Gate,
        topic_map: TopicMap,
        options: HttpOptions,
        presence: Presence,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hub = hub
        self._log = log
        self._gate = gate
        self._topic_map = topic_map
        self._options = options
        self._presence = presence
        self._clock = clock
        self._readers: RoomIndex[R] = RoomIndex()
        self._stopping = False
        self.delivered = 0

    async def _admit(
        self, request: Request, *, door: str, token_in_query: bool = False
    ) -> tuple[Identity, frozenset[str]]:
        """Who asks, and the rooms that the request asks for.

        Raises:
            Unauthorized, Forbidden, UnknownRoom: the gate, or the map, says no.
            InvalidRequest: there are none, or too many.
        """
        identity = await request.identify(self._gate, door=door, token_in_query=token_in_query)
        rooms = await request.rooms(self._topic_map, self._gate, identity, maximum=self._options.max_rooms)
        if not rooms:
            raise InvalidRequest("the query names no rooms", hint="such as ?rooms=lead:123,org:global")
        return identity, rooms

    @contextmanager
    def _admitted(self, request: Request, rooms: frozenset[str]) -> Iterator[None]:
        """Count a reader as a connection of its user with so many subscriptions, until the end of the context.

        Raises:
            RateLimited: the user, or the address, has too many.
        """
        visit = request.visit()
        visit.stay(request.identity.user_id)
        try:
            visit.hold(len(rooms))
            yield
        finally:
            visit.leave()

    def _cursor(self, request: Request, after: str | None) -> Cursor:
        """A cursor for a client's `after`; not `complete` where events it should have had are gone.

        It never stands before the oldest event kept: what is missing is told once, at the start.

        Raises:
            InvalidPosition: it is none, or lies ahead of the log.
        """
        position = request.after(after)
        if position == START:
            return Cursor(self._log.oldest - 1)
        assert not isinstance(position, str)
        cursor = self._hub.cursor_at(position)
        if not cursor.complete:
            cursor.position = max(cursor.position, self._log.oldest - 1)
        return cursor

    def _hearing(self, record: Record) -> Set[R]:
        """Who is to get a live event."""
        readers = self._readers.hearing(record.event.rooms)
        return readers if readers and not self._expired(record) else frozenset()

    def _expired(self, record: Record) -> bool:
        expires = record.event.expires
        return expires is not None and expires <= self._clock() * 1000
