"""What the gateway tells clients of the broker, so that they notice what it dropped."""

from __future__ import annotations

import asyncio
import json

import pytest

from gapless.eventlog.memory import MemoryLog
from gapless.link.heartbeat import MOST_ROOMS
from gapless.mqtt import Properties, Puback, Publish
from gapless.testing import run_broker
from tests.link.scripted import Session, scripted
from tests.link.support import Side, options, side, stock

BEAT = "gapless/heartbeat"


class Beats:
    """A sleep that ends when the test says so."""

    def __init__(self) -> None:
        self._due = asyncio.Semaphore(0)
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self._due.acquire()

    def next(self) -> None:
        self._due.release()


async def previous(session: Session) -> dict[str, str]:
    """What the next event that is published says of the one before it, by room."""
    while (packet := await session.get(Publish)).topic == BEAT:
        pass
    assert packet.properties is not None
    told = [value for name, value in packet.properties.user_properties if name == "gapless-previous"]
    return {room: position for position, room in (each.split(" ", 1) for each in told)}


async def heartbeat(session: Session) -> dict[str, object]:
    while (packet := await session.get(Publish)).topic != BEAT:
        pass
    assert (packet.qos, packet.retain) == (0, False)
    found = json.loads(packet.payload)
    assert isinstance(found, dict)
    return found


async def submit(gateway: Side, topic: str, **data: object) -> str:
    accepted = await gateway.submit({"topic": topic, "data": data})
    assert accepted.position is not None
    return accepted.position


async def test_each_event_names_the_one_before_it_in_each_room() -> None:
    async with scripted() as broker, side(options(broker.url)) as gateway:
        session = broker.sessions[-1]
        start = gateway.hub.position(0)
        first = await submit(gateway, "crm/leads/1/created")
        second = await submit(gateway, "crm/leads/2/created")
        await submit(gateway, "crm/activities/8/created", leadId=1)
        assert await previous(session) == {"lead:1": start, "org:global": start}
        assert await previous(session) == {"lead:2": start, "org:global": first}
        assert await previous(session) == {"activity:8": start, "lead:1": first, "org:global": second}


async def test_events_that_are_not_published_are_no_part_of_the_chain() -> None:
    async with scripted() as broker, side(options(broker.url, publish=("crm/leads/#",))) as gateway:
        session = broker.sessions[-1]
        first = await submit(gateway, "crm/leads/1/created")
        await submit(gateway, "crm/activities/8/created", leadId=1)
        session.send(Publish("crm/leads/1/updated", b"{}", qos=0))  # came from this broker
        await gateway.heard.wait(3)
        await submit(gateway, "crm/leads/1/assigned")
        await previous(session)
        assert await previous(session) == {"lead:1": first, "org:global": first}


async def test_event_that_is_published_again_says_the_same() -> None:
    async with scripted(acknowledges=False) as broker, side(options(broker.url)) as gateway:
        for _ in range(3):
            await submit(gateway, "crm/leads/1/updated")
        said = [await previous(broker.sessions[-1]) for _ in range(3)]
        broker.acknowledges = True
        broker.sessions[-1].close()
        await gateway.link.wait_disconnected()
        await gateway.connected()
        assert [await previous(broker.sessions[-1]) for _ in range(3)] == said


async def test_restarted_gateway_knows_the_last_event_of_each_room() -> None:
    log = MemoryLog()
    async with scripted() as broker:
        async with side(options(broker.url), log=log) as gateway:
            first = await submit(gateway, "crm/leads/1/updated")
            second = await submit(gateway, "crm/leads/2/updated")
            await gateway.settled()
        async with side(options(broker.url), log=log) as gateway:
            await submit(gateway, "crm/leads/1/updated")
            assert await previous(broker.sessions[-1]) == {"lead:1": first, "org:global": second}


async def test_event_that_fits_the_broker_only_without_the_chain_goes_without() -> None:
    async with scripted(connack=Properties(maximum_packet_size=800)) as broker, side(options(broker.url)) as gateway:
        for size in range(0, 600, 20):
            await submit(gateway, "crm/leads/1/updated", text="x" * size)
        await gateway.settled()
        count = gateway.link.stats.acknowledged
        assert gateway.link.stats.too_large == 30 - count
        said = [bool(await previous(broker.sessions[-1])) for _ in range(count)]
        assert said == sorted(said, reverse=True)
        assert set(said) == {True, False}


async def test_heartbeat_names_the_rooms_in_use_until_they_are_idle() -> None:
    beats = Beats()
    async with scripted() as broker, side(options(broker.url, heartbeat_topic=BEAT), sleep=beats) as gateway:
        session = broker.sessions[-1]
        start = gateway.hub.position(0)
        empty = {"position": start, "since": start, "interval": 30.0, "rooms": {}}
        assert await heartbeat(session) == empty
        await submit(gateway, "crm/leads/1/updated")
        last = await submit(gateway, "crm/users/7/notifications/1")
        await gateway.settled()
        named = {"lead:1": 1, "org:global": 1, "user:7": 2}
        for _ in range(3):
            beats.next()
            assert await heartbeat(session) == empty | {"position": last, "rooms": named}
        beats.next()
        assert await heartbeat(session) == empty | {"position": last, "since": last}
        assert set(beats.slept) == {30.0}


async def test_heartbeat_waits_for_what_it_tells_of() -> None:
    beats = Beats()
    changed = {"heartbeat_topic": BEAT}
    async with scripted(acknowledges=False) as broker, side(options(broker.url, **changed), sleep=beats) as gateway:
        session = broker.sessions[-1]
        await heartbeat(session)
        await submit(gateway, "crm/leads/1/updated")
        packet = await session.get(Publish)
        beats.next()
        await submit(gateway, "crm/leads/1/updated")
        second = await session.get(Publish)  # and not the heartbeat
        assert second.topic == "crm/leads/1/updated"
        session.send(Puback(packet.packet_id))
        session.send(Puback(second.packet_id))
        assert (await heartbeat(session))["rooms"] == {"lead:1": 1, "org:global": 1}
        broker.acknowledges = True


async def test_heartbeat_is_bounded_and_says_how_far_it_goes() -> None:
    beats = Beats()
    async with scripted() as broker, side(options(broker.url, heartbeat_topic=BEAT), sleep=beats) as gateway:
        session = broker.sessions[-1]
        for n in range(1, MOST_ROOMS + 11):
            gateway.link.pump.chain.add(n, (f"lead:{n}",))
        beats.next()
        await heartbeat(session)
        found = await heartbeat(session)
        assert found["since"] == gateway.hub.position(10)
        rooms = found["rooms"]
        assert isinstance(rooms, dict)
        assert set(rooms.values()) == set(range(11, MOST_ROOMS + 11))


@pytest.mark.needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_heartbeats_are_not_events_and_not_kept(version: str) -> None:
    async with run_broker() as broker, stock(broker.port, "gapless/#") as client:
        changed = options(broker.url, protocol=version, heartbeat_topic=BEAT, heartbeat=0.1, subscribe=("#",))
        async with side(changed) as gateway:
            messages = await client.wait(3)
            assert {(m.topic, m.retain) for m in messages} == {(BEAT, False)}
            assert messages[0].json["interval"] == 0.1
            await client.publish("crm/leads/1/updated", b"{}")
            assert [r.event.topic for r in await gateway.heard.wait(1)] == ["crm/leads/1/updated"]
