"""Hearing and publishing events over MQTT 5, with the stock paho-mqtt client."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, Self

import msgspec
from paho.mqtt.client import MQTTMessage
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gapless.client.description import describe_gateway
from gapless.client.model import (
    Alive,
    ClientEvent,
    ConnectionLost,
    Heard,
    Hole,
    Outgoing,
    Published,
    Refused,
    Subscribed,
    Target,
)
from gapless.client.paho_loop import PUBLISH, SUBSCRIBE, PahoSession, properties_for, user_properties
from gapless.envelope import read_received
from gapless.errors import InvalidRequest

_QUEUE_LIMIT = 1000
_WINDOW = 256
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class MqttConnection:
    """An MQTT server: the gateway's edge, or any broker.

    On the edge it resumes with the user property `gapless-start`; a foreign broker has no
    positions, and what it publishes while the connection is away is not heard: where a gateway's
    link publishes to it, use `BrokerConnection`. A slow caller stops the reading of the socket.

    Args:
        target: with a gateway's `http(s)` URL, its edge is taken over WebSocket, and rooms
            are turned into filters by asking `/api/connect`.
        retained: whether the first connection asks for retained messages.
        resume: whether to use positions. False makes it any stock client, and so does QoS 2: as it
            hands a message over at its PUBREL, stock clients hand over later QoS 1 messages before
            it, and a cursor would pass it by.
    """

    heartbeat = 30.0
    """Seconds of the keep-alive: paho pings after as long, and the answer is a sign of life."""

    def __init__(
        self, target: Target, *, retained: bool = True, resume: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self._session: PahoSession | None = None
        self._target = target
        self._retained = retained
        self._resume = resume and target.qos < 2
        self._tls = tls

    async def listen(self, after: str | None) -> AsyncGenerator[Heard, None]:
        """See `Connection.listen`."""
        url, filters, start = await self._resolve(after)
        arrived: deque[MQTTMessage] = deque()
        news = asyncio.Event()

        def take(message: MQTTMessage) -> None:
            arrived.append(message)
            news.set()
            if len(arrived) >= _QUEUE_LIMIT:
                session.pause()

        session = PahoSession(
            url, token=self._target.token, on_message=take, on_read=news.set, tls=self._tls or self._target.tls
        )
        self._session = session
        session.lost.add_done_callback(lambda _: news.set())
        try:
            await session.connect()
            found = await self._subscribe(session, filters, start, first=after is None)
            yield Subscribed(start or found.get("gapless-position"))
            if "gapless-incomplete" in found:
                yield Hole()
            while True:
                if not arrived:
                    yield Alive()
                while arrived:
                    for signal in signals_of(arrived.popleft(), positions=self._resume):
                        yield signal
                session.resume()
                if session.lost.done():
                    raise session.loss()
                news.clear()
                await news.wait()
        finally:
            await session.close()

    # --- while it is listened to

    async def join(self, filters: Iterable[str]) -> None:
        """Hear further filters, from now on."""
        if self._session is None:
            raise ConnectionLost("it is not connected")
        options = SubscribeOptions(qos=self._target.qos, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        await self._session.subscribe([(each, options) for each in filters], properties_for(SUBSCRIBE))

    async def leave(self, filters: Iterable[str]) -> None:
        """Hear these no more."""
        if self._session is None:
            raise ConnectionLost("it is not connected")
        await self._session.unsubscribe(list(filters))

    async def ping(self) -> None:
        """Wait for an answer of the server: to UNSUBSCRIBE from nothing, as paho offers no PINGREQ to its user."""
        await self.leave(["gapless/ping"])

    async def _subscribe(
        self, session: PahoSession, filters: Sequence[str], start: str | None, *, first: bool
    ) -> dict[str, str]:
        if not filters:
            return {}
        handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
        if not (first and self._retained):  # they came at the first subscription, or are in the history
            handling = SubscribeOptions.RETAIN_DO_NOT_SEND
        options = SubscribeOptions(qos=self._target.qos, retainHandling=handling)
        user = {"gapless_start": start} if start is not None else {}
        return await session.subscribe([(each, options) for each in filters], properties_for(SUBSCRIBE, **user))

    async def _resolve(self, after: str | None) -> tuple[str, tuple[str, ...], str | None]:
        """The MQTT URL, the filters, and where to begin."""
        target = self._target
        filters = target.filters
        if not target.url.startswith("http"):
            if target.rooms:
                raise Refused(
                    f"{target.url} is an MQTT server, which knows no rooms",
                    hint="name MQTT filters, or give the gateway's http:// URL",
                )
            return target.url, filters, after if self._resume else None
        start = after
        if target.rooms or (after is None and self._resume):
            about = await describe_gateway(target)
            if self._resume:
                start = after or about.position
            filters = tuple(dict.fromkeys((*filters, *about.filters)))
            if not filters:
                raise Refused("no topic filter selects these rooms", hint="use another transport for them")
        return mqtt_url(target.url), filters, start


def mqtt_url(url: str) -> str:
    """The MQTT edge of a gateway, given its `http(s)` URL: WebSocket on the same port."""
    if not url.startswith("http"):
        return url
    return "ws" + url.removeprefix("http").rstrip("/") + "/mqtt"


def signals_of(message: MQTTMessage, *, positions: bool = True) -> list[Hole | ClientEvent]:
    """What a PUBLISH says: an event, after a hole where the gateway reports one."""
    said = user_properties(message.properties)
    event = event_of(message)
    if not positions:
        event = msgspec.structs.replace(event, position=None)
    # The property names the position at which the hole begins; where it ends, this event says.
    return [Hole(), event] if said.get("gapless-incomplete") else [event]


def event_of(message: MQTTMessage) -> ClientEvent:
    """The event that a PUBLISH is: the gateway's envelope, or what its payload and user properties say."""
    said = user_properties(message.properties)
    payload = bytes(message.payload)
    document = _json_object(payload)
    if document is not None and document.get("position") is not None and document.get("topic") == message.topic:
        event = ClientEvent.from_envelope(document, retained=message.retain)  # the gateway's own envelope
        if "id" in said:  # or one that another client published: the position is the one that the gateway adds
            event = msgspec.structs.replace(event, position=said.get("position") or None)
        return event
    envelope = read_received(payload)
    return ClientEvent(
        id=said.get("id", envelope.id),
        type=said.get("type", envelope.type or "message"),
        topic=message.topic,
        data=envelope.data if envelope.binary else envelope.decoded,
        time=said.get("time"),
        user_id=envelope.user_id,
        position=said.get("position") or None,
        retained=message.retain,
    )


