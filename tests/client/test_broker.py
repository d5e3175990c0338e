"""Devices with nothing but an external broker, a real Mosquitto that drops: they become whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import gapless.client.broker
from gapless.auth import DevelopmentGate
from gapless.client import ClientEvent
from gapless.client.broker import BrokerConnection, BrokerOptions
from gapless.client.rest import RestPublisher
from gapless.client.single import Backoff, Hole, Outgoing, Reconnecting, Refused, Subscription, Target, follow
from gapless.envelope import read_envelope
from gapless.event import Origin
from gapless.eventlog import Retention
from gapless.eventlog.memory import MemoryLog
from gapless.ingress import Publication
from gapless.testing import Broker, BrokerConfig, Link, run_broker, run_gateway
from tests.link.support import PATIENCE, Side, options, side, stock

pytestmark = pytest.mark.needs_mosquitto

DROPPING = BrokerConfig(max_queued_messages=20, max_inflight_messages=10)
OPEN = {"history_topic": "gapless/history", "heartbeat_topic": "gapless/heartbeat", "heartbeat": 0.2}


@asynccontextmanager
async def world(config: BrokerConfig = DROPPING, **changes: Any) -> AsyncIterator[tuple[Broker, Side]]:
    arguments = {name: changes.pop(name) for name in ("log", "gate") if name in changes}
    async with run_broker(config) as broker, side(options(broker.url, **(OPEN | changes)), **arguments) as gateway:
        yield broker, gateway


async def publish(gateway: Side, numbers: range, *, topic: str = "crm/leads/1/updated") -> None:
    """In one transaction; the broker has taken them over at the end."""
    origin = Origin("rest")
    documents = [{"topic": topic, "data": {"n": n}} for n in numbers]
    await gateway.ingress.submit_many([Publication(envelope=read_envelope(d), origin=origin) for d in documents])
    await gateway.settled()


class Reader:
    """A subscription over the broker that notes what it hears, while `taking`."""

    def __init__(self, target: Target, *, after: str | None = None, settings: BrokerOptions | None = None) -> None:
        self.subscription = Subscription(after)
        self.taking = asyncio.Event()
        self.taking.set()
        self.got: list[int] = []
        self.holes = self.losses = 0
        self._news = asyncio.Event()
        self._connection = BrokerConnection(target, settings)

    async def run(self) -> None:
        delays = Backoff(first=0.01, limit=0.05)
        async for signal in follow(self._connection, subscription=self.subscription, backoff=delays):
            match signal:
                case ClientEvent(data=data):
                    self.got.append(data["n"])
                case Hole():
                    self.holes += 1
                case Reconnecting():
                    self.losses += 1
                case _:
                    continue
            self._news.set()
            await self.taking.wait()

    async def until(self, count: int) -> list[int]:
        """Wait until at least so many events have come."""
        async with asyncio.timeout(PATIENCE):
            while len(self.got) < count:
                self._news.clear()
                await self._news.wait()
        return self.got

    async def lost(self) -> None:
        """Wait until the connection was lost once."""
        async with asyncio.timeout(PATIENCE):
            while not self.losses:
                self._news.clear()
                await self._news.wait()

    async def ready(self, position: str | None = None) -> None:
        """Wait until the cursor stands here; without a position, until it stands anywhere."""
        async with asyncio.timeout(PATIENCE):
            while (cursor := self.subscription.cursor) is None or cursor != (position or cursor):
                await asyncio.sleep(0.005)  # a cursor tells nobody


@asynccontextmanager
async def reading(
    url: str, *, filters: tuple[str, ...] = ("crm/leads/#",), after: str | None = None, **settings: Any
) -> AsyncIterator[Reader]:
    target = Target(url=url, rooms=("lead:1",), filters=filters)
    reader = Reader(target, after=after, settings=BrokerOptions(**settings))
    task = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_slow_reader_gets_what_the_broker_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is connected all the time: the next message of the room tells."""
    monkeypatch.setattr(gapless.client.broker, "_QUEUE_LIMIT", 5)
    async with world(heartbeat=3600.0) as (broker, gateway), reading(broker.url) as reader:
        await reader.ready()
        reader.taking.clear()
        await publish(gateway, range(300))
        assert await reader.until(1) == [0]
        reader.taking.set()
        await publish(gateway, range(300, 301))
        assert await reader.until(301) == list(range(301))
        assert gateway.link.stats.history_events > 200
        assert reader.holes == 0


async def test_heartbeat_tells_where_no_message_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gapless.client.broker, "_QUEUE_LIMIT", 5)
    async with world() as (broker, gateway), reading(broker.url) as reader:
        await reader.ready()
        reader.taking.clear()
        await publish(gateway, range(300))
        reader.taking.set()
        assert await reader.until(300) == list(range(300))
        await reader.ready(gateway.hub.position())
        assert gateway.link.stats.history_events > 200


async def test_2000_events_while_it_was_away() -> None:
    async with world() as (broker, gateway), Link.to(broker.url) as network, reading(network.url("mqtt")) as reader:
        await reader.ready()
        await publish(gateway, range(10))
        await reader.until(10)
        network.refuse()
        await network.cut()
        await reader.lost()
        await publish(gateway, range(10, 2010))
        network.restore()
        assert await reader.until(2010) == list(range(2010))
        assert reader.holes == 0


