"""History for clients of the broker: a request to one topic, the answer to one that the client names.

A device that can reach nothing but the broker completes with it what the broker dropped. Each
request has one answer, bounded in events and bytes, with the position to go on from; the client
asks again until `more` is false, and asks once more where no answer comes. Requests and answers
are no events: they are not in the log, and nobody else is sent them.
"""

from __future__ import annotations

import asyncio
import time as _time
from collections import deque
from collections.abc import Callable

import msgspec

from gapless.auth import Credentials, Gate, Identity
from gapless.delivery import Cursor
from gapless.envelope import envelope_json
from gapless.errors import GaplessError, InvalidPayload, InvalidRequest, InvalidTopic, NotDecided, PayloadTooLarge
from gapless.event import Position, Record
from gapless.eventlog import EventLog, Selector
from gapless.hub import Hub
from gapless.link.connection import Connection
from gapless.link.options import LinkOptions
from gapless.link.stats import LinkStats
from gapless.mqtt import Properties, ProtocolVersion, Publish, encode, matches, validate_filter, validate_topic
from gapless.topicmap import TopicMap

START = "start"
MOST_EVENTS = 1000
_EVENTS = 200  # of an answer, where the request names no limit
_ANSWER_BYTES = 128 * 1024
_HEAD_BYTES = 4096  # of an answer beside its events
_REQUEST_BYTES = 64 * 1024
_MOST_ROOMS = 256
_MOST_PAGES = 50  # looked through for one answer, where there is little to find
_MOST_WAITING = 1000  # requests


class HistoryRequest(msgspec.Struct, rename="camel"):
    """What a client asks for, as JSON.

    Attributes:
        rooms: rooms to read.
        topics: MQTT topic filters to read.
        after: the position after which to read; `start` for the oldest kept; absent: the
            answer is empty and tells the position now.
        limit: most events of the answer.
        id: comes back in the answer.
        reply_to: the topic of the answer, where there is no Response Topic (3.1.1).
        token: what the gateway's gate asks for.
    """

    rooms: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    after: str | None = None
    limit: int | None = None
    id: str | int | None = None
    reply_to: str | None = None
    token: str | None = None


_decode_request = msgspec.json.Decoder(HistoryRequest).decode


class HistoryAnswer(msgspec.Struct):
    """What is answered, as JSON, or `{"id", "error": {"code", "message", …}}`.

    Attributes:
        position: everything up to it that was asked for is here, or was before: ask on from it.
        complete: False where events are no longer in the log, or too large for this broker.
        more: whether to ask again, from `position`, at once.
        events: envelopes, each with the event's `rooms`.
        id: the request's.
    """

    position: str
    complete: bool
    more: bool
    events: list[msgspec.Raw]
    id: str | int | None = None


