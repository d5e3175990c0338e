"""Which rooms a reader hears, and from where in the log on.

A subscription begins at an offset: the head for a new one, an older one for a reader that
asks for history. A reader that already hears other rooms is then taken back in the log, and
must not get again, through the new room, what it got through the old ones. Each such step
back leaves a `Window`: what had been delivered, and up to where.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gapless.event import Event
from gapless.eventlog.contract import Selector


class Window(msgspec.Struct, frozen=True, array_like=True):
    """Events up to `upto` were delivered, if they are in one of `rooms`, after its offset there."""

    rooms: dict[str, int]
    upto: int

    def covers(self, event: Event, offset: int) -> bool:
        """Whether the event was delivered then."""
        if offset > self.upto:
            return False
        rooms = self.rooms
        return any(room in rooms and offset > rooms[room] for room in event.rooms)


class RoomSubscriptions:
    """The rooms of one reader.

    Attributes:
        since: rooms, and the offset after which each is heard.
        windows: what steps back in the log must not deliver again.
    """

    __slots__ = ("_selector", "since", "windows")

    def __init__(self, since: dict[str, int] | None = None, windows: Iterable[Window] = ()) -> None:
        self.since: dict[str, int] = since if since is not None else {}
        self.windows: list[Window] = list(windows)
        self._selector: Selector | None = None

    @property
    def selector(self) -> Selector:
        """What to read from the log."""
        if self._selector is None:
            self._selector = Selector(rooms=frozenset(self.since))
        return self._selector

    def subscribe(self, rooms: Iterable[str], *, start: int, position: int) -> int:
        """Hear rooms from `start` on; rooms heard already stay as they are.

        Args:
            start: offset after which the new rooms are heard.
            position: offset up to which the reader has everything.

        Returns:
            The offset to read on from: `position`, or `start` where that is a step back.
        """
        new = [room for room in rooms if room not in self.since]
        if not new:
            return position
        if start < position and self.since:
            self.windows.append(Window(dict(self.since), position))
        for room in new:
            self.since[room] = start
        self._selector = None
        return min(start, position)

    def unsubscribe(self, rooms: Iterable[str]) -> None:
        """Hear rooms no more, from now on."""
        for room in rooms:
            self.since.pop(room, None)
        self._selector = None

    def wants(self, event: Event, offset: int) -> bool:
        """Whether an event read from the log is to be delivered."""
        since = self.since
        if not any(room in since and offset > since[room] for room in event.rooms):
            return False
        return not any(window.covers(event, offset) for window in self.windows)

    def passed(self, position: int) -> None:
        """Forget the windows that a reader has left behind."""
        if self.windows:
            self.windows = [window for window in self.windows if window.upto > position]
