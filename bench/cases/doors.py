"""The doors that events leave by: how readers and publishers connect, on Gapless and on its peers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from bench.load.centrifugo_client import CentrifugoClient
from bench.load.event import event_data
from bench.load.http_readers import SseReader
from bench.load.mqtt_client import MqttClient
from bench.load.tally import LoadFailed, Tally
from bench.load.websocket import SocketIoClient
from bench.servers import (
    AEDES,
    CENTRIFUGO,
    FLOOR,
    GAPLESS,
    MOSQUITTO,
    NATS,
    NODE_SOCKETIO,
    PYTHON_SOCKETIO,
    Target,
)
from gapless.mqtt import ProtocolVersion


class Reader(Protocol):
    """Attributes: received: events so far."""

    received: int

    def close(self) -> None: ...


class Publisher(Protocol):
    """Attributes: published, acknowledged: events so far."""

    published: int
    acknowledged: int

    def publish_all(self, *events: bytes) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Door:
    """One way out.

    Attributes:
        name: what the figures call it.
        servers: who has it: Gapless first.
        read: connects the reader of a number; it hears the benchmark's room.
        publish: connects a publisher to a server that has this door.
    """

    name: str
    servers: tuple[str, ...]
    read: Callable[[Target, Tally, int], Awaitable[Reader]]
    publish: Callable[[Target, Tally], Awaitable[Publisher]]

    async def warm_publisher(self, target: Target, tally: Tally) -> Publisher:
        """A publisher whose first event is acknowledged: everything is loaded, memory can be read."""
        publisher = await self.publish(target, tally)
        publisher.publish_all(event_data())
        async with asyncio.timeout(30):
            while not publisher.acknowledged:
                if tally.problem is not None:
                    raise LoadFailed(tally.problem)
                await asyncio.sleep(0.01)
        return publisher


async def _read_socketio(target: Target, tally: Tally, _number: int) -> Reader:
    if target.name == CENTRIFUGO:
        return await CentrifugoClient.connect(target.http, tally)
    return await SocketIoClient.connect(target.http, tally)


async def _publish_socketio(target: Target, tally: Tally) -> Publisher:
    if target.name == CENTRIFUGO:
        return await CentrifugoClient.connect(target.http, tally, channels=())
    return await SocketIoClient.connect(target.http, tally, room=None)


async def _read_sse(target: Target, tally: Tally, _number: int) -> Reader:
    return await SseReader.connect(target.http, tally)


def mqtt_door(qos: int, version: ProtocolVersion = ProtocolVersion.V311) -> Door:
    """Readers at a QoS; what they read is published at QoS 1."""

    async def read(target: Target, tally: Tally, number: int) -> Reader:
        return await MqttClient.connect(target.mqtt, tally, client_id=f"bench-{number}", qos=qos, version=version)

    async def publish(target: Target, tally: Tally) -> Publisher:
        return await MqttClient.connect(target.mqtt, tally, client_id="bench-pub", version=version)

    if version is ProtocolVersion.V5:
        return Door(f"MQTT 5 QoS {qos}", (GAPLESS, MOSQUITTO), read, publish)
    return Door(f"MQTT QoS {qos}", (GAPLESS, FLOOR, MOSQUITTO, NATS, AEDES), read, publish)


SOCKETIO = Door(
    "Socket.IO", (GAPLESS, FLOOR, NODE_SOCKETIO, PYTHON_SOCKETIO, CENTRIFUGO), _read_socketio, _publish_socketio
)
SSE = Door("SSE", (GAPLESS, FLOOR), _read_sse, _publish_socketio)
MQTT_QOS0, MQTT_QOS1, MQTT5_QOS1 = mqtt_door(0), mqtt_door(1), mqtt_door(1, ProtocolVersion.V5)
