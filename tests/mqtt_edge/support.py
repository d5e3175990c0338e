"""An edge on port 0 in this process, and a client that speaks packets, for exact expectations."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from gapless.auth import DevelopmentGate, Gate
from gapless.envelope import read_envelope
from gapless.event import Origin
from gapless.eventlog import EventLog, MemoryLog
from gapless.hub import Hub
from gapless.ingress import Accepted, Ingress, Publication
from gapless.limits import Limits
from gapless.mqtt import (
    Connack,
    Connect,
    Decoder,
    Disconnect,
    Packet,
    Properties,
    ProtocolVersion,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
    encode,
)
from gapless.topicmap import TopicMap, crm_map
from gapless.transports.broadcast import Broadcast
from gapless.transports.mqtt import EdgeOptions, MqttEdge, Server

V311, V5 = ProtocolVersion.V311, ProtocolVersion.V5
WAIT = 10.0
_opened: list[asyncio.StreamWriter] = []
P = TypeVar("P")


class Clock:
    """A clock that a test can push forward; it runs otherwise.

    Attributes:
        ahead: seconds that have passed besides.
        wrong: seconds by which somebody has set it.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        self.wrong = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead + self.wrong

    def steady(self) -> float:
        """What is not set."""
        return time.monotonic() + self.ahead


@dataclass
class Node:
    """One gateway's middle and its edge."""

    log: EventLog
    hub: Hub
    ingress: Ingress
    edge: MqttEdge
    server: Server
    clock: Clock

    @property
    def port(self) -> int:
        return self.server.port

    async def publish(self, topic: str, data: object, *, qos: int = 1, retain: bool = False) -> Accepted:
        """Publish by a door other than MQTT."""
        return await self.publish_soon(topic, data, qos=qos, retain=retain)

    def publish_soon(self, topic: str, data: object, *, qos: int = 1, retain: bool = False) -> asyncio.Future[Accepted]:
        """The same, without waiting."""
        publication = Publication(
            envelope=read_envelope({"data": data}), origin=Origin("python"), topic=topic, qos=qos, retain=retain
        )
        return self.ingress.submit(publication)


@asynccontextmanager
async def running_edge(
    *,
    log: EventLog | None = None,
    options: EdgeOptions | None = None,
    gate: Gate | None = None,
    limits: Limits | None = None,
    topic_map: TopicMap | None = None,
    clock: Clock | None = None,
    recent_events: int = 100_000,
    broadcast: Broadcast | None = None,
) -> AsyncIterator[Node]:
    """A node on a port of its own; the log is closed at the end, and can be given again."""
    log = log or MemoryLog()
    clock = clock or Clock()
    hub = Hub(log, recent_events=recent_events)
    await log.open(hub.deliver)
    await hub.start()
    ingress = Ingress(log, hub, topic_map or crm_map(), limits=limits, clock=clock)
    edge = MqttEdge(
        ingress=ingress,
        hub=hub,
        log=log,
        gate=gate or DevelopmentGate(),
        options=options,
        clock=clock,
        steady=clock.steady,
        broadcast=broadcast,
    )
    await edge.start()
    try:
        server = await edge.listen("127.0.0.1", 0)
        yield Node(log, hub, ingress, edge, server, clock)
    finally:
        await edge.stop()
        await log.close()
        await close_clients()
    assert edge.stats.failures == 0, "a defect was met while serving: see the log"


