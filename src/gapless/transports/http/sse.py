"""`GET /api/stream`: server-sent events (HTML Living Standard §9.2).

Every durable event carries its position as `id:`, so a stock EventSource comes back with
`Last-Event-ID` and misses nothing. A stream is live while its socket takes what is written;
one that is full keeps `stream_bytes` of finished text and is then fed from the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from gapless.auth import Gate
from gapless.delivery import Cursor
from gapless.envelope import envelope_json
from gapless.errors import InvalidRequest, Overloaded
from gapless.event import Record
from gapless.eventlog import EventLog, Selector
from gapless.hub import Hub
from gapless.topicmap import TopicMap
from gapless.transports.http.options import HttpOptions
from gapless.transports.http.readers import RoomIndex, cursor_from
from gapless.transports.http.request import Request

logger = logging.getLogger("gapless.sse")

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back until its buffer is full
    (b"x-content-type-options", b"nosniff"),
)
_COMMENT = b":\n"
_PAGE = 500
_STOP_GRACE = 1.0


def sse_event(record: Record, *, named: bool = False) -> bytes:
    """An event as it goes over the wire; made once. An ephemeral one has no `id:`.

    A name with a line break would end its line, so such an event stays unnamed.
    """
    key = "sse.named" if named else "sse"
    form: bytes | None = record.forms.get(key)
    if form is None:
        lines = [b"data: ", envelope_json(record), b"\n\n"]
        event_type = record.event.type
        if named and "\n" not in event_type and "\r" not in event_type:
            lines[:0] = (b"event: ", event_type.encode("utf-8", "replace"), b"\n")
        if record.position is not None:
            lines[:0] = (b"id: ", record.position.encode(), b"\n")
        form = record.forms[key] = b"".join(lines)
    return form


def control_event(name: str, position: str, *, complete: bool = True) -> bytes:
    """`gapless.position` or `gapless.incomplete`: dispatched under its name, not to `onmessage`."""
    tail = "" if complete else ',"complete":false'
    return f'event: {name}\nid: {position}\ndata: {{"position":"{position}"{tail}}}\n\n'.encode()


class Stream:
    """One client's stream.

    Attributes:
        cursor: where it stands.
        told: offset of the last position that was written to the client, or is pending.
        named: whether events carry their type as `event:`.
        idle: nothing was written since the last heartbeat.
        closing: ends once what is pending is written.
        task: the request's task, to end it where its socket is full.
    """

    __slots__ = ("_pending", "_pending_bytes", "_woken", "closing", "cursor", "idle", "named", "room", "task", "told")

    def __init__(self, cursor: Cursor, *, named: bool, room: int) -> None:
        self.cursor = cursor
        self.told = cursor.position
        self.named = named
        self.room = room
        self.idle = False
        self.closing = False
        self.task = asyncio.current_task()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._woken: asyncio.Future[None] | None = None

    def offer(self, record: Record) -> bool:
        """Take a live event. False where it is dropped (ephemeral) or left to the log."""
        cursor = self.cursor
        if not cursor.live:
            return False
        if not record.offset:
            if self._pending_bytes * 2 > self.room:  # the first to go under load
                return False
        elif self._pending_bytes > self.room:
            cursor.fall_behind(record.offset - 1)
            return False
        elif not cursor.offer(record.offset):
            return False
        else:
            self.told = record.offset
        self._append(sse_event(record, named=self.named))
        self.wake()
        return True

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
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def close(self) -> None:
        """End it."""
        self.closing = True
        self.wake()

    async def wait(self) -> None:
        """Until there is something to do."""
        if self._pending or self.closing or not self.cursor.live:
            return
        self._woken = asyncio.get_running_loop().create_future()
        await self._woken


class SseDoor:
    """The fan-out to SSE streams.

    Attributes:
        delivered: events written or pending, over all streams, live ones.
        caught_up: events written from history.
        dropped: ephemeral events that full streams did not get.
        fell_behind: how many times a full stream was left to the log.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        log: EventLog,
        gate: Gate,
        topic_map: TopicMap,
        options: HttpOptions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hub = hub
        self._log = log
        self._gate = gate
        self._topic_map = topic_map
        self._options = options
        self._clock = clock
        self._streams: RoomIndex[Stream] = RoomIndex()
        self._stopping = False
        self._beating: asyncio.Task[None] | None = None
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self.delivered = 0
        self.caught_up = 0
        self.dropped = 0
        self.fell_behind = 0

    @property
    def open_streams(self) -> int:
        """Streams open now."""
        return len(self._streams)

    def deliver(self, record: Record) -> None:
        """See `Fanout`."""
        streams = self._streams.hearing(record.event.rooms)
        if not streams or self._expired(record):
            return
        for stream in streams:
            was_live = stream.cursor.live
            if stream.offer(record):
                self.delivered += 1
            elif not record.offset:
                self.dropped += 1
            elif was_live and not stream.cursor.live:
                self.fell_behind += 1

    def start(self) -> None:
        """Begin the heartbeat."""
        self._beating = asyncio.create_task(self._beat(), name="sse-heartbeat")

    async def stop(self) -> None:
        """End every stream: at once, or after a second where the client does not read."""
        self._stopping = True
        if self._beating is not None:
            self._beating.cancel()
        for stream in self._streams.readers:
            stream.close()
        try:
            async with asyncio.timeout(_STOP_GRACE):
                await self._all_ended.wait()
        except TimeoutError:
            stuck = [stream.task for stream in self._streams.readers if stream.task is not None]
            logger.info("cutting %d streams whose clients do not read", len(stuck))
            for task in stuck:
                task.cancel()
            if stuck:
                await asyncio.wait(stuck)

    async def stream(self, request: Request) -> None:
        """Handle `GET /api/stream`."""
        identity = await request.identify(self._gate, token_in_query=True)
        options = self._options
        rooms = request.rooms(self._topic_map, self._gate, identity, maximum=options.max_rooms)
        if not rooms:
            raise InvalidRequest("the query names no rooms", hint="such as ?rooms=lead:123,org:global")
        named = request.flag("named")
        # An EventSource that reconnects sends both: the URL it was made with, and what it has.
        after = request.header(b"last-event-id") or request.value("after")
        cursor = cursor_from(request.after(after), hub=self._hub, log=self._log)
        if self._stopping or self.open_streams >= options.max_streams:
            raise Overloaded("too many streams are open", hint="connect again after a moment")
        stream = Stream(cursor, named=named, room=options.stream_bytes)
        self._streams.add(stream, rooms)
        self._all_ended.clear()
        watch = request.watch(stream.close)
        try:
            await self._run(request, stream, Selector(rooms=rooms))
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            # `stop` cut a stream whose socket is full; the server closes the connection.
        finally:
            watch.cancel()
            self._streams.remove(stream, rooms)
            if not self._streams:
                self._all_ended.set()

    async def _run(self, request: Request, stream: Stream, selector: Selector) -> None:
        cursor = stream.cursor
        start = self._hub.position(cursor.position)
        head = [f": gapless\nretry: {int(self._options.stream_retry * 1000)}\n\n".encode()]
        if cursor.complete:
            head.append(control_event("gapless.position", start))
        else:
            head.append(self._incomplete(cursor))
        cursor.join(self._hub.head)
        await request.start(200, HEADERS)
        await request.write(b"".join(head))
        while not stream.closing:
            stream.idle = False
            if text := stream.take():
                await request.write(text)
            elif not cursor.live:
                await self._catch_up(request, stream, selector)
            else:
                await stream.wait()
        await request.write(stream.take(), more=False)

    async def _catch_up(self, request: Request, stream: Stream, selector: Selector) -> None:
        """Write one piece of history, and turn live where it was the last one."""
        cursor = stream.cursor
        if cursor.join(self._hub.head):
            return
        page = self._hub.page_now(selector, cursor.position, limit=_PAGE)
        if page is None:
            page = await self._hub.page(selector, cursor.position, limit=_PAGE)
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
        cursor.complete = True  # what is missing has been told
        cursor.join(self._hub.head)
        if parts:
            await request.write(b"".join(parts))

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
        for stream in self._streams.readers:
            stream.beat(head, position)

    def _expired(self, record: Record) -> bool:
        expires = record.event.expires
        return expires is not None and expires <= self._clock() * 1000
