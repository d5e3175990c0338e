"""Nothing is lost and order is kept, whoever dies: broker, network, link, gateway."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gapless.config import Settings
from gapless.eventlog import Retention
from gapless.eventlog.memory import MemoryLog
from gapless.eventlog.sqlite import SqliteLog
from gapless.gateway import Gateway
from gapless.testing import BrokerConfig, Link, run_broker
from tests.link.support import PATIENCE, Side, once_in_order, options, pump_position, side, stock

pytestmark = pytest.mark.needs_mosquitto

KEEPING = BrokerConfig(max_queued_messages=0, save_every_change=True)
ALL = list(range(1000))
TOPIC = "crm/leads/1/updated"
READER: dict[str, Any] = {"client_id": "reader", "clean": False}


@pytest.mark.parametrize("qos", [1, 2])
async def test_broker_killed_in_the_middle_of_1000_publishes(qos: int) -> None:
    """All arrive once and in order: with a full window that it has read nothing of yet."""
    async with (
        run_broker(KEEPING) as broker,
        side(options(broker.url)) as gateway,
        stock(broker.port, "crm/#", client_id="reader", clean=False, qos=qos) as client,
    ):
        for n in range(300):
            await gateway.submit({"topic": TOPIC, "data": {"n": n}}, qos=qos)
        await client.wait_ids(300)
        await gateway.settled()
        await client.synced(broker.port)
        broker.pause()
        for n in range(300, 700):
            await gateway.submit({"topic": TOPIC, "data": {"n": n}}, qos=qos)
        await broker.kill()
        await broker.start()
        for n in range(700, 1000):
            await gateway.submit({"topic": TOPIC, "data": {"n": n}}, qos=qos)
        messages = await client.wait_ids(1000)
        await gateway.settled()
        assert once_in_order(messages) == (ALL, 0)
        stats = gateway.link.stats
        assert stats.connections >= 2
        assert stats.missed == stats.refused == 0


async def test_broker_killed_at_any_moment_loses_only_what_it_had_acknowledged() -> None:
    """Mosquitto answers before it saves: what it acknowledged in its last turn is gone with it.

    All else arrives in order. Copies: what it had handed on before its PUBACK reached us, and what
    its last saved state says the reader did not acknowledge; each with the id of the first.
    """
    async with (
        run_broker(KEEPING) as broker,
        side(options(broker.url)) as gateway,
        stock(broker.port, "crm/#", client_id="reader", clean=False, qos=1) as client,
    ):
        await client.synced(broker.port)
        for n in range(400):
            await gateway.submit({"topic": TOPIC, "data": {"n": n}})
        await broker.kill()
        await gateway.link.wait_disconnected()
        acknowledged = gateway.link.pump.position
        for n in range(400, 700):
            await gateway.submit({"topic": TOPIC, "data": {"n": n}})
        await broker.start()
        for n in range(700, 1000):
            await gateway.submit({"topic": TOPIC, "data": {"n": n}})
        await gateway.settled()
        while all(message.n != 999 for message in client.messages[-200:]):
            await client.wait(len(client.messages) + 1)
        numbers, copies = once_in_order(client.messages)
        assert numbers == sorted(numbers)
        missing = set(ALL) - set(numbers)
        assert missing <= set(range(max(0, acknowledged - 20), acknowledged))
        assert copies <= 2 * gateway.link.options.window + acknowledged


async def test_what_is_published_while_the_broker_is_away_comes_from_the_log_in_order() -> None:
    async with run_broker(KEEPING) as broker, side(options(broker.url)) as gateway:
        async with stock(broker.port, "crm/#", client_id="reader", clean=False) as client:
            await client.synced(broker.port)
            await broker.stop()
            await gateway.link.wait_disconnected()
            await gateway.publish(1000, topic="crm/leads/1/updated")
            assert gateway.link.pump.behind == 1000
            await broker.start()
            messages = await client.wait_ids(1000)
        assert once_in_order(messages) == (ALL, 0)


@pytest.mark.parametrize("qos", [1, 2])
async def test_connection_cut_again_and_again_while_publishing(qos: int) -> None:
    async with run_broker(KEEPING) as broker, Link.to(broker.url) as network:
        async with side(options(network.url("mqtt"))) as gateway, stock(broker.port, "crm/#", qos=qos) as client:
            for n in ALL:
                await gateway.submit({"topic": TOPIC, "data": {"n": n}}, qos=qos)
                if n % 150 == 149:
                    await network.cut()
            messages = await client.wait_ids(1000)
            await gateway.settled()
            # A marker after everything: no copy can come later.
            await gateway.submit({"topic": TOPIC, "data": {"n": 1000}}, qos=qos)
            messages = await client.wait_ids(1001)
        numbers, copies = once_in_order(messages)
        assert numbers == [*ALL, 1000]
        if qos == 2:
            assert copies == 0
        else:
            assert copies <= gateway.link.stats.resent  # at least once: sent again as PUBACK was lost


@pytest.mark.parametrize("qos", [1, 2])
async def test_messages_to_us_survive_cuts(qos: int) -> None:
    async with run_broker(KEEPING) as broker, Link.to(broker.url) as network:
        async with side(options(network.url("mqtt"))) as gateway, stock(broker.port) as client:
            for n in range(300):
                await client.publish("crm/leads/1/updated", json.dumps({"n": n}), qos=qos)
                if n % 60 == 59:
                    await network.cut()
            await gateway.heard.wait(300)
            await client.publish("crm/leads/1/updated", json.dumps({"n": 300}), qos=qos)
            while gateway.heard.data[-1]["n"] != 300:
                await gateway.heard.wait(len(gateway.heard.records) + 1)
        numbers = [document["n"] for document in gateway.heard.data]
        assert list(dict.fromkeys(numbers)) == list(range(301))
        if qos == 2:
            assert len(numbers) == 301


@pytest.mark.parametrize("qos", [1, 2])
async def test_link_destroyed_without_a_stop_and_made_anew_on_the_same_log(tmp_path: Path, qos: int) -> None:
    async with run_broker(KEEPING) as broker, stock(broker.port, "crm/#", qos=qos) as client:
        published = 0
        for _ in range(4):
            gateway = Side(options(broker.url), log=SqliteLog(tmp_path / "log.db"))
            await gateway.start()
            topic = "crm/leads/1/updated"
            for _ in range(250):
                await gateway.submit({"topic": topic, "data": {"n": published}}, qos=qos)
                published += 1
            await gateway.kill()
        gateway = Side(options(broker.url), log=SqliteLog(tmp_path / "log.db"))
        await gateway.start()
        messages = await client.wait_ids(1000)
        await gateway.settled()
        await gateway.submit({"topic": TOPIC, "data": {"n": 1000}}, qos=qos)
        messages = await client.wait_ids(1001)
        await gateway.stop()
    numbers, copies = once_in_order(messages)
    assert numbers == [*ALL, 1000]
    if qos == 2:
        assert copies == 0
    else:  # at most a window for each of the four deaths
        assert copies <= 4 * gateway.link.options.window


CHILD = """
import asyncio, sys
from pathlib import Path
from gapless.eventlog.sqlite import SqliteLog
from tests.link.support import Side, options

