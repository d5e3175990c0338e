"""One Socket.IO client of the gateway, and how events reach it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from gapless.auth import Identity, Lease
from gapless.delivery import Cursor, RoomSubscriptions
from gapless.envelope import data_with_captures
from gapless.errors import Unauthorized
from gapless.event import Record, format_time
from gapless.eventlog import Page
from gapless.hub import Hub
from gapless.limits import FREE, Visit
from gapless.presence import RoomNews
from gapless.transports.broadcast import Lane
from gapless.transports.socketio.outgoing import EncodedMessage, OutgoingQueue

logger = logging.getLogger("gapless.socketio")

PAGE = 200
"""Events fed to one client before others get their turn of the loop."""

INCOMPLETE = "gapless:incomplete"
"""Event by which a client is told that the log no longer has what it missed."""

REVOKED = "gapless:revoked"
"""Event by which a client is told of rooms that it may hear no more."""
PRESENCE = "gapless:presence"
"""Event by which a client is told that a user came into a room, left it, or has more or fewer connections there."""
PRESENT = "gapless:present"
"""Event by which a client is told of all who are in a room."""

_PLACEHOLDER = {"_placeholder": True, "num": 0}

_encode_json = msgspec.json.Encoder().encode


def encode_record(record: Record) -> EncodedMessage:
    """`42["lead:updated",data,meta,"position"]`, once for all clients.

    An ephemeral event has no third argument: a string there would become the offset that
    the stock client keeps.
    """
    form: EncodedMessage | None = record.forms.get("socketio")
    if form is None:
        form = record.forms["socketio"] = _encode_record(record)
    return form


def _encode_record(record: Record) -> EncodedMessage:
    event = record.event
    meta = {"id": event.id, "topic": event.topic, "time": format_time(event.time), "userId": event.user_id}
    rest = (meta,) if record.position is None else (meta, record.position)
    if event.binary:
        return EncodedMessage.of(b"451-" + _encode_json((event.type, _PLACEHOLDER, *rest)), event.data)
    return EncodedMessage.of(b"42" + _encode_json((event.type, msgspec.Raw(data_with_captures(event)), *rest)))


def encode_event(name: str, *arguments: object) -> EncodedMessage:
    """Any event of the gateway's own."""
    return EncodedMessage.of(b"42" + _encode_json([name, *arguments]))


def encode_news(news: RoomNews) -> EncodedMessage:
    """News of who is in a room, once for all who watch it."""
    form: EncodedMessage | None = news.forms.get("socketio")
    if form is None:
        if news.whole is not None:
            form = encode_event(PRESENT, news.whole_wire())
        else:
            form = EncodedMessage.joined([encode_event(PRESENCE, change) for change in news.changes])
        news.forms["socketio"] = form
    return form


class Stats(msgspec.Struct):
    """What the door counts.

    Attributes:
        recovered, not_recovered: clients that came back with a pid.
        refused: connections that the gate refused.
        fell_behind: how often a connection was full, and its client fed from the log from then on.
        incomplete: how often a client was told that events are gone.
    """

    recovered: int = 0
    not_recovered: int = 0
    refused: int = 0
    fell_behind: int = 0
    incomplete: int = 0


class _Run(NamedTuple):
    """A page of events.

    Attributes:
        message: they; None where there is none up to `through`.
        through: offset up to which it reaches.
        more: whether there may be as many behind them.
    """

    message: EncodedMessage | None
    through: int
    more: bool


class AccessEvents(Protocol):
    """What is done where a client's access ends or shrinks."""

    def end(self, client: Client) -> None:
        """It ended; the client says why."""

    def review(self, client: Client) -> None:
        """It may have shrunk."""


