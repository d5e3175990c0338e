"""Hearing a gateway's events through an external MQTT broker, whole although the broker drops."""

from __future__ import annotations

import asyncio
import logging
import ssl
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import msgspec
from paho.mqtt.client import MQTTMessage
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gapless.client.gaps import Answer, Ask, Gaps, Live, Output, Past
from gapless.client.model import ClientEvent, ConnectionLost, Heard, Moved, Refused, Subscribed, Target
from gapless.client.mqtt import event_of
from gapless.client.paho_loop import PUBLISH, PahoSession, properties_for
from gapless.envelope import content_id, read_received
from gapless.errors import InvalidPosition
from gapless.event import Position

logger = logging.getLogger("gapless.client")

_QUEUE_LIMIT = 1000
_PREVIOUS = "gapless-previous"


class BrokerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the gateway's link is set up on this broker; see `LinkOptions`.

    Attributes:
        history_topic, heartbeat_topic: the link's; without a heartbeat (None: it may not be heard) what the broker
            dropped is noticed with the next message of a room.
        replies: a topic of the link's `history_replies`; one level is added for each connection.
        token: what the gateway's gate asks for; the broker sees it.
        client_id: for a broker that lets an account in under this one alone; user and password are in the target's URL.
        patience: seconds to wait for an answer before asking again.
    """

    history_topic: str = "gapless/history"
    heartbeat_topic: str | None = "gapless/heartbeat"
    replies: str = "gapless/replies"
    token: str | None = None
    client_id: str = ""
    patience: float = 5.0


class _Error(msgspec.Struct):
    code: str
    message: str
    retryable: bool = False


class _Reply(msgspec.Struct):
    """The link's `HistoryAnswer`."""

    position: str = ""
    complete: bool = True
    more: bool = False
    events: list[dict[str, Any]] = []
    error: _Error | None = None


class _Beat(msgspec.Struct):
    """The link's `Heartbeat`."""

    position: str
    since: str
    rooms: dict[str, int]


_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_beat = msgspec.json.Decoder(_Beat).decode


