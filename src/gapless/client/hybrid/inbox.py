"""What was received: in order and once, for each subscription its own line; the cursor moves behind the handlers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec

from gapless.client.hybrid.rooms import RoomMatcher
from gapless.client.model import ClientEvent
from gapless.errors import GaplessError, InvalidPosition
from gapless.event import Position

_encode = msgspec.json.Encoder().encode

MOST_WAITING = 10_000
"""Events that may wait for handlers, over all subscriptions."""

MOST_BYTES = 32 << 20
"""Bytes of their data, as JSON."""

MOST_IDS = 10_000
"""Ids remembered, at least."""


class Gap(msgspec.Struct, frozen=True):
    """Events that existed and are gone: load your state anew. Later events come as ever.

    Attributes:
        after: the last position before the hole; None where none was known.
        position: where it goes on; None where that is not known yet.
        reason: `expired`: older than what the log keeps; `epoch`: the log was lost or replaced.
    """

    after: str | None
    position: str | None
    reason: Literal["expired", "epoch"]


class _Place:
    """A step of the cursor: reached once nobody has to handle anything at it."""

    __slots__ = ("pending", "position")

    def __init__(self, position: str | None) -> None:
        self.position = position
        self.pending = 0


class _Waiting(NamedTuple):
    place: _Place
    item: ClientEvent | Gap
    size: int


class Line:
    """The events of one subscription that wait for it.

    Attributes:
        rooms: whose events it wants.
        changed: called when there is something to take.
        refused: rooms that are refused, and why.
        heard: rooms that are heard now.
    """

    def __init__(self, inbox: Inbox, rooms: frozenset[str], changed: Callable[[], None]) -> None:
        self.rooms = rooms
        self.changed = changed
        self.refused: dict[str, GaplessError] = {}
        self.heard: set[str] = set()
        self._inbox = inbox
        self._waiting: deque[_Waiting] = deque()
        self._in_hand: _Waiting | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> ClientEvent | Gap | None:
        """The next one, if there is one; the one before counts as handled."""
        self.finish()
        if not self._waiting:
            return None
        self._in_hand = self._waiting.popleft()
        self._inbox.taken(self._in_hand)
        return self._in_hand.item

    def give_back(self) -> None:
        """What was taken did not reach the application: it is the next one again."""
        waiting, self._in_hand = self._in_hand, None
        if waiting is not None:
            self._waiting.appendleft(waiting)
            self._inbox.waits(waiting)

    def finish(self) -> None:
        """What was taken is handled."""
        waiting, self._in_hand = self._in_hand, None
        if waiting is not None:
            waiting.place.pending -= 1
            self._inbox.settle()

    def add(self, waiting: _Waiting) -> None:
        """For the inbox."""
        waiting.place.pending += 1
        self._waiting.append(waiting)
        self._inbox.waits(waiting)
        self.changed()

    def end(self) -> None:
        """Handle nothing more: it holds up nothing any longer."""
        dropped, self._waiting = self._waiting, deque()
        for waiting in dropped:
            waiting.place.pending -= 1
        self._inbox.taken(*dropped)
        self.finish()
        self._inbox.settle()


class Inbox:
    """Takes what connections bring, in any order and however often, and hands it out in the log's.

    Args:
        begin: the cursor with which it begins.
        moved: called with the cursor when it has moved.
        drained: called when at most half of what may wait is waiting, after it was full.

    Attributes:
        received: the last position received.
        cursor: the last position handled, with everything before it.
        matcher: tells the rooms of an event.
    """

    def __init__(self, begin: str | None, moved: Callable[[str], None], drained: Callable[[], None]) -> None:
        self.received = begin
        self.cursor = begin
        self.matcher = RoomMatcher()
        self.lines: list[Line] = []
        self._at = parse(begin)
        self._moved = moved
        self._drained = drained
        self._places: deque[_Place] = deque()
        self._waiting = self._bytes = 0
        self._was_full = False
        self._ids: dict[str, str | None] = {}  # and in which epoch it had a position
        self._older_ids: dict[str, str | None] = {}

    # --- subscriptions

    def line(self, rooms: frozenset[str], changed: Callable[[], None]) -> Line:
        """A new subscription's."""
        line = Line(self, rooms, changed)
        self.lines.append(line)
        return line

    def end(self, line: Line) -> None:
        """The subscription ends."""
        if line in self.lines:
            self.lines.remove(line)
            line.end()

    @property
    def rooms(self) -> list[str]:
        """What is wanted, each once."""
        return list(dict.fromkeys(room for line in self.lines for room in sorted(line.rooms)))

    # --- what comes

    @property
    def is_full(self) -> bool:
        """Whether more wait than may."""
        return self._waiting > MOST_WAITING or self._bytes > MOST_BYTES

    @property
    def has_room(self) -> bool:
        """Whether at most half of what may wait is waiting. Where it is not, `drained` will be called."""
        self._was_full = self._was_full or not self._is_half_empty
        return self._is_half_empty

    @property
    def _is_half_empty(self) -> bool:
        return self._waiting <= MOST_WAITING // 2 and self._bytes <= MOST_BYTES // 2

    def event(self, event: ClientEvent) -> bool:
        """Take an event; whether it is new."""
        at = parse(event.position) if event.ordered else None
        if at is not None:
            if self._at is not None and self._at.epoch != at.epoch:
                self.gap(None, "epoch")
            if self._at is not None and at.offset <= self._at.offset:
                return False
            self._at, self.received = at, event.position
        is_new = event.id is None or self._is_new(event.id, None if at is None else at.epoch)
        place = self._place(event.position if at is not None else None)
        if is_new:
            self._hand_out(event, place)
        self.settle()
        return is_new

    def _hand_out(self, event: ClientEvent, place: _Place) -> None:
        captures = self.matcher.captures(event.topic) or event.captures
        if captures:
            data = {**captures, **event.data} if isinstance(event.data, dict) else event.data
            event = msgspec.structs.replace(event, data=data, captures=captures)
        rooms = self.matcher.rooms_of(event.topic, event.data)
        wanting = [line for line in self.lines if not line.rooms.isdisjoint(rooms)]
        if wanting:
            waiting = _Waiting(place, event, _size(event.data))
            for line in wanting:
                line.add(waiting)

    def moved(self, position: str) -> None:
        """Everything up to the position was received."""
        at = parse(position)
        if at is None or (self._at is not None and self._at.epoch == at.epoch and at.offset <= self._at.offset):
            return
        self._at, self.received = at, position
        self._place(position)
        self.settle()

    def gap(self, position: str | None, reason: Literal["expired", "epoch"]) -> None:
        """What comes after what was received is gone, up to the position where it is known."""
        gap = Gap(self.received, position, reason)
        self._at = parse(position)
        if position is not None:
            self.received = position
        place = self._place(position)
        for line in self.lines:
            line.add(_Waiting(place, gap, 0))
        self.settle()

    def _place(self, position: str | None) -> _Place:
        if position is not None and self._places and self._places[-1].pending == 0:
            self._places.pop()  # it stands for everything up to here
        place = _Place(position)
        self._places.append(place)
        return place

    def _is_new(self, identity: str, epoch: str | None) -> bool:
        known = self._ids if identity in self._ids else self._older_ids
        if identity in known and (epoch is None or known[identity] != epoch):
            return False  # else both have a place in one log: two users have used one id
        # Two generations: what is forgotten is between one and two times as old as the bound asks for.
        if len(self._ids) >= MOST_IDS:
            self._older_ids, self._ids = self._ids, {}
        self._ids[identity] = epoch
        return True

    # --- for the lines

    def waits(self, waiting: _Waiting) -> None:
        """This waits."""
        self._waiting += 1
        self._bytes += waiting.size

    def taken(self, *items: _Waiting) -> None:
        """These wait no more."""
        self._waiting -= len(items)
        self._bytes -= sum(waiting.size for waiting in items)
        if self._was_full and self._is_half_empty:
            self._was_full = False
            self._drained()

    def settle(self) -> None:
        """Move the cursor over what is handled."""
        cursor = None
        while self._places and self._places[0].pending == 0:
            cursor = self._places.popleft().position or cursor
        if cursor is not None:
            self.cursor = cursor
            self._moved(cursor)


def _size(data: Any) -> int:
    return len(data) if isinstance(data, bytes | str) else len(_encode(data))


def parse(position: str | None) -> Position | None:
    """A position, or None for what is none."""
    if position is None:
        return None
    try:
        return Position.parse(position)
    except InvalidPosition:
        return None


def reaches(position: str | None, goal: str) -> bool:
    """Whether a position is at or past another one of the same log."""
    here, there = parse(position), parse(goal)
    return here is not None and there is not None and here.epoch == there.epoch and here.offset >= there.offset
