"""Which readers hear a room, and where a reader begins."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Generic, TypeVar

from gapless.delivery import Cursor
from gapless.event import Position
from gapless.eventlog import EventLog
from gapless.hub import Hub
from gapless.transports.http.request import START

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
        found = [readers for room in rooms if (readers := self._by_room.get(room))]
        if not found:
            return _NOBODY  # type: ignore[return-value]  # empty, so of any type
        return found[0] if len(found) == 1 else set().union(*found)


def cursor_from(after: Position | str | None, *, hub: Hub, log: EventLog) -> Cursor:
    """A cursor for a client's `after`; not `complete` where events it should have had are gone.

    It never stands before the oldest event kept: what is missing is told once, at the start.

    Raises:
        InvalidPosition: it lies ahead of the log.
    """
    if after == START:
        return Cursor(log.oldest - 1)
    assert not isinstance(after, str)
    cursor = hub.cursor_at(after)
    if not cursor.complete:
        cursor.position = max(cursor.position, log.oldest - 1)
    return cursor
