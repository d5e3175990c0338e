"""What a client of an external broker lacks, and how it becomes whole: pure, no I/O.

A broker drops messages silently. Each event that the gateway publishes there names, for each of
its rooms, the position before it; heartbeats name the last one of each room in use. Whoever does
not have a room up to there asks the gateway for history, and holds later events back until it is
there.

In each room events are handed out once and in order. Two rooms are in order too, except that what
turns out to be missing in one comes after what was handed out of another meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gapless.client.model import ClientEvent, Hole
from gapless.event import Position

Output = ClientEvent | Hole

_ALL = ""  # stands for all rooms, where only topic filters are followed: no room has this name

_MOST_ASKED = 256  # rooms of one request; the gateway takes no more


class Live(msgspec.Struct, frozen=True):
    """An event that the gateway published at the broker.

    Attributes:
        previous: for each room of the event, the offset after which it is the room's first;
            empty where the message does not say.
    """

    event: ClientEvent
    position: Position
    previous: Mapping[str, int] = {}


class Past(msgspec.Struct, frozen=True):
    """An event of an answer."""

    event: ClientEvent
    offset: int
    rooms: Sequence[str]


class Answer(msgspec.Struct, frozen=True):
    """What the gateway answered to a request; see `HistoryAnswer` of the link."""

    position: Position
    complete: bool
    more: bool
    events: Sequence[Past]


class Ask(msgspec.Struct, frozen=True):
    """What to ask for: `rooms` (none: the topic filters) after a position; None: only where the log stands now."""

    rooms: tuple[str, ...]
    after: Position | None


class Gaps:
    """The state of one client, over as many connections as it takes.

    Args:
        rooms: those to keep whole; none: what matches the client's filters, and then only what was
            missed while the client was away is noticed, as no message tells of one on another topic.
        after: where the client stands.
        most_held: most events held back while history is asked for; those beyond are asked for too.
        most_known: most ids remembered: the only way to know an event without a position again.
    """

    def __init__(
        self,
        rooms: Iterable[str] = (),
        *,
        after: Position | None = None,
        most_held: int = 10_000,
        most_known: int = 10_000,
    ) -> None:
        self._rooms = tuple(rooms) or (_ALL,)
        self._epoch = None if after is None else after.epoch
        self._whole = dict.fromkeys(self._rooms, 0 if after is None else after.offset)
        self._missing: set[str] = set(self._rooms)
        self._asked: tuple[str, ...] = ()
        self._held: deque[Live] = deque()
        self._beat: tuple[int, int, Mapping[str, int]] | None = None
        self._others: set[str] = set()  # epochs of other gateways on the same broker
        self._known: OrderedDict[str, str | None] = OrderedDict()  # and its position
        self._most_held = most_held
        self._most_known = most_known

    @property
    def position(self) -> Position | None:
        """Everything up to it was handed out, in all rooms; None where that is not known yet."""
        return None if self._epoch is None else Position(self._epoch, min(self._whole.values()))

    def reconnected(self) -> None:
        """A new connection: anything may have been missed."""
        self._missing.update(self._rooms)

    def ask(self) -> Ask | None:
        """What to ask for now, if anything. Asking again after no answer came is harmless."""
        if not self._missing:
            return None
        # Those that are furthest behind first: others may wait for them (see `_past`).
        self._asked = tuple(sorted(self._missing, key=lambda room: (self._whole[room], room))[:_MOST_ASKED])
        rooms = tuple(room for room in self._asked if room != _ALL)
        if self._epoch is None:
            return Ask(rooms, None)
        return Ask(rooms, Position(self._epoch, min(self._whole[room] for room in self._asked)))

    def begin_anew(self) -> list[Output]:
        """The gateway does not know our position: go on where its log stands."""
        self._epoch = None
        self._missing.update(self._rooms)
        return [Hole()]

    def foreign(self, event: ClientEvent) -> list[Output]:
        """An event that somebody else published at the broker: it has no position, and stands in no order."""
        return [event] if self._is_new(event) else []

    def live(self, live: Live) -> list[Output]:
        """An event that the gateway published: what is to be handed out now."""
        if self._missing or live.position.epoch != self._epoch:
            return self._hold(live)
        return self._take(live)

    def _hold(self, live: Live) -> list[Output]:
        if live.position.epoch in self._others:
            return self.foreign(live.event)
        if not self._missing:  # another gateway's, or the log was replaced: the answer will say
            self._missing.update(self._rooms)
        if len(self._held) < self._most_held:
            self._held.append(live)
        return []

    def _take(self, live: Live) -> list[Output]:
        offset, whole = live.position.offset, self._whole
        previous = {room: before for room, before in live.previous.items() if room in whole}
        if _ALL in whole:
            previous = {_ALL: 0}
        elif not previous:  # of no room of ours, or the message does not say
            return self.foreign(live.event)
        holes = [room for room, before in previous.items() if before > whole[room]]
        if holes:
            self._missing.update(holes)
            self._held.appendleft(live)
            return []
        repeated = any(offset <= whole[room] for room in previous)
        for room in previous:
            whole[room] = max(whole[room], offset)
        return [] if repeated else self.foreign(live.event)

    def heartbeat(self, position: Position, since: Position, rooms: Mapping[str, int]) -> None:
        """A heartbeat: the last offset of each room that had events after `since`, all up to `position`."""
        if position.epoch == self._epoch and _ALL not in self._whole:
            self._beat = (position.offset, since.offset, rooms)
            self._check_beat()
        elif position.epoch != self._epoch and position.epoch not in self._others:
            self._missing.update(self._rooms)

    def _check_beat(self) -> None:
        if self._beat is None or self._missing:
            return  # looked at once what is held back was handed out
        position, since, rooms = self._beat
        self._beat = None
        for room, until in self._whole.items():
            if rooms.get(room, since) > until:
                self._missing.add(room)
            else:
                self._whole[room] = max(until, position)

    def answer(self, answer: Answer) -> list[Output]:
        """The answer to what was asked last: what is to be handed out now."""
        found: list[Output] = []
        waits_at: int | None = None
        epoch, offset = answer.position.epoch, answer.position.offset
        if not answer.complete:
            found.append(Hole(str(answer.position)))
        if epoch != self._epoch:
            self._epoch = epoch
            self._others.discard(epoch)
            self._whole = dict.fromkeys(self._rooms, offset)
            self._beat = None
        else:
            past, waits_at = self._past(answer.events)
            found += past
            for room in self._asked:
                self._whole[room] = max(self._whole[room], offset if waits_at is None else waits_at - 1)
        if not answer.more and waits_at is None:
            self._missing.difference_update(self._asked)
            self._asked = ()
        return found + self._release()

    def _past(self, events: Iterable[Past]) -> tuple[list[Output], int | None]:
        """What of an answer is to be handed out.

        Also the offset of an event that has to wait, with all after it: it is in a room, too, that was
        not asked for, and what comes before it there may be missing.
        """
        found: list[Output] = []
        whole = self._whole
        for past in events:
            rooms = [room for room in past.rooms if room in whole] or [room for room in (_ALL,) if room in whole]
            if any(past.offset <= whole[room] for room in rooms):
                continue
            others = [room for room in rooms if room not in self._asked]
            behind = [room for room in others if whole[room] < past.offset - 1]
            if behind:
                self._missing.update(behind)
                return found, past.offset
            whole.update(dict.fromkeys(others, past.offset))
            if self._is_new(past.event):
                found.append(past.event)
        return found, None

    def _release(self) -> list[Output]:
        found: list[Output] = []
        while self._held and not self._missing:
            live = self._held.popleft()
            if live.position.epoch != self._epoch:
                self._others.add(live.position.epoch)
                found += self.foreign(live.event)
            else:
                found += self._take(live)
        self._check_beat()
        return found

    def _is_new(self, event: ClientEvent) -> bool:
        """Whether the event's id was not noted before; it is now. One without an id is always new."""
        if event.id is None:
            return True
        if event.id in self._known:
            known = self._known[event.id]
            if (
                known is None
                or event.position is None
                or known == event.position
                or not _same_epoch(known, event.position)
            ):
                return False  # else both have a place in one log: two users have used one id
        self._known[event.id] = event.position
        while len(self._known) > self._most_known:
            self._known.popitem(last=False)
        return True


def _same_epoch(one: str, other: str) -> bool:
    return one.partition(":")[0] == other.partition(":")[0]
