"""Hundreds of clients that do not read: bounded each, nobody's burden, and whole once they read again."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator

import pytest

from gapless.gateway.samples import mqtt_samples
from gapless.mqtt import Connect, Decoder, Packet, Pingreq, Pingresp, Publish, Subscribe, SubscriptionRequest, encode
from gapless.transports.mqtt import EdgeOptions
from gapless.transports.mqtt.feed import AHEAD_BYTES, PAGE
from tests.mqtt_edge.support import V5, V311, Client, Node, running_edge, until

STALLED = 200
EVENTS = 120
TEXT = "x" * 2000
OPTIONS = EdgeOptions(high_water=16 * 1024, inflight_311=20)
BOUND = 2 * OPTIONS.high_water + 10_000
"""Bytes for one client: what is joined in a step, what the transport holds, and one message more."""


_opened: list[socket.socket] = []


@pytest.fixture(autouse=True)
def close_sockets() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


class Stalled:
    """A 3.1.1 client with small buffers, which reads when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = Decoder("client", version=V311)

    @classmethod
    async def connect(cls, node: Node, number: int, qos: int) -> Stalled:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # Segments of loopback's own size would make the kernel hold megabytes for each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        sock.setblocking(False)
        _opened.append(sock)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", node.port))
        client = cls(sock)
        await client.send(Connect(f"stalled{number}", V311))
        await client.packets()
        await client.send(Subscribe(1, [SubscriptionRequest("#", qos)]))
        await client.packets()
        return client

    async def send(self, packet: Packet) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, encode(packet, V311))

    async def packets(self) -> list[Packet]:
        """What comes next."""
        while True:
            data = await asyncio.get_running_loop().sock_recv(self._socket, 1 << 16)
            assert data, "closed"
            if packets := self._decoder.feed(data):
                return packets

    async def read(self, last: int) -> list[int]:
        """The numbers up to one, acknowledged as they come."""
        numbers: list[int] = []
        while not numbers or numbers[-1] < last:
            acks = b""
            for packet in await self.packets():
                assert isinstance(packet, Publish)
                numbers.append(number_of(packet))
                if packet.qos:
                    acks += b"\x40\x02" + packet.packet_id.to_bytes(2, "big")
            await asyncio.get_running_loop().sock_sendall(self._socket, acks)
        return numbers


def number_of(packet: Publish) -> int:
    number = json.loads(packet.payload)["data"][0]
    assert isinstance(number, int)
    return number


def figures(node: Node) -> dict[str, float]:
    """The edge's metrics that have no label but the transport."""
    return {one.name: one.value for one in mqtt_samples(node.edge) if one.labels == {"transport": "mqtt"}}


async def test_stalled_clients_are_bounded_and_metered_and_a_healthy_one_gets_all() -> None:
    async with running_edge(options=OPTIONS, recent_events=50) as node:
        healthy, _ = await Client.connect(node.port, "healthy", V5)
        await healthy.subscribe("#")
        stalled = await asyncio.gather(*(Stalled.connect(node, n, n % 2) for n in range(STALLED)))
        assert figures(node)["gapless_readers_behind"] == 0
        for n in range(EVENTS):
            await node.publish("a", [n, TEXT])
            assert number_of(await healthy.receive()) == n
        assert figures(node)["gapless_readers_behind"] == STALLED
        assert figures(node)["gapless_fell_behind"] >= STALLED
        held = [node.edge.connected[f"stalled{n}"].output.held for n in range(STALLED)]
        assert max(held) <= BOUND
        assert figures(node)["gapless_held_bytes"] == sum(held)

        # Nobody stores these; a client that is behind does not get them, one that keeps up does.
        await node.publish("b", [-1, ""], qos=0)
        assert number_of(await healthy.receive()) == -1
        assert figures(node)["gapless_ephemeral_dropped"] == STALLED
        # At QoS 0 on a durable row they are in the log, so they come to those behind as well.
        await node.publish("crm/leads/1/updated", [EVENTS, TEXT], qos=0)
        assert number_of(await healthy.receive()) == EVENTS

        for start in range(0, STALLED, 50):  # in groups, as each gets 240 kB
            group = stalled[start : start + 50]
            for numbers in await asyncio.gather(*(client.read(EVENTS) for client in group)):
                assert numbers == list(range(EVENTS + 1))
        await until(lambda: figures(node)["gapless_readers_behind"] == 0)
        assert figures(node)["gapless_held_bytes"] == 0


async def test_a_stalled_client_reads_ahead_by_bytes() -> None:
    size = 20_000
    async with running_edge(options=OPTIONS, recent_events=1) as node:
        client = await Stalled.connect(node, 0, 1)
        for n in range(PAGE):
            await node.publish("a", [n, "x" * size])
        reader = node.edge.connected["stalled0"].reader
        numbers: list[int] = []
        most = 0
        while len(numbers) < PAGE:
            numbers += await client.read(len(numbers))
            most = max(most, sum(record.event.size for record in reader._ahead))
        assert numbers == list(range(PAGE))
        assert 2 * size < most <= AHEAD_BYTES  # a whole page would be 2.6 MB


async def test_a_client_that_asks_and_does_not_read_the_answers_is_not_read_either() -> None:
    async with running_edge(options=OPTIONS) as node:
        client = await Stalled.connect(node, 0, 0)
        output = node.edge.connected["stalled0"].output
        count = 300_000
        pings = asyncio.get_running_loop().sock_sendall(client._socket, encode(Pingreq(), V311) * count)
        sending = asyncio.create_task(pings)
        await until(lambda: output.reading_held)
        assert output.held < 4 * OPTIONS.high_water + (256 << 10)  # and what one read of the socket brings
        answers = 0
        while answers < count:
            answers += len([one for one in await client.packets() if isinstance(one, Pingresp)])
        await sending
        assert not output.reading_held