class History:
    """Answers requests over one connection after another, one at a time.

    Args:
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        *,
        options: LinkOptions,
        hub: Hub,
        log: EventLog,
        gate: Gate,
        topic_map: TopicMap,
        stats: LinkStats,
        clock: Callable[[], float] = _time.time,
    ) -> None:
        self._options = options
        self._hub = hub
        self._log = log
        self._gate = gate
        self._topic_map = topic_map
        self._stats = stats
        self._clock = clock
        self._waiting: deque[Publish] = deque()
        self._news = asyncio.Event()

    def take(self, packet: Publish) -> None:
        """A message on the request topic. Past the bound the oldest request is left unanswered."""
        self._stats.history_requests += 1
        self._waiting.append(packet)
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self._stats.history_dropped += 1
        self._news.set()

    def wake(self) -> None:
        """The connection takes data again."""
        self._news.set()

    async def run(self, connection: Connection) -> None:
        """Answer over this connection, until cancelled."""
        clock = asyncio.get_running_loop().time
        due = clock() - 1.0
        try:
            while True:
                while not (self._waiting and connection.writable):
                    self._news.clear()
                    await self._news.wait()
                due = max(due + 1 / self._options.history_rate, clock() - 1.0)  # a second's worth may come at once
                await asyncio.sleep(max(0.0, due - clock()))
                await self._answer(connection, self._waiting.popleft())
        finally:
            self._waiting.clear()  # those who asked over this connection ask again

    async def _answer(self, connection: Connection, packet: Publish) -> None:
        properties = packet.properties or Properties()
        request: HistoryRequest | GaplessError
        try:
            request = _decode(packet.payload)
            reply_to, request_id = request.reply_to, request.id
        except GaplessError as error:
            request, reply_to, request_id = error, None, None
        topic = self._reply_topic(properties.response_topic or reply_to)
        if topic is None:
            self._stats.history_dropped += 1
            return
        try:
            if isinstance(request, GaplessError):
                raise request
            answer: object = await self._find(request, connection.properties.maximum_packet_size)
        except GaplessError as error:
            self._stats.history_refused += 1
            answer = {"id": request_id, "error": error.to_wire()}
        body = msgspec.json.encode(answer)
        data = encode(self._reply(topic, body, properties.correlation_data, connection.version), connection.version)
        largest = connection.properties.maximum_packet_size
        if largest is not None and len(data) > largest:  # a long topic, id or correlation
            self._stats.history_dropped += 1
        else:
            connection.write(data)

    def _reply_topic(self, topic: str | None) -> str | None:
        """The topic, where an answer may go there: a request must not make us publish anywhere else."""
        try:
            validate_topic(topic or "")
        except InvalidTopic:
            return None
        assert topic is not None
        return topic if matches(self._options.history_replies, topic) else None

    @staticmethod
    def _reply(topic: str, body: bytes, correlation: bytes | None, version: ProtocolVersion) -> Publish:
        if version is not ProtocolVersion.V5:
            return Publish(topic, body)
        properties = Properties(
            payload_format_indicator=1, content_type="application/json", correlation_data=correlation
        )
        return Publish(topic, body, properties=properties)

    async def _find(self, request: HistoryRequest, largest: int | None) -> HistoryAnswer:
        """The answer; `largest` is the broker's bound of a packet, in bytes.

        Raises:
            InvalidRequest, Unauthorized, Forbidden, LogUnavailable: see the code.
        """
        selector = await self._admit(request)
        largest = None if largest is None else largest - _HEAD_BYTES
        batch = _Batch(
            limit=min(request.limit or _EVENTS, MOST_EVENTS), most_bytes=min(_ANSWER_BYTES, largest or _ANSWER_BYTES)
        )
        cursor = self._cursor(request.after)
        end = self._hub.head
        for _ in range(_MOST_PAGES):
            if cursor.position >= end or batch.full:
                break
            page = self._hub.page_now(selector, cursor.position, limit=batch.limit)
            if page is None:
                page = await self._hub.page(selector, cursor.position, limit=batch.limit)
            for record in cursor.take(page):
                if self._is_expired(record):
                    continue
                event = _with_rooms(record)
                if largest is not None and len(event) > largest:
                    cursor.complete = False
                elif not batch.add(event):
                    cursor.position = record.offset - 1
                    break
        self._stats.history_events += len(batch.events)
        more = cursor.position < end
        position = self._hub.position(cursor.position)
        return HistoryAnswer(position, cursor.complete, more, batch.events, request.id)

    async def _admit(self, request: HistoryRequest) -> Selector:
        credentials = Credentials(token=request.token, door="link")
        identity = await self._gate.authenticate(credentials)
        if not 0 < len(request.rooms) + len(request.topics) <= _MOST_ROOMS:
            raise InvalidRequest(f"name 1 to {_MOST_ROOMS} rooms or topics", hint='such as {"rooms": ["lead:123"]}')
        if request.limit is not None and request.limit < 1:
            raise InvalidRequest(f"limit is {request.limit}", hint="use a whole number from 1 on")
        for pattern in request.topics:
            validate_filter(pattern)
        try:
            self._check(identity, request)
        except NotDecided:
            await self._gate.prepare(identity, rooms=request.rooms, filters=request.topics)
            identity = await self._gate.authenticate(credentials)  # it may have ended meanwhile
            self._check(identity, request)
        return Selector(rooms=frozenset(request.rooms), filters=request.topics)

    def _check(self, identity: Identity, request: HistoryRequest) -> None:
        for room in request.rooms:
            self._topic_map.check_room(room)
            self._gate.check_subscribe_room(identity, room)
        for pattern in request.topics:
            self._gate.check_subscribe_filter(identity, pattern)

    def _cursor(self, after: str | None) -> Cursor:
        if after == START:
            return Cursor(self._log.oldest - 1)
        cursor = self._hub.cursor_at(None if after is None else Position.parse(after))
        if not cursor.complete:
            cursor.position = max(cursor.position, self._log.oldest - 1)
        return cursor

    def _is_expired(self, record: Record) -> bool:
        expires = record.event.expires
        return expires is not None and expires <= self._clock() * 1000


class _Batch:
    """The events of one answer; one at least, however large."""

    def __init__(self, *, limit: int, most_bytes: int) -> None:
        self.events: list[msgspec.Raw] = []
        self.limit = limit
        self.full = False
        self._left = most_bytes

    def add(self, event: bytes) -> bool:
        """Take an event; False, and `full`, where there is no room for it."""
        if self.full or (self.events and len(event) > self._left):
            self.full = True
            return False
        self._left -= len(event) + 1
        self.events.append(msgspec.Raw(event))
        self.full = len(self.events) == self.limit
        return True


def _decode(payload: bytes) -> HistoryRequest:
    if len(payload) > _REQUEST_BYTES:
        raise PayloadTooLarge(
            "the request is too large", hint="name fewer rooms", size=len(payload), limit=_REQUEST_BYTES
        )
    try:
        return _decode_request(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPayload(f"the request is not of its form: {error}", hint="see docs/wire-formats.md") from error


def _with_rooms(record: Record) -> bytes:
    """The envelope and the event's rooms, by which a client knows what it had before."""
    return b'%b,"rooms":%b}' % (envelope_json(record)[:-1], msgspec.json.encode(record.event.rooms))