class Client(Cursor):
    """A connected client: its rooms, its place in the log, its connection. It is its own `Holder`.

    While it is live, `gapless.transports.socketio.fanout` writes to it, by its lane if it has one.

    Args:
        changed: called when either changes.

    Attributes:
        started: whether CONNECT was sent; nothing may go out before it.
        visit: what its connection counts as, which ends that.
        lost: whether it came back to find that the log no longer covers what it missed.
        lease: its access.
        ended: why its access ended; None while it lasts.
        undecided: the application is asked about its rooms again; until then it gets nothing.
        asking: held by the request that waits for the application; None where none ever did.
        waiting: requests that wait for it.
        revoked: rooms that it had before and may hear no more, to be told once it is in.
    """

    __slots__ = (
        "_changed",
        "_lane",
        "_live",
        "_reading",
        "access",
        "asking",
        "eio_sid",
        "ended",
        "hub",
        "lease",
        "lost",
        "pid",
        "queue",
        "revoked",
        "sid",
        "start",
        "started",
        "stats",
        "subscriptions",
        "undecided",
        "visit",
        "waiting",
    )

    lease: Lease

    def __init__(
        self,
        *,
        sid: str,
        eio_sid: str,
        pid: str,
        access: AccessEvents,
        queue: OutgoingQueue,
        hub: Hub,
        position: int,
        stats: Stats,
        changed: Callable[[], None],
        visit: Visit = FREE,
    ) -> None:
        self._changed = changed
        self._lane: Lane | None = None
        super().__init__(position)
        self.sid = sid
        self.eio_sid = eio_sid
        self.pid = pid
        self.access = access
        self.ended: Unauthorized | None = None
        self.undecided = False
        self.asking: asyncio.Lock | None = None
        self.waiting = 0
        self.revoked: list[str] = []
        self.queue = queue
        self.hub = hub
        self.stats = stats
        self.visit = visit
        self.start = position
        self.subscriptions = RoomSubscriptions()
        self.started = False
        self.lost = False
        self._reading: asyncio.Task[None] | None = None

    @property
    def live(self) -> bool:
        """See `Cursor`."""
        return self._live

    @live.setter
    def live(self, live: bool) -> None:
        self._live = live
        self._changed()

    @property
    def lane(self) -> Lane | None:
        """See `Reader`."""
        return self._lane

    @lane.setter
    def lane(self, lane: Lane | None) -> None:
        self._lane = lane
        self._changed()

    @property
    def identity(self) -> Identity:
        """Whom the gate let in."""
        return self.lease.identity

    def access_ended(self, error: Unauthorized) -> None:
        """See `Holder`."""
        self.ended = error
        self.access.end(self)

    def access_changed(self) -> None:
        """See `Holder`."""
        self.access.review(self)

    def presence(self, news: RoomNews) -> bool:
        """See `Watcher`."""
        if not self.started or self.queue.stalled:
            return False
        self.queue.send(encode_news(news))
        return True

    def presence_denied(self, room: str) -> None:
        """See `Watcher`."""
        if self.started:
            self.queue.send(encode_event(REVOKED, {"rooms": [room]}))

    @property
    def where(self) -> int:
        """Offset up to which everything was written to the connection."""
        return self.hub.head if self.live else self.position

    def connection_full(self) -> None:
        """The connection takes no more: what follows is read from the log later."""
        if self.live:
            self.stats.fell_behind += 1
            self.fall_behind(self.hub.head)

    def connection_drained(self) -> None:
        """The connection takes events again."""
        self.feed()

    def rewind(self, position: int) -> None:
        """Read on from an earlier position."""
        self.live = False
        self.position = position

    def feed(self) -> None:
        """Send what is missing, a page at a time, until the client is live or its connection full."""
        if not self.started or self._reading is not None or self.live or self.undecided:
            return
        if not self.subscriptions.since:
            self.position = self.hub.head
        while not self.queue.stalled:
            if self.join(self.hub.head):
                self.subscriptions.passed(self.position)
                return
            run = self._run()
            if run is not None:
                if run.message is not None:
                    self.queue.send(run.message)
                self.position = run.through
                more = run.more
            else:
                page = self.hub.page_now(self.subscriptions.selector, self.position, limit=PAGE)
                if page is None:
                    self._reading = asyncio.create_task(self._read_log(), name=f"socketio-read-{self.sid}")
                    return
                self._send_page(page)
                more = len(page.records) == PAGE
            if more:  # others first
                asyncio.get_running_loop().call_soon(self.feed)
                return

    def _run(self) -> _Run | None:
        """The next page as all get it that hear the same rooms and stand at the same place; None where there is none,
        since a room was joined or left behind that place, or memory does not have it.
        """
        if not self.subscriptions.wants_all_after(self.position):
            return None
        selector = self.subscriptions.selector
        key = ("socketio", selector, self.position)
        run: _Run | None = self.hub.runs.get(key)
        if run is None:
            page = self.hub.page_now(selector, self.position, limit=PAGE)
            if page is None or not page.complete:
                return None
            records = page.records
            message = EncodedMessage.joined([encode_record(record) for record in records]) if records else None
            run = _Run(message, page.through, len(records) == PAGE)
            self.hub.runs.put(key, run, 0 if message is None else len(message.frames))
        return run

    async def _read_log(self) -> None:
        selector = self.subscriptions.selector
        try:
            page = await self.hub.page(selector, self.position, limit=PAGE)
        except Exception:
            logger.exception("cannot read the log for client %s; it is disconnected to come again", self.sid)
            self.queue.abort()
            return
        finally:
            self._reading = None
        if selector is self.subscriptions.selector and not self.undecided:  # else it hears other rooms by now
            self._send_page(page)
        self.feed()

    def _send_page(self, page: Page) -> None:
        if not page.complete:
            first = page.records[0].offset - 1 if page.records else page.through
            self.tell_incomplete(first)
        if self.subscriptions.wants_all_after(self.position):
            messages = [encode_record(record) for record in self.take(page)]
        else:
            wants = self.subscriptions.wants
            messages = [encode_record(record) for record in self.take(page) if wants(record.event, record.offset)]
        if messages:
            self.queue.send(EncodedMessage.joined(messages))

    def tell_incomplete(self, offset: int) -> None:
        """Say that events up to `offset` that the client may have missed are gone."""
        self.stats.incomplete += 1
        position = self.hub.position(offset)
        self.queue.send(encode_event(INCOMPLETE, {"position": position, "complete": False}, position))

    def close(self) -> None:
        """Stop feeding."""
        self.started = False
        self.fall_behind(self.hub.head)
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
