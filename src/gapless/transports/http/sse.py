"""`GET /api/stream`: server-sent events (HTML Living Standard §9.2).

Every durable event carries its position as `id:`, so a stock EventSource comes back with
`Last-Event-ID` and misses nothing. A stream is live while its socket takes what is written;
one that is full keeps `stream_bytes` or `stream_events` at most, and is then fed from the log.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from gapless.auth import Identity, Lease, review
from gapless.delivery import Cursor
from gapless.envelope import envelope_json
from gapless.errors import Overloaded, Unauthorized
from gapless.event import Record
from gapless.eventlog import Selector
from gapless.presence import RoomNews
from gapless.transports.broadcast import Broadcast, Lane
from gapless.transports.http.readers import EventDoor
from gapless.transports.http.request import Request
from gapless.transports.raw_http import LendingHttp, chunk

logger = logging.getLogger("gapless.sse")

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back until its buffer is full
    (b"x-content-type-options", b"nosniff"),
)
_COMMENT = b":\n"
_OWN_NAMES = ("error", "open")
_FIRST_PAGE, _LARGEST_PAGE = 50, 500
_STOP_GRACE = 1.0


def sse_event(record: Record, *, named: bool = False) -> bytes:
    """An event as it goes over the wire; made once. An ephemeral one has no `id:`.

    A name with a line break would end its line, and `error` and `open` an EventSource has for itself: such events stay
    unnamed.
    """
    key = "sse.named" if named else "sse"
    form: bytes | None = record.forms.get(key)
    if form is None:
        lines = [b"data: ", envelope_json(record), b"\n\n"]
        event_type = record.event.type
        if named and event_type not in _OWN_NAMES and "\n" not in event_type and "\r" not in event_type:
            lines[:0] = (b"event: ", event_type.encode("utf-8", "replace"), b"\n")
        if record.position is not None:
            lines[:0] = (b"id: ", record.position.encode(), b"\n")
        form = record.forms[key] = b"".join(lines)
    return form


def sse_chunk(record: Record, *, named: bool) -> bytes:
    """An event as it goes over a lent connection; made once."""
    key = "sse.named.chunk" if named else "sse.chunk"
    form: bytes | None = record.forms.get(key)
    if form is None:
        form = record.forms[key] = chunk(sse_event(record, named=named))
    return form


def access_event(name: str, **fields: object) -> bytes:
    """`gapless.unauthorized` or `gapless.revoked`: dispatched under its name. It is no place to resume from."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(fields))


def presence_events(news: RoomNews) -> bytes:
    """`gapless.present`, or a `gapless.presence` for each change; made once for all streams."""
    form: bytes | None = news.forms.get("sse")
    if form is None:
        whole = None if news.whole is None else news.whole_wire()
        told = [("gapless.present", whole)] if whole else [("gapless.presence", change) for change in news.changes]
        form = b"".join(b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(one)) for name, one in told)
        news.forms["sse"] = form
    return form


def control_event(name: str, position: str, *, complete: bool = True) -> bytes:
    """`gapless.position` or `gapless.incomplete`: dispatched under its name, not to `onmessage`."""
    tail = "" if complete else ',"complete":false'
    return f'event: {name}\nid: {position}\ndata: {{"position":"{position}"{tail}}}\n\n'.encode()


