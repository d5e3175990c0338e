"""Slow sockets, and WebSocket on any ASGI server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

from gapless.mqtt import Connack, Connect, Decoder, Disconnect, Packet, Publish, Suback, Subscribe, encode
from gapless.mqtt.packets import SubscriptionRequest
from gapless.transports.mqtt import EdgeOptions
from tests.mqtt_edge.support import V5, V311, Client, Node, running_edge, until

PAYLOAD = "x" * 1000


async def test_a_client_that_does_not_read_is_fed_from_the_log_and_holds_nobody_up() -> None:
    async with running_edge(options=EdgeOptions(high_water=20_000)) as node:
        slow, _ = await Client.connect(node.port, "slow", V311)
        await slow.subscribe("a", qos=0)
        quick, _ = await Client.connect(node.port, "quick", V311)
        await quick.subscribe("a", qos=0)
        count = 0
        while node.edge.stats.slow == 0:  # until every buffer between us is full
            await node.publish("a", [count, PAYLOAD])
            assert json.loads((await quick.receive()).payload)["data"][0] == count
            count += 1
            assert count < 20_000
        for _ in range(500):
            await node.publish("a", [count, PAYLOAD])
            await quick.receive()
            count += 1
        # Nothing piles up for it, though the system's buffers may take some and let as much follow.
        assert held_for(node, "slow") < 45_000
        for n in range(count):
            assert json.loads((await slow.receive()).payload)["data"][0] == n
        await node.publish("a", [count, PAYLOAD])
        assert json.loads((await slow.receive()).payload)["data"][0] == count


def held_for(node: Node, client_id: str) -> int:
    writer: Any = node.edge.connected[client_id].output.writer
    size: int = writer._transport.get_write_buffer_size()
    return size


class AsgiClient:
    """The other side of an ASGI WebSocket, without a server."""

    def __init__(self, node: Node, *, subprotocols: list[str]) -> None:
        self.incoming: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.outgoing: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.decoder = Decoder("client", version=V5)
        self.packets: list[Packet] = []
        self.incoming.put_nowait({"type": "websocket.connect"})
        scope = {"type": "websocket", "subprotocols": subprotocols, "client": ("127.0.0.1", 1)}
        self.task = asyncio.ensure_future(node.edge.websocket_app(scope, self.incoming.get, self._send))

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self.may_send.wait()
        self.outgoing.put_nowait(message)

    def send(self, *packets: Packet) -> None:
        for packet in packets:
            for byte in encode(packet, V5):  # packets may be split over frames in any way [MQTT-6.0.0-2]
                self.incoming.put_nowait({"type": "websocket.receive", "bytes": bytes((byte,))})

    async def next(self) -> Packet:
        while not self.packets:
            message = await self.outgoing.get()
            assert message["type"] == "websocket.send", message
            self.packets += self.decoder.feed(message["bytes"])
        return self.packets.pop(0)


async def connected(node: Node) -> AsgiClient:
    client = AsgiClient(node, subprotocols=["mqtt"])
    assert await client.outgoing.get() == {"type": "websocket.accept", "subprotocol": "mqtt"}
    client.send(Connect("ws", V5))
    assert isinstance(await client.next(), Connack)
    return client


async def test_websocket_on_a_plain_asgi_server() -> None:
    async with running_edge() as node:
        client = await connected(node)
        client.send(Subscribe(1, [SubscriptionRequest("a", 1)]))
        assert isinstance(await client.next(), Suback)
        await node.publish("a", 1)
        assert isinstance(await client.next(), Publish)
        client.send(Disconnect())
        assert (await client.outgoing.get())["type"] == "websocket.close"
        await client.task
        assert node.edge.stats.connections == 0


async def test_a_slow_websocket_on_a_plain_asgi_server_is_fed_from_the_log() -> None:
    async with running_edge(options=EdgeOptions(high_water=5_000)) as node:
        client = await connected(node)
        client.send(Subscribe(1, [SubscriptionRequest("a", 0)]))
        assert isinstance(await client.next(), Suback)
        client.may_send.clear()
        for n in range(100):
            await node.publish("a", [n, PAYLOAD])
        assert node.edge.stats.slow == 1
        client.may_send.set()
        for n in range(100):
            packet = await client.next()
            assert isinstance(packet, Publish)
            assert json.loads(packet.payload)["data"][0] == n
        client.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
        await client.task


async def test_a_text_frame_closes_MQTT_6_0_0_1() -> None:
    async with running_edge() as node:
        client = await connected(node)
        client.incoming.put_nowait({"type": "websocket.receive", "text": "hello"})
        assert await client.outgoing.get() == {"type": "websocket.close", "code": 1003}
        await client.task
        await until(lambda: node.edge.stats.connections == 0)


async def test_without_the_subprotocol_there_is_no_connection_MQTT_6_0_0_3() -> None:
    async with running_edge() as node:
        client = AsgiClient(node, subprotocols=["other"])
        assert (await client.outgoing.get())["type"] == "websocket.close"
        await client.task
