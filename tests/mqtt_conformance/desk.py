"""One running gateway shared by the tests of a module; topics and client ids are each test's own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from gapless.gateway import Gateway
from gapless.mqtt import Connack, Connect, Packet, ProtocolVersion, Puback, Pubcomp, Publish, Pubrec, Pubrel
from gapless.transports.mqtt import MqttEdge
from tests.mqtt_edge.support import V5, Client, until

_numbers = itertools.count(1)


@dataclass
class Desk:
    """What a test has in front of it: a gateway's MQTT port, and names that nobody else uses."""

    gateway: Gateway
    name: str = field(default_factory=lambda: f"t{next(_numbers)}")

    @property
    def port(self) -> int:
        assert self.gateway.mqtt_url is not None
        return int(self.gateway.mqtt_url.rpartition(":")[2])

    @property
    def edge(self) -> MqttEdge:
        return self.gateway.mqtt

    def topic(self, path: str) -> str:
        """A topic or filter of this test."""
        return f"{self.name}/{path}"

    def id(self, name: str) -> str:
        """A client identifier of this test."""
        return f"{self.name}{name}"

    async def connect(self, name: str = "c", version: ProtocolVersion = V5, **options: Any) -> tuple[Client, Connack]:
        """Connect a client; see `Client.connect`."""
        return await Client.connect(self.port, self.id(name), version, **options)

    async def client(self, name: str = "c", version: ProtocolVersion = V5, **options: Any) -> Client:
        """Connect a client that is accepted."""
        client, connack = await self.connect(name, version, **options)
        assert not connack.reason_code.is_failure
        return client

    async def returning(self, name: str = "c", version: ProtocolVersion = V5, **options: Any) -> Client:
        """Connect a client with a session that outlives its connection."""
        return await self.client(name, version, clean=False, expiry=3600, **options)

    async def say(self, packet: Connect) -> Client:
        """Open a connection and send this CONNECT."""
        client = await Client.open(self.port, packet.version)
        client.send(packet)
        return client

    async def gone(self, client: Client, name: str = "c") -> None:
        """The network of this client is gone, and the gateway has noticed."""
        await client.drop()
        await self.left(name)

    async def left(self, name: str = "c") -> None:
        """Wait until the gateway knows that this client is not connected."""
        await until(lambda: self.id(name) not in self.edge.connected)


async def read_to_end(client: Client) -> list[Packet]:
    """Everything that comes until the connection closes."""
    packets = []
    while (packet := await client.next()) is not None:
        packets.append(packet)
    return packets


async def receive(client: Client, count: int) -> list[Publish]:
    """The next `count` messages, whatever their QoS, acknowledged in full as they come."""
    messages: list[Publish] = []
    open_ids: set[int] = set()
    while len(messages) < count or open_ids:
        packet = await client.next()
        match packet:
            case Publish(qos=0):
                messages.append(packet)
            case Publish(qos=1):
                messages.append(packet)
                client.send(Puback(packet.packet_id))
            case Publish():
                messages.append(packet)
                open_ids.add(packet.packet_id)
                client.send(Pubrec(packet.packet_id))
            case Pubrel():
                open_ids.remove(packet.packet_id)
                client.send(Pubcomp(packet.packet_id))
            case _:
                raise AssertionError(f"expected messages, got {packet!r}")
    return messages
