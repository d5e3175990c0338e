"""Clients that come back to the same place: each gets what it missed, whatever the others get."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gapless.envelope import Envelope
from gapless.errors import LogUnavailable
from gapless.event import Origin
from gapless.eventlog import MemoryLog, SqliteLog, StateKind, StateWrite
from gapless.ingress import Publication
from gapless.mqtt import ProtocolVersion, Puback, Pubcomp, Publish, Pubrec, Pubrel, SubscriptionRequest
from tests.mqtt_edge.support import V5, V311, Client, Node, running_edge

_LATER = 4_000_000_000_000  # milliseconds
TOPICS = ("home/a", "home/b", "away/c")


async def leave(node: Node, name: str, *filters: str | SubscriptionRequest, **options: Any) -> None:
    """A client subscribes, and goes away."""
    version = options.pop("version", V5)
    expiry = 3600 if version is V5 else None
    client, _ = await Client.connect(node.port, name, version, clean=False, expiry=expiry)
    await client.subscribe(*filters, **options)
    await client.disconnect()


async def come_back(node: Node, name: str, count: int, version: ProtocolVersion = V5, **options: Any) -> list[Any]:
    """What it gets, acknowledged one after the other."""
    expiry = 3600 if version is V5 else None
    client, connack = await Client.connect(node.port, name, version, clean=False, expiry=expiry, **options)
    assert connack.session_present
    got: list[Publish] = []
    released = 0
    while len(got) < count or released < sum(packet.qos == 2 for packet in got):
        packet = await client.next()
        if isinstance(packet, Pubrel):
            client.send(Pubcomp(packet.packet_id))
            released += 1
            continue
        assert isinstance(packet, Publish)
        assert not packet.dup
        client.send(Puback(packet.packet_id) if packet.qos == 1 else Pubrec(packet.packet_id))
        got.append(packet)
    await client.nothing_more()
    await client.disconnect()
    return [msgspec.json.decode(packet.payload)["data"] for packet in got]


async def publish(node: Node, numbers: Sequence[int], seed: int, *, mixed: bool) -> list[tuple[str, int]]:
    """Events on topics by chance, some of which expire, or go at QoS 2."""
    chance = random.Random(seed)
    found = []
    batch = []
    for number in numbers:
        topic = chance.choice(TOPICS)
        expires = _LATER if mixed and chance.random() < 0.1 else None
        qos = chance.choice([1, 1, 1, 2]) if mixed else 1
        envelope = Envelope(data=b"%d" % number)
        batch.append(
            Publication(envelope=envelope, origin=Origin("python"), topic=topic, qos=qos, retain=False, expires=expires)
        )
        found.append((topic, number))
    await node.ingress.submit_many(batch)
    return found


def of(published: list[tuple[str, int]], *topics: str) -> list[int]:
    return [number for topic, number in published if topic in topics]


@pytest.mark.parametrize("mixed", [False, True], ids=["QoS 1", "mixed"])
@pytest.mark.parametrize("missed", [1, 90, 128, 400])
async def test_each_gets_what_it_missed(missed: int, mixed: bool) -> None:
    async with running_edge() as node:
        for name in ("one", "two", "three"):
            await leave(node, name, "home/+")
        await leave(node, "all", "#", version=V311)
        await leave(node, "all as well", "#", version=V311)
        await leave(node, "numbered", "home/+", identifier=7)
        await leave(node, "at 2", "home/+", qos=2)
        published = await publish(node, range(missed), missed, mixed=mixed)
        home = of(published, "home/a", "home/b")
        every = of(published, *TOPICS)
        assert await come_back(node, "one", len(home)) == home
        assert await come_back(node, "all", len(every), V311) == every
        assert await come_back(node, "numbered", len(home)) == home
        assert await come_back(node, "two", len(home), receive_maximum=3) == home
        assert await come_back(node, "at 2", len(home)) == home
        more = await publish(node, range(missed, missed + 5), missed + 1, mixed=mixed)
        assert await come_back(node, "three", len(home) + len(of(more, *TOPICS[:2]))) == home + of(more, *TOPICS[:2])
        assert await come_back(node, "all as well", missed + 5, V311) == every + of(more, *TOPICS)
        assert await come_back(node, "one", len(of(more, *TOPICS[:2]))) == of(more, *TOPICS[:2])


async def test_they_share_the_packets() -> None:
    async with running_edge() as node:
        for name in ("one", "two"):
            await leave(node, name, "home/+")
        await publish(node, range(50), 1, mixed=False)
        made = []
        put = node.hub.runs.put
        node.hub.runs.put = lambda key, run, size: (made.append(key), put(key, run, size))[1]  # type: ignore[func-returns-value, method-assign]
        for name in ("one", "two"):
            client, _ = await Client.connect(node.port, name, clean=False, expiry=3600)
            await client.receive(acknowledge=False)
        assert len(made) == 1


async def test_what_is_too_large_for_one_is_left_out_for_it_alone() -> None:
    async with running_edge() as node:
        for name in ("any", "small"):
            await leave(node, name, "home/a")
        batch = [
            Publication(envelope=Envelope(data=data), origin=Origin("python"), topic="home/a", qos=1)
            for data in (b"1", b'"%s"' % (b"x" * 3000), b"3")
        ]
        await node.ingress.submit_many(batch)
        assert await come_back(node, "any", 3) == [1, "x" * 3000, 3]
        assert await come_back(node, "small", 2, maximum_packet_size=1000) == [1, 3]


async def test_large_events_come_in_runs_of_their_size() -> None:
    async with running_edge() as node:
        for name in ("one", "two"):
            await leave(node, name, "home/a")
        data = [f"{number}" + "x" * 30_000 for number in range(20)]
        await node.ingress.submit_many(
            [
                Publication(
                    envelope=Envelope(data=msgspec.json.encode(one)), origin=Origin("python"), topic="home/a", qos=1
                )
                for one in data
            ]
        )
        for name in ("one", "two"):
            assert await come_back(node, name, 20) == data


@pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
async def test_what_was_not_acknowledged_comes_again_first(version: ProtocolVersion) -> None:
    expiry = 3600 if version is V5 else None
    async with running_edge() as node:
        for name in ("one", "two"):
            await leave(node, name, "home/+", version=version)
        published = await publish(node, range(40), 3, mixed=False)
        home = of(published, "home/a", "home/b")
        client, _ = await Client.connect(node.port, "one", version, clean=False, expiry=expiry)
        first = [await client.receive(acknowledge=number < 3) for number in range(10)]
        await client.drop()
        assert await come_back(node, "two", len(home), version) == home
        client, _ = await Client.connect(node.port, "one", version, clean=False, expiry=expiry)
        again = [await client.receive() for _ in range(len(home) - 3)]
        assert [packet.dup for packet in again] == [True] * (len(home) - 3)  # all were sent by then
        assert [packet.packet_id for packet in again[:7]] == [packet.packet_id for packet in first[3:]]
        assert [msgspec.json.decode(packet.payload)["data"] for packet in again] == home[3:]


async def test_a_session_comes_from_the_log_where_it_is_not_in_memory(tmp_path: Path) -> None:
    async with running_edge(log=SqliteLog(tmp_path / "events.db")) as node:
        await leave(node, "one", "home/a")
        node.edge.sessions._cache.drop("one")
        await publish(node, range(30), 4, mixed=False)
        published = await publish(node, [], 0, mixed=False)
        assert published == []
        client, connack = await Client.connect(node.port, "one", clean=False, expiry=3600)
        assert connack.session_present
        assert isinstance(await client.receive(), Publish)


class OneFails(MemoryLog):
    """A log that cannot store one client's session, nor what comes with it."""

    def write_state(self, writes: Sequence[StateWrite], *, durable: bool) -> asyncio.Future[None]:
        if any(write.kind is StateKind.MQTT_SESSION and "bad" in write.key for write in writes):
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            failed.set_exception(LogUnavailable("the disk is full"))
            return failed
        return super().write_state(writes, durable=durable)


async def test_a_session_that_cannot_be_stored_harms_none_that_is_opened_with_it() -> None:
    async with running_edge(log=OneFails()) as node:
        names = ["good", "bad", "better"]
        clients = [await Client.open(node.port) for _ in names]
        opened = await asyncio.gather(
            *(Client.connect(node.port, name, clean=False, expiry=3600) for name in names), return_exceptions=True
        )
        accepted = [isinstance(one, tuple) and not one[1].reason_code.is_failure for one in opened]
        assert accepted == [True, False, True]
        for client in clients:
            client.writer.close()
