"""What tells a client of the broker that something is missing: the event before, for each room. Pure.

A broker drops from full queues without a word. So each published event names, for each of its
rooms, an offset: nothing of the room lies between that offset and the event. A client that does
not have everything of the room up to it has lost something.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

Previous = tuple[tuple[str, int], ...]
"""For each room of an event, the offset after which the event is the room's first."""

_ROOM_BYTES = 512  # longer ones, which come from an event's data, are not told: nobody can subscribe to them


class Chain:
    """Remembers the last event of each room, of those events that are for the broker.

    The memory is bounded. For a room that it holds nothing of, it answers with `floor`: that is
    never too early, so no hole is hidden by it; it may be too late, and then a client that was
    idle for as long asks once in vain.

    Args:
        floor: nothing is known of what lies at or before this offset.
        limit: most rooms remembered.
    """

    def __init__(self, floor: int, *, limit: int = 50_000) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()  # by offset, rising
        self._limit = limit
        self.floor = floor

    def add(self, offset: int, rooms: Iterable[str]) -> Previous:
        """The next event; what is to be told with it."""
        last = self._last
        told = [room for room in rooms if _is_told(room)]
        previous = tuple((room, last.get(room, self.floor)) for room in told)
        for room in told:
            last[room] = offset
            last.move_to_end(room)
        while len(last) > self._limit:
            self.floor = last.popitem(last=False)[1]
        return previous

    def recent(self, since: int, *, limit: int) -> tuple[int, dict[str, int]]:
        """The last event of each room that had any after `since`, the newest `limit` of them.

        Returns:
            An offset, `since` or a later one: rooms that are not named had nothing after it.
        """
        since = max(since, self.floor)
        found: dict[str, int] = {}
        for room, offset in reversed(self._last.items()):
            if offset <= since:
                break
            if len(found) == limit:
                return offset, found
            found[room] = offset
        return since, found


def _is_told(room: str) -> bool:
    try:
        return len(room.encode()) <= _ROOM_BYTES and "\0" not in room
    except UnicodeEncodeError:  # a lone surrogate, which no MQTT string may hold (§1.5.4)
        return False