async def main(url: str, path: str, first: int, count: int, qos: int) -> None:
    gateway = Side(options(url), log=SqliteLog(Path(path)))
    await gateway.start()
    print("ready", gateway.log.head, flush=True)
    for n in range(first, first + count):
        await gateway.submit({"topic": "crm/leads/1/updated", "data": {"n": n}}, qos=qos)
        print(n, flush=True)
    await gateway.settled()
    print("settled", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
"""


async def child(url: str, path: Path, first: int, count: int, qos: int, *, kill_at: str) -> None:
    """Run a gateway process, and SIGKILL it when it prints the line."""
    arguments = [url, str(path), str(first), str(count), str(qos)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, *arguments, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while (line := await process.stdout.readline()) != f"{kill_at}\n".encode():
                assert line, "the gateway process ended by itself"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.stdout.read()
        await process.wait()


@pytest.mark.parametrize("qos", [1, 2])
async def test_gateway_killed_with_sigkill_while_publishing(tmp_path: Path, qos: int) -> None:
    path = tmp_path / "log.db"
    async with run_broker(KEEPING) as broker, stock(broker.port, "crm/#", qos=qos) as client:
        # Each process is killed while its newest events are on their way; the next publishes the rest.
        await child(broker.url, path, 0, 1000, qos, kill_at="333")
        async with SqliteReader(path) as head:
            first = head
        await child(broker.url, path, first, 1000, qos, kill_at=str(first + 333))
        async with SqliteReader(path) as head:
            second = head
        await child(broker.url, path, second, 1000 - second, qos, kill_at="settled")
        messages = await client.wait_ids(1000)
    numbers, copies = once_in_order(messages)
    assert numbers == ALL
    assert copies == 0 if qos == 2 else copies <= 200


class SqliteReader:
    """The log between two processes: how many events it has, which are numbered from 0."""

    def __init__(self, path: Path) -> None:
        self._log = SqliteLog(path)

    async def __aenter__(self) -> int:
        await self._log.open(lambda _: None)
        return self._log.head

    async def __aexit__(self, *_: object) -> None:
        await self._log.close()


async def test_position_is_stored_and_survives_a_restart() -> None:
    log = MemoryLog()
    async with run_broker() as broker, stock(broker.port, "crm/#") as client:
        async with side(options(broker.url), log=log) as gateway:
            await gateway.publish(5)
            await client.wait(5)
        async with side(options(broker.url), log=log) as gateway:
            assert await pump_position(log) == 5
            await gateway.publish(1, start=5)
            messages = await client.wait(6)
        assert [m.n for m in messages] == list(range(6))


async def test_new_link_begins_at_the_end_of_the_log() -> None:
    log = MemoryLog()
    async with run_broker() as broker, stock(broker.port, "crm/#") as client:
        async with side(options(broker.url), log=log) as gateway:
            await gateway.publish(3)
            await client.wait(3)
        async with side(options(broker.url, name="second"), log=log) as gateway:
            await gateway.publish(1, start=3)
            messages = await client.wait(4)
        assert [m.n for m in messages] == [0, 1, 2, 3]


async def test_broker_away_at_the_start() -> None:
    async with run_broker(KEEPING) as broker:
        async with stock(broker.port, "crm/#", client_id="reader", clean=False) as client:
            await client.synced(broker.port)
            await broker.stop()
            gateway = Side(options(broker.url))
            await gateway.start(connected=False)
            await gateway.publish(50)
            while gateway.link.state.attempts < 3:
                await gateway.link._changed.wait()
            assert "refused the connection" in gateway.link.state.error
            assert "is the broker running" in gateway.link.state.hint
            await broker.start()
            await gateway.connected()
            messages = await client.wait_ids(50)
            assert once_in_order(messages) == (list(range(50)), 0)
            await gateway.stop()


async def test_retention_waits_for_the_broker(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(port=0, mqtt_port=None, data=None, recent_events=1)  # memory does not help
    log = MemoryLog(retention=Retention(seconds=None, bytes=3000))
    async with run_broker(KEEPING) as broker:
        changed = msgspec.structs.replace(settings, link=options(broker.url))
        async with Gateway(changed, log=log) as gateway, stock(broker.port, "crm/#", **READER) as client:
            link = gateway.link
            assert link is not None
            await asyncio.wait_for(link.wait_connected(), PATIENCE)
            await client.synced(broker.port)
            await broker.stop()
            await link.wait_disconnected()
            for n in range(30):
                await gateway.publish(topic="crm/leads/1/updated", data={"n": n})
            for _ in range(2):
                await gateway._apply_retention()
            assert log.oldest == 1
            assert 0 < link.held < 30
            assert f"({link.held} now)" in caplog.text
            assert caplog.text.count("mend the broker") == 1
            await broker.start()
            messages = await client.wait(30)
            assert [m.n for m in messages] == list(range(30))
            while link.pump.stored_position != log.head:
                await asyncio.sleep(0.005)  # its own progress tells nobody
            await gateway._apply_retention()
            assert log.oldest > 20
            assert (link.held, link.stats.missed) == (0, 0)


async def test_events_gone_while_the_link_was_off_are_counted_and_the_rest_is_published() -> None:
    log = MemoryLog(retention=Retention(seconds=None, bytes=3000))
    async with run_broker(KEEPING) as broker:
        async with stock(broker.port, "crm/#", client_id="reader", clean=False) as client:
            async with side(options(broker.url), log=log):
                pass
            gateway = Side(options(broker.url), log=log)
            await log.open(gateway.hub.deliver)
            await gateway.publish(30)
            removed, held = await log.trim(now=0)
            assert 0 < removed < 30
            assert held == 0
            await log.close()
            gateway = Side(options(broker.url), log=log)
            await gateway.start()
            messages = await client.wait(30 - removed)
            assert [m.n for m in messages] == list(range(removed, 30))
            assert gateway.link.stats.missed == removed
            await gateway.stop()


async def test_silent_network_is_noticed_and_left() -> None:
    """Nothing gets through and nothing is reset: PINGRESP is missing."""
    async with run_broker() as broker, Link.to(broker.url) as network:
        async with side(options(network.url("mqtt"), keepalive=1)) as gateway:
            network.blackhole()
            state = await asyncio.wait_for(gateway.link.wait_disconnected(), PATIENCE)
            assert "PINGRESP" in state.error
            network.restore()
            await gateway.connected()


async def test_waits_are_drawn_from_the_injected_random() -> None:
    drawn: list[float] = []

    def draw() -> float:
        drawn.append(random.random())
        return 0.0

    gateway = Side(options("mqtt://127.0.0.1:9", reconnect_min=100, reconnect_max=1000))
    gateway.link._backoff._random = draw
    await gateway.start(connected=False)
    while gateway.link.state.attempts < 5:
        await gateway.link._changed.wait()
    await gateway.stop()
    assert len(drawn) >= 5  # with any other draw this test would take minutes
