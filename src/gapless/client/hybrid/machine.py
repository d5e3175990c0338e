"""The hybrid client without I/O: a connector, an inbox, an outbox and a token, put together."""

from __future__ import annotations

import random as _random
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gapless.client.connect import TransportName
from gapless.client.hybrid.bounds import Bounds
from gapless.client.hybrid.connector import Connector
from gapless.client.hybrid.errors import error_of_code
from gapless.client.hybrid.inbox import Inbox, Line
from gapless.client.hybrid.outbox import Entry, Outbox, OutboxBounds
from gapless.client.hybrid.presence import PresenceChange, PresentNow, Watches
from gapless.client.hybrid.process import Scheduler
from gapless.client.hybrid.rooms import RoomDescription, RoomMatcher
from gapless.client.hybrid.status import Status
from gapless.client.hybrid.tokens import Tokens
from gapless.client.hybrid.world import World
from gapless.errors import Forbidden, GaplessError

LADDER: tuple[TransportName, ...] = ("socketio", "mqtt", "sse", "poll")
"""The order of transports for laptops and servers."""


class Machine:
    """Everything that a client decides. After each call into it, `scheduler.run()` does what is due.

    Args:
        world: does the I/O.
        clock: seconds, monotonic.
        wall: seconds since the Unix epoch.
        random: draws evenly from 0 up to 1.
        ladder: transports in order.
        cursor: what the store has; None where it has none.
        begin: where a client without a cursor begins: `now`, `start`, or a position.
        leftovers: publications of an earlier life.
        bounds: the application's limits of waiting.
        outbox: how much may wait in the outbox.
        token: a token that is there already; `...` for none.
        fixed_token: there will be no other.
    """

    def __init__(
        self,
        world: World,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        random: Callable[[], float] = _random.random,
        ladder: Sequence[TransportName] = LADDER,
        cursor: str | None = None,
        begin: str = "now",
        leftovers: Sequence[Entry] = (),
        bounds: Bounds | None = None,
        outbox: OutboxBounds | None = None,
        token: Any = ...,
        fixed_token: bool = False,
    ) -> None:
        self.scheduler = scheduler = Scheduler(clock)
        self._world = world
        self.tokens = Tokens(
            scheduler, ask=world.token, wall=wall, renewed=self._renewed, first=token, fixed=fixed_token
        )
        self.inbox = Inbox(cursor, world.keep_cursor, self._drained)
        self.connector = Connector(
            scheduler,
            world,
            inbox=self.inbox,
            tokens=self.tokens,
            rooms=self,
            ladder=ladder,
            begin=begin,
            bounds=bounds or Bounds(),
            random=random,
            wall=wall,
        )
        self.watches = Watches(scheduler, world, self.tokens, self.connector)
        self.outbox = Outbox(
            scheduler,
            world,
            self.tokens,
            leftovers=list(leftovers),
            bounds=outbox or OutboxBounds(),
            random=random,
            changed=lambda length: self.connector.tell(queue_length=length),
        )
        self.connector.tell(queue_length=len(self.outbox))

    @property
    def status(self) -> Status:
        """How it is connected."""
        return self.connector.status

    def start(self) -> None:
        """Send what an earlier life left over; the connection comes with the first subscription."""
        self.outbox.wake()

    def close(self) -> None:
        """End everything; publications without an answer are refused (`closed`)."""
        self.outbox.close()
        self.watches.close()
        self.tokens.close()
        self.connector.close()

    def subscribe(self, rooms: frozenset[str], changed: Callable[[], None]) -> Line:
        """A subscription to rooms; `changed` is called when its line has something, or is refused."""
        line = self.inbox.line(rooms, changed)
        self.connector.start()
        self.connector.rooms_changed()
        return line

    def unsubscribe(self, line: Line) -> None:
        """It ends."""
        self.inbox.end(line)
        self.connector.rooms_changed()

    def reconnect(self) -> None:
        """Connect anew; ask again for what was refused."""
        for line in self.inbox.lines:
            line.refused.clear()
        self.connector.reconnect()

    # --- for the connector: `Rooms`

    def heard(self, rooms: Sequence[RoomDescription], refused: Sequence[RoomDescription]) -> None:
        """See `Rooms`."""
        self.inbox.matcher = RoomMatcher(rooms)
        names = {room.room for room in rooms}
        for line in self.inbox.lines:
            line.heard = set(line.rooms & names)
            for name in names:
                line.refused.pop(name, None)
        for room in refused:
            self._refuse(room.room, _error(room.error or {}))

    def revoked(self, rooms: Sequence[str]) -> None:
        """See `Rooms`."""
        for room in rooms:
            self._refuse(room, Forbidden(f"the room {room!r} may be heard no more"))
            self.watches.revoked(room)

    def presence(self, event: str, document: dict[str, Any]) -> None:
        """See `Rooms`."""
        kind: type[PresenceChange | PresentNow] = PresentNow if event == "gapless:present" else PresenceChange
        try:
            news = msgspec.convert(document, kind)
        except msgspec.ValidationError:
            self.watches.connected()  # of a later version, in another form: ask
        else:
            self.watches.notice(news)

    def connected(self) -> None:
        """See `Rooms`."""
        for line in self.inbox.lines:
            line.changed()
        self.outbox.wake()
        self.watches.connected()

    def _refuse(self, room: str, error: GaplessError) -> None:
        is_news = False
        for line in self.inbox.lines:
            before = line.refused.get(room)
            if room in line.rooms and (before is None or before.code != error.code):
                is_news = True
                line.refused[room] = error
                line.heard.discard(room)
                line.changed()
        if is_news:
            self._world.failed(error, room)

    def _renewed(self, token: str | None) -> None:
        self.connector.renewed(token)

    def _drained(self) -> None:
        self.connector.drained()


def _error(wire: dict[str, Any]) -> GaplessError:
    return error_of_code(
        str(wire.get("code", "internal")),
        str(wire.get("message", "the room is refused")),
        retryable=wire.get("retryable") is True,
        hint=str(wire.get("hint", "")),
    )
