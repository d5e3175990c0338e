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

_KEPT = 8
"""Windows kept after they were passed: steps back whose events may be on their way at one moment."""


class Window(msgspec.Struct, frozen=True, array_like=True):
    """Events up to `upto` were delivered, if they are in one of `rooms`, after its offset there.

    Events up to `unclear` may also have been delivered through rooms that had been left.
    """

    rooms: dict[str, int]
    upto: int
    unclear: int = 0

    def covers(self, event: Event, offset: int) -> bool:
        """Whether the event was delivered then."""
        if offset > self.upto:
            return False
        rooms = self.rooms
        return any(room in rooms and offset > rooms[room] for room in event.rooms)

    def split(self, rooms: Iterable[str], start: int) -> list[Window]:
        """This window for a reader that hears rooms from `start` on, which it may have left: they come anew."""
        left = self.rooms.keys() & rooms
        if not left or start >= self.upto:
            return [self]
        others = {room: since for room, since in self.rooms.items() if room not in left}
        return [Window(self.rooms, start, start), Window(others, self.upto, self.upto)]


class RoomSubscriptions:
    """The rooms of one reader.

    Attributes:
        since: rooms, and the offset after which each is heard.
        windows: what steps back in the log must not deliver again.
    """

    __slots__ = ("_selector", "_unclear", "since", "windows")

    def __init__(self, since: dict[str, int] | None = None, windows: Iterable[Window] = ()) -> None:
        self.since: dict[str, int] = since if since is not None else {}
        self.windows: list[Window] = list(windows)
        self._selector: Selector | None = None
        self._unclear = 0

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
        if start < position:
            self.windows.append(Window(dict(self.since), position, self._unclear))
        for room in new:
            self.since[room] = start
        if self.windows:
            self.windows = [part for window in self.windows for part in window.split(new, start)]
        self._selector = None
        return min(start, position)

    def unsubscribe(self, rooms: Iterable[str], *, position: int) -> None:
        """Hear rooms no more, from now on.

        Args:
            position: offset up to which the reader has everything.
        """
        for room in rooms:
            self.since.pop(room, None)
        self._unclear = max(self._unclear, position)
        self._selector = None

    def wants_all_after(self, position: int) -> bool:
        """Whether each event of its rooms after an offset is to be delivered, as `wants` would say."""
        return not self.windows and all(since <= position for since in self.since.values())

    def wants(self, event: Event, offset: int) -> bool:
        """Whether an event read from the log is to be delivered."""
        return self._hears(event, offset) and not any(window.covers(event, offset) for window in self.windows)

    def resume(self, start: int, offset: int | None, last: Event | None) -> int:
        """Where to read on for a reader that lost its connection, with what was on its way.

        Nothing that was lost on its way is left out, whether it was sent before a step back or after.
        Where the reader had left rooms before a step back, and lost the connection before it had all that
        the step brings, some of it may be repeated: which of the two its last event came from is not known.

        Args:
            start: offset at which the reader began.
            offset: offset of the last event that reached it; None where none did.
            last: that event; None where the log no longer has it.

        Returns:
            The offset to read on from.
        """
        if offset is None:
            self.windows.clear()
            return min([start, *self.since.values()])
        self._unclear = max(self._unclear, offset)
        for number, window in enumerate(self.windows):
            if offset > window.upto:
                continue
            if last is None or offset <= window.unclear or window.covers(last, offset) or not self._hears(last, offset):
                # It came before this step back: what was sent after it got lost.
                self.windows[number:] = [Window(window.rooms, offset, offset)]
                return min([offset, *self.since.values()])
        return offset

    def _hears(self, event: Event, offset: int) -> bool:
        since = self.since
        return any(room in since and offset > since[room] for room in event.rooms)

    def passed(self, position: int) -> None:
        """Forget windows that the reader has left behind, but for the last ones.

        What was written to a connection may still be lost with it: `resume` then needs them.
        """
        if len(self.windows) > _KEPT:
            self.windows = [window for window in self.windows[:-_KEPT] if window.upto > position] + self.windows[
                -_KEPT:
            ]