def _json_object(payload: bytes) -> dict[str, Any] | None:
    try:
        document = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


class MqttPublisher:
    """PUBLISH at QoS 0, 1 or 2, in order, in a window that the server allows.

    The event's id travels as the user property `id`, the data as payload.
    """

    def __init__(self, url: str, token: str | None = None, *, qos: int = 1, tls: ssl.SSLContext | None = None) -> None:
        self._url = mqtt_url(url)
        self._token = token
        self._qos = qos
        self._tls = tls
        self._session: PahoSession | None = None

    async def __aenter__(self) -> Self:
        self._session = PahoSession(self._url, token=self._token, tls=self._tls)
        try:
            await self._session.connect()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def publish(self, events: Sequence[Outgoing]) -> list[Published]:
        """See `Publisher.publish`; at QoS 0 it returns once they are sent."""
        session = self._session
        assert session is not None, "use it as a context manager"
        waiting: deque[tuple[asyncio.Future[ReasonCode], Outgoing]] = deque()
        for event in events:
            while len(waiting) >= min(_WINDOW, session.receive_maximum):
                await self._acknowledged(session, *waiting.popleft())
            sent = self._send(session, event)
            if sent is not None:
                waiting.append((sent, event))
        while waiting:
            await self._acknowledged(session, *waiting.popleft())
        return [Published(id=event.id, topic=event.topic) for event in events]

    def _send(self, session: PahoSession, event: Outgoing) -> asyncio.Future[ReasonCode] | None:
        if event.topic is None:
            raise InvalidRequest(
                "an MQTT publish needs a topic", hint="name --topic; a type is turned into one by REST"
            )
        qos = self._qos if event.qos is None else event.qos
        properties = properties_for(PUBLISH, id=event.id)
        payload = event.data if isinstance(event.data, bytes) else _encode(event.data)
        return session.send(event.topic, payload, qos=qos, retain=bool(event.retain), properties=properties)

    @staticmethod
    async def _acknowledged(session: PahoSession, sent: asyncio.Future[ReasonCode], event: Outgoing) -> None:
        code = await session.acknowledged(sent)
        if code.value >= 0x80:
            raise Refused(f"{session.where} refused the event for {event.topic!r}: {code}", reason_code=code.value)
