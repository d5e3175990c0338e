"""A gateway in miniature around a link, and stock clients on the broker's other side."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gapless.auth import DevelopmentGate, Gate
from gapless.envelope import Envelope, read_envelope, read_payload
from gapless.event import MqttMessage, Origin, Record
from gapless.eventlog import EventLog, StateKind
from gapless.eventlog.memory import MemoryLog
from gapless.hub import Hub
from gapless.ingress import Accepted, Ingress, Publication
from gapless.link import BrokerLink, LinkOptions
from gapless.link.heartbeat import Sleep
from gapless.topicmap import TopicMap, crm_map

PATIENCE = 20.0


def options(url: str, **changes: Any) -> LinkOptions:
    """Options with short waits."""
    defaults: dict[str, Any] = {"reconnect_min": 0.01, "reconnect_max": 0.1, "status_topic": None}
    defaults |= {"heartbeat_topic": None, "history_topic": None}
    return LinkOptions(url=url, **(defaults | changes))


class Heard:
    """A fan-out that keeps what the clients of the gateway would have been handed."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._news = asyncio.Event()

    def deliver(self, record: Record) -> None:
        self.records.append(record)
        self._news.set()

    @property
    def data(self) -> list[Any]:
        return [json.loads(r.event.data) if not r.event.binary else r.event.data for r in self.records]

    async def wait(self, count: int) -> list[Record]:
        """Wait until at least `count` events were delivered."""
        async with asyncio.timeout(PATIENCE):
            while len(self.records) < count:
                self._news.clear()
                await self._news.wait()
        return self.records