async def close_clients() -> None:
    """Close the clients that a test left open; `running_edge` does it at its end."""
    while _opened:
        writer = _opened.pop()
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@dataclass
class Client:
    """One raw connection. `expect` takes packets in order; others of no interest are an error."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    version: ProtocolVersion
    packets: deque[Packet] = field(default_factory=deque)
    closed: bool = False
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self._decoder = Decoder("client", version=self.version)

    @classmethod
    async def open(cls, port: int, version: ProtocolVersion = V5, *, tls: ssl.SSLContext | None = None) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        _opened.append(writer)
        return cls(reader, writer, version)

    @classmethod
    async def connect(
        cls,
        port: int,
        client_id: str = "c",
        version: ProtocolVersion = V5,
        *,
        clean: bool = True,
        expiry: int | None = None,
        receive_maximum: int | None = None,
        maximum_packet_size: int | None = None,
        keep_alive: int = 0,
        will: Will | None = None,
        username: str | None = None,
        password: bytes | None = None,
        user_properties: list[tuple[str, str]] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> tuple[Client, Connack]:
        """Open, CONNECT, and the CONNACK."""
        client = await cls.open(port, version, tls=tls)
        properties = None
        if version is V5:
            properties = Properties(
                session_expiry_interval=expiry,
                receive_maximum=receive_maximum,
                maximum_packet_size=maximum_packet_size,
                user_properties=user_properties or [],
            )
        client.send(
            Connect(
                client_id,
                version,
                clean_start=clean,
                keep_alive=keep_alive,
                will=will,
                username=username,
                password=password,
                properties=properties,
            )
        )
        return client, await client.expect(Connack)

    def send(self, *packets: Packet) -> None:
        self.writer.write(b"".join(encode(packet, self.version) for packet in packets))

    def send_bytes(self, data: bytes) -> None:
        self.writer.write(data)

    async def next(self) -> Packet | None:
        """The next packet; None at the end of the connection."""
        async with asyncio.timeout(WAIT):
            while not self.packets:
                try:
                    data = await self.reader.read(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    self.closed = True
                    return None
                self.packets.extend(self._decoder.feed(data))
        return self.packets.popleft()

    async def expect(self, kind: type[P]) -> P:
        packet = await self.next()
        assert isinstance(packet, kind), f"expected {kind.__name__}, got {packet!r}"
        return packet

    async def expect_among(self, kind: type[P]) -> P:
        """The next packet of a kind; messages before it stay to be received."""
        before: list[Packet] = []
        while True:
            packet = await self.next()
            if isinstance(packet, kind):
                self.packets.extendleft(reversed(before))
                return packet
            assert isinstance(packet, Publish), f"expected {kind.__name__}, got {packet!r}"
            before.append(packet)

    async def expect_closed(self, reason: ReasonCode | None = None) -> None:
        """The end of the connection, after a DISCONNECT where a reason is given."""
        packet = await self.next()
        if reason is not None:
            assert isinstance(packet, Disconnect), packet
            assert packet.reason_code is reason, packet
            packet = await self.next()
        assert packet is None, packet

    async def nothing_more(self) -> None:
        """Everything the server had to say was read: a ping is answered by the ping alone."""
        from gapless.mqtt import Pingreq, Pingresp

        for _ in range(2):  # two: what the first one's turn of the loop still set free comes before the second
            self.send(Pingreq())
            await self.expect(Pingresp)

    async def subscribe(
        self,
        *filters: str | SubscriptionRequest,
        qos: int = 1,
        identifier: int | None = None,
        user_properties: list[tuple[str, str]] | None = None,
    ) -> Suback:
        requests = [one if isinstance(one, SubscriptionRequest) else SubscriptionRequest(one, qos) for one in filters]
        properties = None
        if identifier is not None or user_properties:
            properties = Properties(
                subscription_identifiers=[] if identifier is None else [identifier],
                user_properties=user_properties or [],
            )
        self.send(Subscribe(next(self.ids), requests, properties))
        return await self.expect(Suback)

    async def unsubscribe(self, *filters: str) -> Unsuback:
        self.send(Unsubscribe(next(self.ids), list(filters)))
        return await self.expect(Unsuback)

    async def publish(
        self,
        topic: str,
        payload: bytes = b"x",
        *,
        qos: int = 1,
        retain: bool = False,
        dup: bool = False,
        packet_id: int | None = None,
        properties: Properties | None = None,
    ) -> Puback | Pubrec | None:
        """Publish; the PUBACK, or the PUBREC (of which the rest is done too where it is a success)."""
        number = 0 if qos == 0 else packet_id if packet_id is not None else next(self.ids)
        packet = Publish(topic, payload, qos=qos, retain=retain, dup=dup, packet_id=number, properties=properties)
        self.send(packet)
        if qos == 0:
            return None
        if qos == 1:
            return await self.expect_among(Puback)
        received = await self.expect_among(Pubrec)
        if not received.reason_code.is_failure:
            self.send(Pubrel(number))
            await self.expect_among(Pubcomp)
        return received

    async def receive(self, *, acknowledge: bool = True) -> Publish:
        """The next PUBLISH, acknowledged in full."""
        packet = await self.expect(Publish)
        if acknowledge:
            await self.acknowledge(packet)
        return packet

    async def acknowledge(self, packet: Publish) -> None:
        if packet.qos == 1:
            self.send(Puback(packet.packet_id))
        elif packet.qos == 2:
            self.send(Pubrec(packet.packet_id))
            await self.expect(Pubrel)
            self.send(Pubcomp(packet.packet_id))

    async def disconnect(self) -> None:
        """A wanted end."""
        self.send(Disconnect())
        await self.expect_closed()
        self.writer.close()

    async def drop(self) -> None:
        """The network is gone."""
        self.writer.transport.abort()
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until something holds."""
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.002)


def properties_of(packet: Publish) -> dict[str, str]:
    """The user properties of a PUBLISH, the last of each name."""
    return dict(packet.properties.user_properties) if packet.properties is not None else {}
