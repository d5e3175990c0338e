"""A persistent client that was away: every message, in order, and no memory for it meanwhile."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import pytest

from gapless.envelope import Envelope
from gapless.event import Origin
from gapless.eventlog import SqliteLog
from gapless.ingress import Publication
from gapless.mqtt import Connack, Connect, Decoder, ProtocolVersion, Publish, Subscribe, SubscriptionRequest
from tests.mqtt_edge.support import V5, V311, Client, Node, running_edge

ORIGIN = Origin("python")


async def publish_many(node: Node, first: int, count: int) -> None:
    """Publish `first` to `first + count - 1`, in batches."""
    for start in range(first, first + count, 1000):
        batch = [
            Publication(envelope=Envelope(data=b"%d" % n), origin=ORIGIN, topic="a/b", qos=1)
            for n in range(start, min(start + 1000, first + count))
        ]
        await node.ingress.submit_many(batch)


async def read_all(node: Node, version: ProtocolVersion, count: int) -> list[int]:
    """Connect as the client that was away and acknowledge message by message, as fast as can be."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    client = Client(reader, writer, version)
    client.send(Connect("phone", version, clean_start=False))
    decoder = Decoder("client", version=version)
    got: list[int] = []
    try:
        while len(got) < count:
            async with asyncio.timeout(20):
                data = await reader.read(1 << 16)
            assert data, f"closed after {len(got)}"
            acks = bytearray()
            for packet in decoder.feed(data):
                if isinstance(packet, Connack):
                    assert packet.session_present
                    continue
                assert isinstance(packet, Publish)
                head = packet.payload.index(b'"data":') + 7
                got.append(int(packet.payload[head : packet.payload.index(b",", head)]))
                acks += b"\x40\x02" + packet.packet_id.to_bytes(2, "big")
            writer.write(acks)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return got


@pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
async def test_20_000_messages_while_away_over_a_restart(version: ProtocolVersion, tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    count = 10_000
    async with running_edge(log=SqliteLog(path), recent_events=2000) as node:
        phone = await Client.open(node.port, version)
        properties = None
        if version is V5:
            from gapless.mqtt import Properties

            properties = Properties(session_expiry_interval=3600)
        phone.send(Connect("phone", version, clean_start=False, properties=properties))
        await phone.expect(Connack)
        phone.send(Subscribe(1, [SubscriptionRequest("a/#", 1)]))
        await phone.next()
        await phone.disconnect()
        await publish_many(node, 0, count)
    async with running_edge(log=SqliteLog(path), recent_events=2000) as node:
        await publish_many(node, count, count)
        assert await read_all(node, version, 2 * count) == list(range(2 * count))


async def test_sessions_that_are_away_hold_nothing_of_what_they_miss() -> None:
    async with running_edge(recent_events=100) as node:
        for n in range(20):
            phone, _ = await Client.connect(node.port, f"phone-{n}", clean=False, expiry=3600)
            await phone.subscribe("a/#")
            await phone.disconnect()
        await publish_many(node, 0, 500)
        before = reachable(node.edge)
        await publish_many(node, 500, 20_000)
        assert reachable(node.edge) - before < 100


def reachable(root: object) -> int:
    """Objects that hang on the edge, and on nothing beside it (the log, the hub, the loop)."""
    gc.collect()
    fences = {"hub", "log", "ingress", "gate"}
    edge_only = {key: value for key, value in vars(root).items() if key not in fences}
    stop = {id(vars(root)[name]) for name in fences} | {id(root), id(sys.modules)}
    loop = asyncio.get_running_loop()
    stop |= {id(loop), id(vars(loop))}
    seen: set[int] = set()
    todo: list[object] = list(edge_only.values())
    while todo:
        value = todo.pop()
        if id(value) in seen or id(value) in stop or isinstance(value, type) or type(value).__name__ == "module":
            continue
        if callable(value) and type(value).__name__ in ("function", "builtin_function_or_method"):
            continue
        seen.add(id(value))
        todo.extend(gc.get_referents(value))
    return len(seen)