class Side:
    """Log, hub, ingress and link, wired as the gateway does it."""

    def __init__(
        self,
        link_options: LinkOptions,
        *,
        log: EventLog | None = None,
        topics: TopicMap | None = None,
        gate: Gate | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.log: EventLog = log or MemoryLog()
        self.hub = Hub(self.log)
        self.topics = topics or crm_map()
        self.ingress = Ingress(self.log, self.hub, self.topics)
        self.heard = Heard()
        self.link = BrokerLink(
            options=link_options,
            ingress=self.ingress,
            hub=self.hub,
            log=self.log,
            gate=gate or DevelopmentGate(),
            topic_map=self.topics,
            sleep=sleep,
        )

    async def start(self, *, connected: bool = True) -> None:
        await self.log.open(self.hub.deliver)
        await self.hub.start()
        self.hub.add(self.heard)
        await self.link.start()
        if connected:
            await self.connected()

    async def connected(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.link.wait_connected()

    async def stop(self) -> None:
        await self.link.stop()
        await self.log.close()

    async def kill(self) -> None:
        """End the link as SIGKILL would: nothing is sent, nothing is stored any more."""
        link = self.link
        task, link._task = link._task, None
        connection = link._connection
        if connection is not None:
            connection.detach()
            connection.abort()
        self.hub.remove(link.pump)
        progress = link.pump._progress
        progress._cancel_timer()
        progress.store_soon = lambda **_: None  # type: ignore[method-assign]
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self.log.close()

    async def publish(self, count: int, *, start: int = 0, qos: int = 1, topic: str = "crm/leads/{n}/updated") -> None:
        """Publish events `{"n": start}` … at the gateway's own door, each on disk before the next."""
        for n in range(start, start + count):
            await self.submit({"topic": topic.format(n=n), "data": {"n": n}}, qos=qos)

    async def submit(self, document: dict[str, Any], **fields: Any) -> Accepted:
        envelope = read_envelope(document)
        return await self.ingress.submit(Publication(envelope=envelope, origin=Origin("rest"), **fields))

    async def submit_mqtt(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> Accepted:
        """What the edge does with a device's PUBLISH."""
        envelope: Envelope = read_payload(payload)
        message = MqttMessage(payload=None if payload == envelope.data else payload, user_properties=(("device", "7"),))
        publication = Publication(
            envelope=envelope, origin=Origin("mqtt", "phone"), topic=topic, qos=qos, retain=retain, mqtt=message
        )
        return await self.ingress.submit(publication)

    async def settled(self) -> None:
        """Wait until the broker has taken over everything in the log, and that is stored."""
        async with asyncio.timeout(PATIENCE):
            while self.link.pump.behind or self.link.pump._progress.stored.position < self.hub.head:
                await asyncio.sleep(0.005)  # its own progress tells nobody


@asynccontextmanager
async def side(link_options: LinkOptions, **arguments: Any) -> AsyncIterator[Side]:
    """A started and connected side; stopped at the end."""
    built = Side(link_options, **arguments)
    await built.start()
    try:
        yield built
    finally:
        await built.stop()


async def pump_position(log: EventLog) -> int:
    raw = await log.read_state(StateKind.PUMP, "broker")
    assert raw is not None
    position = json.loads(raw)["position"]
    assert isinstance(position, int)
    return position


class Message:
    """A message as a stock client got it."""

    def __init__(self, message: paho.MQTTMessage) -> None:
        self.topic = message.topic
        self.payload = message.payload
        self.qos = message.qos
        self.retain = message.retain
        self.dup = message.dup
        properties = getattr(message, "properties", None)
        self.user: dict[str, str] = dict(getattr(properties, "UserProperty", None) or [])
        self.content_type: str | None = getattr(properties, "ContentType", None)
        self.expiry: int | None = getattr(properties, "MessageExpiryInterval", None)

    @property
    def json(self) -> Any:
        return json.loads(self.payload)

    @property
    def id(self) -> str:
        own = self.user.get("id")
        found = own if own is not None else self.json["id"]
        assert isinstance(found, str)
        return found

    @property
    def n(self) -> int:
        document = self.json
        number = document["data"]["n"] if "data" in document else document["n"]
        assert isinstance(number, int)
        return number


class Stock:
    """paho-mqtt on its own thread: the client that everybody has."""

    def __init__(self, port: int, *, version: int = 5, client_id: str = "", clean: bool = True) -> None:
        protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
        self._v5 = version == 5
        self._port = port
        self._clean = clean
        self._loop = asyncio.get_running_loop()
        clean_session = None if self._v5 else clean
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=protocol,
            clean_session=clean_session,
            reconnect_on_failure=True,
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(1000)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self.messages: list[Message] = []
        self._connected = asyncio.Event()
        self._subscribed = asyncio.Event()
        self._news = asyncio.Event()
        self._acked: set[int] = set()

    def _call(self, function: Callable[[], Any]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def _on_connect(self, _c: Any, _u: Any, _flags: Any, code: ReasonCode, _p: Any) -> None:
        if not code.is_failure:
            self._call(self._connected.set)

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        got = Message(message)
        self._call(lambda: self._keep(got))

    def _keep(self, message: Message) -> None:
        self.messages.append(message)
        self._news.set()

    def _on_subscribe(self, *_: Any) -> None:
        self._call(self._subscribed.set)

    def _on_publish(self, _c: Any, _u: Any, mid: int, *_: Any) -> None:
        self._call(lambda: self._ack(mid))

    def _ack(self, mid: int) -> None:
        self._acked.add(mid)
        self._news.set()

    async def connect(self) -> None:
        properties = None
        arguments: dict[str, Any] = {}
        if self._v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 0 if self._clean else 3600
            arguments["clean_start"] = self._clean
        self._connected.clear()
        await asyncio.to_thread(
            lambda: self._client.connect("127.0.0.1", self._port, properties=properties, **arguments)
        )
        self._client.loop_start()
        async with asyncio.timeout(PATIENCE):
            await self._connected.wait()

    async def close(self) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    async def subscribe(self, *filters: str, qos: int = 2) -> None:
        self._subscribed.clear()
        if self._v5:
            requests: Sequence[Any] = [(f, SubscribeOptions(qos=qos, retainAsPublished=True)) for f in filters]
        else:
            requests = [(f, qos) for f in filters]
        self._client.subscribe(list(requests))
        async with asyncio.timeout(PATIENCE):
            await self._subscribed.wait()

    async def publish(
        self,
        topic: str,
        payload: bytes | str,
        *,
        qos: int = 1,
        retain: bool = False,
        user: Any = None,
        expiry: int | None = None,
    ) -> None:
        """Publish, and wait for the broker's acknowledgement (at QoS 0 until it is sent)."""
        properties = None
        if user or expiry:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            if user:
                properties.UserProperty = list(user)
            if expiry:
                properties.MessageExpiryInterval = expiry
        info = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        async with asyncio.timeout(PATIENCE):
            while info.mid not in self._acked:
                self._news.clear()
                if info.mid in self._acked:
                    break
                await self._news.wait()

    async def synced(self, port: int) -> None:
        """Wait until a broker that saves every change has what this client subscribed and acknowledged.

        The first PUBACK comes after the client has answered all before it, the second after the
        broker has read these answers; it answers PINGREQ in a later turn, and saves between them.
        """
        await self.publish("sync", b"")
        await self.publish("sync", b"")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
        await reader.readexactly(4)
        writer.write(b"\xc0\x00")
        await reader.readexactly(2)
        writer.close()
        await writer.wait_closed()

    async def wait(self, count: int) -> list[Message]:
        """Wait until at least `count` messages have come."""
        async with asyncio.timeout(PATIENCE):
            while len(self.messages) < count:
                self._news.clear()
                if len(self.messages) >= count:
                    break
                await self._news.wait()
        return self.messages

    async def wait_ids(self, count: int) -> list[Message]:
        """Wait until messages with at least `count` different ids have come."""
        async with asyncio.timeout(2 * PATIENCE):
            while len({m.id for m in self.messages}) < count:
                self._news.clear()
                await self._news.wait()
        return self.messages


@asynccontextmanager
async def stock(port: int, *filters: str, qos: int = 2, **arguments: Any) -> AsyncIterator[Stock]:
    """A connected stock client, subscribed to the filters."""
    client = Stock(port, **arguments)
    await client.connect()
    try:
        if filters:
            await client.subscribe(*filters, qos=qos)
        yield client
    finally:
        await client.close()


def once_in_order(messages: Sequence[Message]) -> tuple[list[int], int]:
    """The numbers of the messages, each id once, and how many copies there were beyond that."""
    seen: dict[str, int] = {}
    for message in messages:
        seen.setdefault(message.id, message.n)
    return list(seen.values()), len(messages) - len(seen)


def timestamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