class BrokerConnection:
    """An external broker that a gateway's link publishes to, over MQTT 5.

    What the broker dropped is noticed for the target's rooms, asked for over the broker, and
    handed out in its place; with filters alone, only what was missed while the client was away.
    The state outlives a connection: use one object for as long as the subscription lasts.

    Args:
        target: the broker, the rooms to keep whole, and the filters under which they are heard.
    """

    def __init__(
        self, target: Target, options: BrokerOptions | None = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        if not target.filters:
            raise Refused("no topic filters", hint="name those under which the broker publishes the rooms' events")
        self._target = target
        self._options = options or BrokerOptions()
        self._tls = tls
        self._gaps: Gaps | None = None
        self._outputs: deque[Output] = deque()  # to be handed out

    async def listen(self, after: str | None) -> AsyncGenerator[Heard, None]:
        """See `Connection.listen`. Events come with `ordered` False; `Moved` tells the position to resume from."""
        first = self._gaps is None
        if self._gaps is None:
            self._gaps = Gaps(self._target.rooms, after=None if after is None else Position.parse(after))
        gaps, outputs = self._gaps, self._outputs
        gaps.reconnected()
        life = _Life(self._target, self._options, gaps, tls=self._tls)
        try:
            await life.open(retained=first)
            yield Subscribed(after)
            moved = None
            while True:
                while outputs:
                    yield outputs[0]
                    outputs.popleft()  # it was taken
                if gaps.position != moved:
                    moved = gaps.position
                    if moved is not None:
                        yield Moved(str(moved))
                outputs.extend(await life.next())
        finally:
            await life.close()


class _Life:
    """One connection."""

    def __init__(self, target: Target, options: BrokerOptions, gaps: Gaps, *, tls: ssl.SSLContext | None) -> None:
        self._target = target
        self._options = options
        self._gaps = gaps
        self._replies = f"{options.replies}/{uuid.uuid4().hex}"
        self._arrived: deque[MQTTMessage] = deque()
        self._news = asyncio.Event()
        self._asked: bytes | None = None
        self._taken: asyncio.Future[ReasonCode] | None = None
        self._due = 0.0
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self.session = PahoSession(
            target.url,
            token=target.token,
            client_id=options.client_id,
            on_message=self._take,
            tls=tls or target.tls,
        )
        self.session.lost.add_done_callback(lambda _: self._news.set())

    async def open(self, *, retained: bool) -> None:
        """Connect and subscribe; `retained` says whether to ask for retained messages."""
        await self.session.connect()
        handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if retained else SubscribeOptions.RETAIN_DO_NOT_SEND
        events = SubscribeOptions(qos=self._target.qos, retainHandling=handling)
        own = SubscribeOptions(qos=0)
        filters = [(each, events) for each in self._target.filters]
        filters += [(each, own) for each in (self._options.heartbeat_topic, self._replies) if each is not None]
        await self.session.subscribe(filters, None)

    async def close(self) -> None:
        """Close the connection."""
        await self.session.close()

    def _take(self, message: MQTTMessage) -> None:
        self._arrived.append(message)
        self._news.set()
        if len(self._arrived) >= _QUEUE_LIMIT:
            self.session.pause()

    async def next(self) -> Sequence[Output]:
        """What is to be handed out next; waits until something has come, or is to be asked.

        Raises:
            ConnectionLost: the connection ended.
            Refused: the gateway does not give history.
        """
        self._ask()
        if not self._arrived:
            self.session.resume()
            if self.session.lost.done():
                raise ConnectionLost(f"{self.session.where}: {self.session.lost.result()}")
            self._news.clear()
            try:
                async with asyncio.timeout_at(self._due if self._asked is not None else None):
                    await self._news.wait()
            except TimeoutError:
                logger.warning("%s: the gateway does not answer on %s", self.session.where, self._options.history_topic)
                self._asked = None  # ask again
            return ()
        message = self._arrived.popleft()
        try:
            if message.topic == self._replies:
                return self._on_reply(message)
            if message.topic == self._options.heartbeat_topic:
                return self._on_heartbeat(message)
        except (msgspec.DecodeError, InvalidPosition) as error:  # anybody may publish there: no reason to stop
            logger.warning("%s: not a gateway's message on %s: %s", self.session.where, message.topic, error)
            return ()
        return self._on_event(message)

    def _on_heartbeat(self, message: MQTTMessage) -> Sequence[Output]:
        beat = _decode_beat(message.payload)
        self._gaps.heartbeat(Position.parse(beat.position), Position.parse(beat.since), beat.rooms)
        return ()

    def _ask(self) -> None:
        if self._taken is not None and self._taken.done() and self._taken.result().value >= 0x80:
            raise Refused(f"{self.session.where} refused a request for history: {self._taken.result()}")
        if self._asked is not None or (ask := self._gaps.ask()) is None:
            return
        self._asked = uuid.uuid4().bytes
        self._due = self._now() + self._options.patience
        properties = properties_for(PUBLISH)
        properties.ResponseTopic = self._replies
        properties.CorrelationData = self._asked
        properties.MessageExpiryInterval = max(1, int(self._options.patience))
        self._taken = self.session.send(
            self._options.history_topic, self._request(ask), qos=1, retain=False, properties=properties
        )

    def _request(self, ask: Ask) -> bytes:
        request: dict[str, Any] = {"rooms": ask.rooms} if ask.rooms else {"topics": self._target.filters}
        if ask.after is not None:
            request["after"] = str(ask.after)
        if self._options.token is not None:
            request["token"] = self._options.token
        return msgspec.json.encode(request)

    def _on_reply(self, message: MQTTMessage) -> Sequence[Output]:
        if self._asked is None or getattr(message.properties, "CorrelationData", None) != self._asked:
            return ()  # came after we asked again
        reply = _decode_reply(message.payload)
        if reply.error is not None:
            return self._on_error(reply.error)
        self._asked = None
        events = [Past(*_past_of(each)) for each in reply.events]
        return self._gaps.answer(Answer(Position.parse(reply.position), reply.complete, reply.more, events))

    def _on_error(self, error: _Error) -> Sequence[Output]:
        if error.retryable:
            return ()  # asked again when the answer is overdue
        self._asked = None
        if error.code == InvalidPosition.code:
            return self._gaps.begin_anew()
        raise Refused(f"the gateway gives no history: {error.message}", code=error.code)

    def _on_event(self, message: MQTTMessage) -> Sequence[Output]:
        event = event_of(message)
        if event.id is None:
            event = msgspec.structs.replace(event, id=_id_of(message))
        event = msgspec.structs.replace(event, ordered=False)
        position = _parse(event.position)
        if message.retain:
            return [event]
        if position is None:
            return self._gaps.foreign(event)
        pairs: list[tuple[str, str]] = getattr(message.properties, "UserProperty", None) or []
        previous: dict[str, int] = {}
        for name, value in pairs:
            before, _, room = value.partition(" ")
            if name == _PREVIOUS and (parsed := _parse(before)) is not None and parsed.epoch == position.epoch:
                previous[room] = parsed.offset
        return self._gaps.live(Live(event, position, previous))


def _past_of(envelope: dict[str, Any]) -> tuple[ClientEvent, int, Sequence[str]]:
    rooms = envelope.pop("rooms")
    event = msgspec.structs.replace(ClientEvent.from_envelope(envelope), ordered=False)
    return event, Position.parse(envelope["position"]).offset, rooms


def _parse(text: str | None) -> Position | None:
    try:
        return None if text is None else Position.parse(text)
    except InvalidPosition:
        return None  # a foreign publisher's idea of a position


def _id_of(message: MQTTMessage) -> str | None:
    """The id that the gateway gives a message with a time and without an id (docs/decisions/0004-event-ids.md)."""
    payload = bytes(message.payload)
    return content_id(message.topic, payload) if read_received(payload).time is not None else None