class Stream:
    """One client's stream. It is its own `Holder`.

    Args:
        raw: the connection, where it is lent: while the stream's task waits and nothing is
            pending, live events are written straight to it.

    Attributes:
        cursor: where it stands.
        told: offset of the last position that was written to the client, or is pending.
        named: whether events carry their type as `event:`.
        page_size: events of history to read next.
        idle: nothing was written since the last heartbeat.
        closing: ends once what is pending is written.
        rooms: what it hears.
        cut: it was ended at once, without what was pending.
        undecided: what it hears is being looked at again; until then it gets nothing.
        lane: where a chunk may be written to; None while that must not be done.
        task: the request's task, to end it where its socket is full.
        writing: bytes of a write that waits for the socket.
    """

    __slots__ = (
        "_lane",
        "_max_bytes",
        "_max_events",
        "_pending",
        "_pending_bytes",
        "_woken",
        "closing",
        "cursor",
        "cut",
        "door",
        "idle",
        "lane",
        "lease",
        "named",
        "page_size",
        "raw",
        "rooms",
        "task",
        "told",
        "undecided",
        "writing",
    )

    lease: Lease
    rooms: frozenset[str]
    door: SseDoor

    def __init__(
        self, cursor: Cursor, *, named: bool, max_bytes: int, max_events: int, raw: LendingHttp | None = None
    ) -> None:
        self.cursor = cursor
        self.cut = False
        self.undecided = False
        self.told = cursor.position
        self.named = named
        self.writing = 0
        self.page_size = _FIRST_PAGE
        self.idle = False
        self.closing = False
        self.task = asyncio.current_task()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._max_bytes = max_bytes
        self._max_events = max_events
        self._woken: asyncio.Future[None] | None = None
        self.raw = raw
        self.lane: Lane | None = None
        self._lane = None if raw is None else Lane(raw.transport.write, raw.transport, plain=True)

    def offer(self, record: Record) -> bool:
        """Take a live event. False where it is dropped (ephemeral) or left to the log."""
        cursor = self.cursor
        if not cursor.live:
            return False
        if not record.offset:
            if self._is_full(share=2):  # the first to go under load
                return False
        elif self._is_full():
            cursor.fall_behind(record.offset - 1)
            return False
        elif not cursor.offer(record.offset):
            return False
        else:
            self.told = record.offset
        self._append(sse_event(record, named=self.named))
        self.wake()
        return True

    @property
    def held(self) -> int:
        """Bytes that wait until the socket takes what was written before."""
        return self._pending_bytes + self.writing

    def _is_full(self, *, share: int = 1) -> bool:
        return self._pending_bytes * share > self._max_bytes or len(self._pending) * share >= self._max_events

    def beat(self, head: int, position: bytes) -> None:
        """A sign of life where nothing was written since the last call.

        The position goes along where the head has moved: a client of quiet rooms then resumes
        from there, and not from an event that retention may have taken since.
        """
        if not self.idle:
            self.idle = True
        elif not self._pending and self.cursor.live:  # else something is about to be written
            self._append(position if self.told < head else _COMMENT)
            self.told = head
            self.wake()

    def _append(self, text: bytes) -> None:
        self._pending.append(text)
        self._pending_bytes += len(text)

    def take(self) -> bytes:
        """What is pending, as one write."""
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        return pending[0] if len(pending) == 1 else b"".join(pending)

    def wake(self) -> None:
        """Let the stream's task look again."""
        self.lane = None
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def access_ended(self, error: Unauthorized) -> None:
        """See `Holder`: told by an event of its own, unless the client does not read what came before."""
        if self.held or (self.raw is not None and self.raw.flow.write_paused):
            self.abort()
            return
        self.say(access_event("gapless.unauthorized", code=error.code, message=error.message, **error.details))
        self.close()

    def access_changed(self) -> None:
        """See `Holder`."""
        self.door.review(self)

    @property
    def identity(self) -> Identity:
        """See `Watcher`."""
        return self.lease.identity

    def presence(self, news: RoomNews) -> bool:
        """See `Watcher`."""
        if self.closing or self.undecided or self._is_full(share=2):
            return False
        self.say(presence_events(news))
        return True

    def presence_denied(self, room: str) -> None:
        """See `Watcher`: the stream's own review drops the room."""
        self.door.review(self)

    def say(self, text: bytes) -> None:
        """Write something of the gateway's own."""
        self._append(text)
        self.wake()

    def abort(self) -> None:
        """End it at once: what waits for its socket is not written. The client comes back, and resumes."""
        self.cut = True
        self.take()
        self.close()
        if self.raw is not None:
            self.raw.transport.abort()
        elif self.task is not None and self.writing:
            self.task.cancel()

    def close(self) -> None:
        """End it."""
        self.closing = True
        self.wake()

    async def wait(self) -> None:
        """Until there is something to do."""
        if self._pending or self.closing or not self.cursor.live:
            return
        self._woken = asyncio.get_running_loop().create_future()
        if self.raw is not None and not self.raw.flow.write_paused:
            self.lane = self._lane
        await self._woken

    def writer_paused(self) -> None:
        """See `WriterEvents`: what comes now is pending, and written once the socket takes it."""
        self.lane = None

    def writer_resumed(self) -> None:
        """See `WriterEvents`."""
        self.wake()

    def writer_lost(self) -> None:
        """See `WriterEvents`."""
        self.close()