async def test_broker_that_is_killed_and_forgets_what_it_acknowledged() -> None:
    async with world(heartbeat=3600.0) as (broker, gateway), reading(broker.url, patience=0.2) as reader:
        await reader.ready()
        reader.taking.clear()
        await publish(gateway, range(100))
        await broker.kill()
        await gateway.link.wait_disconnected()
        reader.taking.set()
        await reader.lost()
        await broker.start()
        await gateway.connected()
        await publish(gateway, range(100, 110))
        assert await reader.until(110) == list(range(110))


async def test_gateway_that_is_killed_in_the_middle() -> None:
    async with run_broker() as broker, run_gateway("--broker", broker.url) as gateway:
        async with reading(broker.url, patience=0.2) as reader:
            await reader.ready()
            events = [Outgoing(id=f"id-{n}", topic="crm/leads/1/updated", data={"n": n}) for n in range(100)]
            async with RestPublisher(gateway.http) as publisher:
                await publisher.publish(events)
            await gateway.kill()  # the link may have published all, some or none of them
            await gateway.start()
            assert await reader.until(100) == list(range(100))
            assert reader.holes == 0


async def test_position_of_another_transport_is_where_it_goes_on() -> None:
    async with world() as (broker, gateway):
        await publish(gateway, range(50))
        async with reading(broker.url, after=gateway.hub.position(20)) as reader:
            assert await reader.until(30) == list(range(20, 50))
            await reader.ready(gateway.hub.position())  # and where another goes on


async def test_what_the_log_no_longer_has_is_said() -> None:
    log = MemoryLog(retention=Retention(seconds=None, bytes=3000))
    async with world(log=log) as (broker, gateway):
        gateway.hub._recent._max_events = 1  # memory does not help
        await publish(gateway, range(50))
        removed, _ = await log.trim(now=0)
        async with reading(broker.url, after=gateway.hub.position(0)) as reader:
            assert await reader.until(50 - removed) == list(range(removed, 50))
            assert reader.holes == 1


async def test_foreign_publishers_are_heard_once() -> None:
    """At once from the broker, and not again with the history."""
    async with world() as (broker, gateway), Link.to(broker.url) as network, stock(broker.port) as other:
        async with reading(network.url("mqtt")) as reader:
            await reader.ready()
            await other.publish("crm/leads/1/updated", '{"n":1,"time":"2026-01-01T00:00:00Z"}')
            await other.publish("crm/leads/1/updated", '{"n":2}', user=[("id", "two")])
            assert await reader.until(2) == [1, 2]
            network.refuse()
            await network.cut()
            await reader.lost()
            await other.publish("crm/leads/1/updated", '{"n":3}')
            await gateway.heard.wait(3)
            network.restore()
            assert await reader.until(3) == [1, 2, 3]
            await reader.ready(gateway.hub.position())
            assert reader.got == [1, 2, 3]


async def test_event_that_only_the_payload_puts_in_a_room_is_heard_by_history() -> None:
    """No topic filter selects it (`{data.leadId}`): to a device that hears the lead's own topics it is missing."""
    async with world() as (broker, gateway):
        async with reading(broker.url, filters=("crm/leads/1/+",)) as reader:
            await reader.ready()
            await publish(gateway, range(1))
            await gateway.submit({"topic": "crm/activities/8/created", "data": {"n": 1, "leadId": 1}})
            assert await reader.until(2) == [0, 1]


async def test_gate_that_wants_a_token() -> None:
    async with world(gate=DevelopmentGate("secret")) as (broker, gateway):
        async with reading(broker.url, token="secret") as reader:
            await reader.ready()
            await publish(gateway, range(3))
            assert await reader.until(3) == [0, 1, 2]
        reader = Reader(Target(url=broker.url, rooms=("lead:1",), filters=("crm/#",)))
        with pytest.raises(Refused, match="no history"):
            await reader.run()


async def test_nonsense_on_the_gateways_topics_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with world(heartbeat=3600.0) as (broker, gateway), stock(broker.port) as other:
        async with reading(broker.url) as reader:
            await reader.ready()
            for payload in ("{", "{}", '{"position":"x","since":"x","rooms":{}}'):
                await other.publish("gapless/heartbeat", payload)
            await publish(gateway, range(2))
            assert await reader.until(2) == [0, 1]
    assert caplog.text.count("not a gateway's message") == 3


async def test_no_answer_is_asked_for_again() -> None:
    log = MemoryLog()
    async with run_broker(DROPPING) as broker:
        async with reading(broker.url, after=None, patience=0.05) as reader:
            async with side(options(broker.url, **OPEN), log=log) as gateway:
                await reader.ready()
                await publish(gateway, range(5))
                assert await reader.until(5) == list(range(5))


def test_filters_are_needed() -> None:
    with pytest.raises(Refused, match="no topic filters"):
        BrokerConnection(Target(url="mqtt://h", rooms=("lead:1",)))
