"""`GET /api/connect`: what a client needs to connect, whichever way is open to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec

from gapless.auth import Gate, Identity
from gapless.brokers.offer import BrokerDesk
from gapless.errors import Forbidden, InvalidRequest, InvalidTopic, Overloaded, UnknownRoom
from gapless.event import format_time
from gapless.hub import Hub
from gapless.mqtt.rooms import room_filter
from gapless.topicmap import TopicMap
from gapless.transports.http.endpoint import encode
from gapless.transports.http.options import HttpOptions
from gapless.transports.http.request import Request

_DEVICE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """The other transports of this gateway; None where one is not on offer.

    Attributes:
        socketio_path: path of Engine.IO on the HTTP port.
        mqtt_path: path of MQTT over WebSocket on the HTTP port.
        mqtt_port: TCP port of the MQTT edge.
        mqtts_port: its TLS port.
    """

    socketio_path: str | None = "/socket.io/"
    mqtt_path: str | None = "/mqtt"
    mqtt_port: int | None = None
    mqtts_port: int | None = None

    @property
    def mqtt(self) -> bool:
        """Whether the MQTT edge can be reached."""
        return bool(self.mqtt_path or self.mqtt_port or self.mqtts_port)


class Transport(msgspec.Struct, frozen=True):
    """One way to connect: its name (`socketio`, `mqtt`, `mqtt-websocket`, `sse`, `poll`) and its URL."""

    name: str
    url: str


class Source(msgspec.Struct, frozen=True):
    """Where a room's events come from: topics of a pattern, where the template gives the room's name.

    The template is filled with the topic's captures and, as `{data.name}`, with fields of the data.
    """

    pattern: str
    room: str


class RoomDescription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A room, and how its events are heard.

    Attributes:
        room_filter: the one filter that brings all of them, once, at the gateway's own MQTT server; None where
            that is not on offer.
        filters: MQTT topic filters that bring them, at an external broker too.
        mqtt: whether the topic filters bring all of them. None selects by payload, so events that are in the
            room for their data come by `room_filter` alone.
        match: how to know that an event is in the room; none for a room `topic:…`.
        error: why this room cannot be heard; the rest is empty then.
    """

    room: str
    room_filter: str | None = None
    filters: list[str] = msgspec.field(default_factory=list)
    mqtt: bool | None = None
    match: list[Source] = msgspec.field(default_factory=list)
    error: dict[str, Any] | None = None


class MqttCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """What to send in CONNECT.

    Attributes:
        username, password: None for none.
        client_id: to be used as it is; None leaves it to the client.
        expires: RFC 3339; None where they have no end of their own.
    """

    username: str | None = None
    password: str | None = None
    client_id: str | None = None
    expires: str | None = None


class BrokerAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The external broker.

    Attributes:
        urls: in the order in which to try them.
        credentials: short-lived, where they were asked for (`broker=1`) and there are some for this client.
        filters: which of the rooms' filters may be subscribed to with them.
        history_topic: where to ask for what the broker dropped; `replies`: answers may come to topics below it.
        heartbeat_topic: where the link tells the last positions of rooms, if it may be heard.
        error: why there are no credentials now.
    """

    urls: list[str]
    credentials: MqttCredentials | None = None
    filters: list[str] = msgspec.field(default_factory=list)
    history_topic: str | None = None
    replies: str | None = None
    heartbeat_topic: str | None = None
    error: dict[str, Any] | None = None


class KeepAlive(msgspec.Struct, frozen=True):
    """How long each connection may be silent, in seconds."""

    mqtt_seconds: int
    sse_heartbeat_seconds: float
    poll_max_wait_seconds: float


class ConnectAnswer(msgspec.Struct, frozen=True):
    """The answer of `/api/connect`. `transports` is in the order in which to try them."""

    epoch: str
    position: str
    transports: list[Transport]
    rooms: list[RoomDescription]
    keepalive: KeepAlive
    mqtt: MqttCredentials
    broker: BrokerAnswer | None = None


class ConnectDoor:
    """Answers `/api/connect`."""

    def __init__(
        self,
        *,
        hub: Hub,
        gate: Gate,
        topic_map: TopicMap,
        options: HttpOptions,
        offers: Callable[[], Offers],
        broker: BrokerDesk | None = None,
    ) -> None:
        self._hub = hub
        self._gate = gate
        self._topic_map = topic_map
        self._options = options
        self._offers = offers
        self._broker = broker

    async def connect(self, request: Request) -> None:
        """Handle `GET /api/connect`."""
        identity = await request.identify(self._gate, door="connect")
        options = self._options
        rooms, refused = await self._rooms(request, identity)
        described = [*map(self._describe, rooms), *refused]
        device = _device(request)
        answer = ConnectAnswer(
            epoch=self._hub.epoch,
            position=self._hub.position(),
            transports=self._transports(self._base(request), rooms),
            rooms=described,
            keepalive=KeepAlive(options.mqtt_keepalive, options.stream_heartbeat, options.poll_max_wait),
            mqtt=MqttCredentials(
                username=identity.user_id, password=request.token(), client_id=device, expires=_time(identity.expires)
            ),
            broker=await self._broker_for(request, identity, device, described),
        )
        await request.answer(200, encode(answer))

    async def _broker_for(
        self, request: Request, identity: Identity, device: str | None, rooms: list[RoomDescription]
    ) -> BrokerAnswer | None:
        """The external broker, with credentials where the client wants them: they may cost the broker something."""
        if self._broker is None or not self._broker.urls:
            return None
        urls = list(self._broker.urls)
        if not request.flag("broker"):
            return BrokerAnswer(urls=urls)
        filters = dict.fromkeys(each for room in rooms for each in room.filters)
        heard = [each for each in filters if self._may_hear(identity, each)]
        try:
            offer = await self._broker.offer(identity, token=request.token(), device=device, filters=heard)
        except Overloaded as error:
            return BrokerAnswer(urls=urls, error=error.to_wire())
        if offer is None:
            nobody = Forbidden("there are no credentials for you", hint="come with the token of a user")
            return BrokerAnswer(urls=urls, error=nobody.to_wire())
        return BrokerAnswer(
            urls=urls,
            credentials=MqttCredentials(
                username=offer.username,
                password=offer.password,
                client_id=offer.client_id,
                expires=_time(offer.expires),
            ),
            filters=list(offer.filters),
            history_topic=offer.history_topic,
            replies=offer.replies,
            heartbeat_topic=offer.heartbeat_topic,
        )

    def _may_hear(self, identity: Identity, topic_filter: str) -> bool:
        try:
            self._gate.check_subscribe_filter(identity, topic_filter)
        except Forbidden:
            return False
        return True

    async def _rooms(self, request: Request, identity: Identity) -> tuple[list[str], list[RoomDescription]]:
        """The rooms that may be heard, and (with `partial`) those that may not, each with its error."""
        maximum = self._options.max_rooms
        if not request.flag("partial"):
            return sorted(await request.rooms(self._topic_map, self._gate, identity, maximum=maximum)), []
        names = request.room_names(maximum=maximum)
        await self._gate.prepare(identity, rooms=names)
        await request.identify_again()
        allowed, refused = [], []
        for room in sorted(names):
            try:
                self._topic_map.check_room(room)
                self._gate.check_subscribe_room(identity, room)
            except (UnknownRoom, InvalidTopic, Forbidden) as error:
                refused.append(RoomDescription(room=room, error=error.to_wire()))
            else:
                allowed.append(room)
        return allowed, refused

    def _describe(self, room: str) -> RoomDescription:
        sources = self._topic_map.sources_of(room)
        return RoomDescription(
            room=room,
            room_filter=room_filter(room) if self._offers().mqtt else None,
            filters=self._topic_map.filters_for(room),
            mqtt=not any("{data." in template for _, template in sources),
            match=[Source(pattern, template) for pattern, template in sources],
        )

    def _base(self, request: Request) -> str:
        if self._options.public_url is not None:
            return self._options.public_url.rstrip("/")
        host = request.header(b"host")
        if host is None or not _HOST.fullmatch(host):
            raise InvalidRequest("the Host header names no host", hint="or set http.public_url on the gateway")
        return f"{request.scope.get('scheme', 'http')}://{host}"

    def _transports(self, base: str, rooms: list[str]) -> list[Transport]:
        offers = self._offers()
        scheme, _, authority = base.partition("://")
        authority = authority.partition("/")[0]
        host = re.sub(r":\d+$", "", authority)
        web = "wss" if scheme == "https" else "ws"
        query = f"?rooms={quote(','.join(rooms), safe=':,')}" if rooms else ""
        found = [
            ("socketio", offers.socketio_path and base + offers.socketio_path),
            ("mqtt", offers.mqtts_port and f"mqtts://{host}:{offers.mqtts_port}"),
            ("mqtt", offers.mqtt_port and f"mqtt://{host}:{offers.mqtt_port}"),
            ("mqtt-websocket", offers.mqtt_path and f"{web}{base[len(scheme) :]}{offers.mqtt_path}"),
            ("sse", f"{base}/api/stream{query}"),
            ("poll", f"{base}/api/events{query}"),
        ]
        return [Transport(name, url) for name, url in found if url]


def _device(request: Request) -> str | None:
    """What the client calls itself (`client=phone-1`), for a client id that is the same each time."""
    device = request.value("client")
    if device is not None and not _DEVICE.fullmatch(device):
        raise InvalidRequest(
            f"client is {device[:80]!r}", hint="use 1 to 64 letters, digits, '.', '_' and '-'", parameter="client"
        )
    return device


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else format_time(int(seconds * 1000))