class SseDoor(EventDoor[Stream]):
    """The fan-out to SSE streams.

    Attributes:
        delivered: events written or pending, over all streams, live ones.
        caught_up: events written from history.
        dropped: ephemeral events that full streams did not get.
        fell_behind: how many times a full stream was left to the log.
    """

    def __init__(self, *, broadcast: Broadcast | None = None, **parts: Any) -> None:
        super().__init__(**parts)
        self._broadcast = broadcast or Broadcast()
        self._beating: asyncio.Task[None] | None = None
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self.caught_up = 0
        self.dropped = 0
        self.fell_behind = 0

    @property
    def open_streams(self) -> int:
        """Streams open now."""
        return len(self._readers)

    @property
    def behind(self) -> int:
        """Streams that are being fed from the log now."""
        return sum(not stream.cursor.live for stream in self._readers.readers)

    @property
    def held(self) -> int:
        """Bytes that wait until their streams' sockets take what was written before."""
        return sum(stream.held for stream in self._readers.readers)

    def deliver(self, record: Record) -> None:
        """See `Fanout`."""
        offset = record.offset
        streams = self._hearing(record)
        if not streams:
            return
        lanes: dict[bool, list[Lane]] = {False: [], True: []}
        for stream in streams:
            lane = stream.lane
            if lane is not None and offset:
                stream.told = offset
                stream.idle = False
                lanes[stream.named].append(lane)
                continue
            was_live = stream.cursor.live
            if stream.offer(record):
                self.delivered += 1
            elif not record.offset:
                self.dropped += 1
            elif was_live and not stream.cursor.live:
                self.fell_behind += 1
        for named, group in lanes.items():
            if group:
                self.delivered += len(group)
                self._broadcast.write(sse_chunk(record, named=named), group)

    def start(self) -> None:
        """Begin the heartbeat."""
        self._beating = asyncio.create_task(self._beat(), name="sse-heartbeat")

    async def stop(self) -> None:
        """End every stream: at once, or after a second where the client does not read."""
        self._stopping = True
        if self._beating is not None:
            self._beating.cancel()
        for stream in self._readers.readers:
            stream.close()
        try:
            async with asyncio.timeout(_STOP_GRACE):
                await self._all_ended.wait()
        except TimeoutError:
            stuck = [stream.task for stream in self._readers.readers if stream.task is not None]
            logger.info("cutting %d streams whose clients do not read", len(stuck))
            for task in stuck:
                task.cancel()
            if stuck:
                await asyncio.wait(stuck)

    async def stream(self, request: Request) -> None:
        """Handle `GET /api/stream`."""
        options = self._options
        _, rooms = await self._admit(request, door="sse", token_in_query=True)
        named, presence = request.flag("named"), request.flag("presence")
        # An EventSource that reconnects sends both: the URL it was made with, and what it has.
        cursor = self._cursor(request, request.header(b"last-event-id") or request.value("after"))
        if self._stopping or self.open_streams >= options.max_streams:
            raise Overloaded("too many streams are open", hint="connect again after a moment")
        with self._admitted(request, rooms):
            await self._serve(request, cursor, rooms, named=named, presence=presence)

    async def _serve(
        self, request: Request, cursor: Cursor, rooms: frozenset[str], *, named: bool, presence: bool
    ) -> None:
        options, identity, raw = self._options, request.identity, request.raw
        stream = Stream(cursor, named=named, max_bytes=options.stream_bytes, max_events=options.stream_events, raw=raw)
        stream.rooms, stream.door = rooms, self
        self._readers.add(stream, rooms)
        stream.lease = self._gate.hold(identity, stream)
        self._presence.arrived(identity)
        self._presence.entered(identity, rooms)
        self._all_ended.clear()
        watch = None
        if raw is not None:
            raw.borrower = stream
        else:
            watch = request.watch(stream.close)
        try:
            await self._run(request, stream, presence=presence)
        except asyncio.CancelledError:
            if not (stream.cut or self._stopping):
                raise
            # A stream whose socket is full was cut; the server closes the connection.
        finally:
            stream.lease.release()
            self._presence.unwatch(stream)
            self._presence.departed(identity, stream.rooms)
            if raw is not None:
                raw.borrower = None
            if watch is not None:
                watch.cancel()
            self._readers.remove(stream, stream.rooms)
            if not self._readers:
                self._all_ended.set()

    def review(self, stream: Stream) -> None:
        """Drop the rooms that the stream may no longer hear, at once; what must be asked, is asked by its task."""
        denied, undecided = review(self._gate.check_subscribe_room, stream.lease.identity, sorted(stream.rooms))
        if undecided:
            stream.undecided = True
            stream.cursor.fall_behind(self._hub.head)
            stream.wake()
        self._drop(stream, denied)

    def _drop(self, stream: Stream, denied: list[str]) -> None:
        if not denied or stream.closing:
            return
        if stream.held or (stream.raw is not None and stream.raw.flow.write_paused):
            stream.abort()  # it may hold events of these rooms
            return
        self._readers.remove(stream, stream.rooms)
        self._presence.unwatch(stream, denied)
        self._presence.left(stream.identity, stream.rooms & frozenset(denied))
        stream.rooms -= frozenset(denied)
        self._readers.add(stream, stream.rooms)
        stream.say(access_event("gapless.revoked", rooms=denied))
        if not stream.rooms:
            stream.close()

    async def _ask(self, stream: Stream) -> None:
        """Get the decisions that a review lacked. Meanwhile the stream is behind, and is not fed."""
        identity: Identity = stream.lease.identity
        await self._gate.prepare(identity, rooms=stream.rooms)
        stream.undecided = False
        denied, undecided = review(self._gate.check_subscribe_room, identity, sorted(stream.rooms))
        self._drop(stream, denied + undecided)

    async def _run(self, request: Request, stream: Stream, *, presence: bool) -> None:
        cursor = stream.cursor
        start = self._hub.position(cursor.position)
        head = [f": gapless\nretry: {int(self._options.stream_retry * 1000)}\n\n".encode()]
        if cursor.complete:
            head.append(control_event("gapless.position", start))
        else:
            head.append(self._incomplete(cursor))
        if presence and not (stream.closing or stream.undecided):
            self._presence.watch(stream, stream.rooms)
            head += [presence_events(self._presence.whole(room)) for room in sorted(stream.rooms)]
        cursor.join(self._hub.head)
        await request.start(200, HEADERS)
        await request.write(b"".join(head))
        while not stream.closing:
            stream.idle = False
            if text := stream.take():
                await self._write(request, stream, text)
            elif stream.undecided:
                await self._ask(stream)
            elif not cursor.live:
                await self._catch_up(request, stream)
            else:
                await stream.wait()
        if not stream.cut:
            await request.write(stream.take(), more=False)

    @staticmethod
    async def _write(request: Request, stream: Stream, text: bytes) -> None:
        stream.writing = len(text)
        await request.write(text)
        stream.writing = 0

    async def _catch_up(self, request: Request, stream: Stream) -> None:
        """Write one piece of history, and turn live where it was the last one."""
        cursor = stream.cursor
        if cursor.join(self._hub.head):
            return
        rooms = stream.rooms
        page = await self._hub.page(Selector(rooms=rooms), cursor.position, limit=stream.page_size)
        if rooms is not stream.rooms or stream.undecided:
            return  # it hears other rooms by now
        parts: list[bytes] = []
        if not page.complete:  # retention was faster than the reader
            parts.append(self._incomplete(cursor))
        size = 0
        for record in cursor.take(page):
            if not self._expired(record):
                parts.append(sse_event(record, named=stream.named))
                stream.told = record.offset
                self.caught_up += 1
                size += len(parts[-1])
                if size >= self._options.stream_bytes:
                    break
        if size:  # read no more next time than one write takes
            stream.page_size = min(_LARGEST_PAGE, 1 + self._options.stream_bytes * len(parts) // size)
        cursor.complete = True  # what is missing has been told
        cursor.join(self._hub.head)
        if parts:
            await self._write(request, stream, b"".join(parts))
            await asyncio.sleep(0)  # a write that the socket takes does not suspend: now it is others' turn

    def _incomplete(self, cursor: Cursor) -> bytes:
        cursor.complete = True
        return control_event("gapless.incomplete", self._hub.position(cursor.position), complete=False)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._options.stream_heartbeat / 2)
            self.beat()

    def beat(self) -> None:
        """Give the streams on which nothing was written since the last call a sign of life."""
        head, position = self._hub.head, control_event("gapless.position", self._hub.position())
        for stream in self._readers.readers:
            stream.beat(head, position)
