"""Connection state recovery, as the stock JavaScript client asks for it, served from the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gapless.auth import Credentials, DevelopmentGate, Identity
from gapless.config import Settings
from gapless.eventlog import MemoryLog, Retention, StateKind
from gapless.gateway import Gateway
from gapless.testing import Link, run_gateway
from tests.socketio.conftest import SETTINGS, JsClient, js_client

pytestmark = pytest.mark.needs_node

TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]]


class SlowGate(DevelopmentGate):
    """Lets everybody in, once it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self._asked = asyncio.Semaphore(0)

    async def authenticate(self, credentials: Credentials) -> Identity:
        if not self.open.is_set():
            self._asked.release()
        await self.open.wait()
        return await super().authenticate(credentials)

    async def waiting(self, count: int) -> None:
        """Until so many wait at the closed gate."""
        for _ in range(count):
            await self._asked.acquire()


async def publish(gateway: Gateway, *numbers: int) -> None:
    await asyncio.gather(
        *(gateway.publish(type="lead:updated", data={"leadId": "1", "n": number}) for number in numbers)
    )


@asynccontextmanager
async def connected(gateway: Gateway, js: Path, **options: Any) -> AsyncIterator[tuple[JsClient, Link]]:
    """A client of room lead:1, over a link that can be cut."""
    port = int(gateway.http_url.rsplit(":", 1)[1])
    async with Link("127.0.0.1", port) as link, js_client(js) as client:
        first = await client.connect(link.url("http"), **options)
        assert not first["recovered"]
        assert (await client.request("subscribe", {"rooms": ["lead:1"]}))["ok"]
        yield client, link


@pytest.mark.parametrize("transports", TRANSPORTS, ids="-".join)
async def test_what_was_missed_comes_before_what_is_new(gateway: Gateway, js: Path, transports: list[str]) -> None:
    async with connected(gateway, js, transports=transports) as (client, link):
        await publish(gateway, 0, 1)
        assert await client.numbers(2) == [0, 1]
        for start in (2, 500, 1000):  # again and again on the same client
            link.refuse()
            await link.cut()
            await client.next("disconnect")
            await publish(gateway, *range(start, start + 400))
            link.restore()
            assert (await client.next("connect"))["recovered"] is True
            await publish(gateway, start + 400)
            assert await client.numbers(401) == list(range(start, start + 401))


async def test_clients_that_come_back_together_get_each_what_it_missed(gateway: Gateway, js: Path) -> None:
    """Those that hear the same rooms from the same place share what is written; others have their own."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connected(gateway, js)) for _ in range(3)]
        assert (await opened[2][0].request("subscribe", {"rooms": ["lead:2"]}))["ok"]
        await publish(gateway, 0)
        for client, _ in opened:
            assert await client.numbers(1) == [0]
        for client, link in opened:
            link.refuse()
            await link.cut()
            await client.next("disconnect")
        for number in range(1, 500):  # beyond a page
            await gateway.publish(type="lead:updated", data={"leadId": str(1 + number % 2), "n": number})
        runs = gateway.hub.runs
        for client, link in opened:
            link.restore()
            assert (await client.next("connect"))["recovered"] is True
        mine = [number for number in range(1, 500) if number % 2 == 0]
        assert await opened[0][0].numbers(len(mine)) == mine
        assert await opened[1][0].numbers(len(mine)) == mine
        assert await opened[2][0].numbers(499) == list(range(1, 500))
        assert len(runs._runs) == 2 + 3  # pages of 200: two for both, three for the third


async def test_a_client_that_had_received_nothing_recovers(gateway: Gateway, js: Path) -> None:
    async with connected(gateway, js) as (client, link):
        link.refuse()
        await link.cut()
        await client.next("disconnect")
        await publish(gateway, 0, 1, 2)
        link.restore()
        assert (await client.next("connect"))["recovered"] is True
        assert await client.numbers(3) == [0, 1, 2]


async def test_a_half_open_predecessor_gives_way(gateway: Gateway, js: Path) -> None:
    """The server still believes in the old connection when the client comes with a new one."""
    async with connected(gateway, js, transports=["websocket"]) as (client, link):
        await publish(gateway, 0)
        assert await client.numbers(1) == [0]
        link.blackhole()
        await client.do("drop")
        await client.next("disconnect")
        await publish(gateway, 1, 2)
        assert gateway.socketio.connections == 1
        link.restore()
        assert (await client.next("connect"))["recovered"] is True
        assert await client.numbers(2) == [1, 2]
        assert gateway.socketio.connections == 1


async def test_a_wanted_disconnect_is_the_end_of_the_session(gateway: Gateway, js: Path) -> None:
    async with connected(gateway, js) as (client, _):
        await client.do("disconnect")
        await client.next("disconnect")
        await publish(gateway, 0)
        await client.do("connect-again")
        assert (await client.next("connect"))["recovered"] is False


async def test_of_two_that_come_back_at_once_the_last_keeps_the_session(js: Path) -> None:
    """A client's first attempt may still be on its way when its second one arrives."""
    gate = SlowGate()
    async with Gateway(SETTINGS, gate=gate) as gateway, AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(js_client(js)) for _ in range(3)]
        await first.connect(gateway.http_url)
        await first.request("subscribe", {"rooms": ["lead:1"]})
        (pid,) = [client.pid for client in gateway.socketio._clients.values()]
        await publish(gateway, 0)
        assert await first.numbers(1) == [0]
        gate.open.clear()
        options = {"auth": {"pid": pid, "offset": gateway.hub.position()}, "transports": ["websocket"]}
        async with asyncio.TaskGroup() as group:
            answers = [
                group.create_task(client.connect(gateway.http_url, **options, reconnection=False))
                for client in (second, third)
            ]
            await gate.waiting(2)
            gate.open.set()
        (client,) = gateway.socketio._clients.values()
        assert (client.pid, gateway.socketio.stats.recovered) == (pid, 2)
        assert {answer.result()["id"] for answer in answers} == {client.sid}


async def test_a_session_is_kept_while_its_client_is_there_and_forgotten_after_it(js: Path) -> None:
    now = [1e9]
    log = MemoryLog()
    gateway = Gateway(SETTINGS, log=log)
    gateway.socketio._clock = lambda: now[0]
    async with gateway, js_client(js) as client:
        await client.connect(gateway.http_url, reconnection=False)
        await client.request("subscribe", {"rooms": ["lead:1"]})
        for _ in range(3):
            now[0] += gateway.socketio.options.recovery_seconds - 1
            await gateway.socketio.tend_sessions()
            assert len(await log.all_state(StateKind.SOCKETIO_SESSION)) == 1
        (connected,) = gateway.socketio._clients.values()
        await gateway.socketio.server.eio.drop(connected.eio_sid, "transport error")
        now[0] += gateway.socketio.options.recovery_seconds + 1
        await gateway.socketio.tend_sessions()
        assert not await log.all_state(StateKind.SOCKETIO_SESSION)


async def test_too_late_is_said_with_the_new_position(js: Path) -> None:
    settings = Settings(port=0, mqtt_port=None, data=None, retention=Retention(bytes=1), recent_events=1)
    async with Gateway(settings) as gateway, connected(gateway, js) as (client, link):
        await publish(gateway, 0)
        assert await client.numbers(1) == [0]
        link.refuse()
        await link.cut()
        await client.next("disconnect")
        await publish(gateway, 1, 2, 3)
        await gateway.log.trim(now=2e9)
        link.restore()
        assert (await client.next("connect"))["recovered"] is False
        position = gateway.hub.position()
        assert await client.event() == ["gapless:incomplete", {"position": position, "complete": False}, position]


async def test_a_pid_of_nobody_and_a_foreign_epoch_are_not_recovered(gateway: Gateway, js: Path) -> None:
    await publish(gateway, 0)
    async with js_client(js) as client:
        for auth in ({"pid": "nobody"}, {"pid": "nobody", "offset": "other:7"}, {"pid": "x", "offset": "\0"}):
            answer = await client.connect(gateway.http_url, auth=auth, forceNew=True)
            assert answer["recovered"] is False
            assert (await client.event())[0] == "gapless:incomplete"


async def test_another_users_pid_opens_nothing(gateway: Gateway, js: Path) -> None:
    async with js_client(js) as owner, js_client(js) as thief:
        await owner.connect(gateway.http_url, auth={"userId": "owner"})
        await owner.request("subscribe", {"rooms": ["lead:1"]})
        (pid,) = [client.pid for client in gateway.socketio._clients.values()]
        await publish(gateway, 0)
        await thief.connect(gateway.http_url, auth={"userId": "thief", "pid": pid, "offset": f"{gateway.epoch}:0"})
        assert (await thief.event())[0] == "gapless:incomplete"
        await thief.request("subscribe", {"rooms": ["lead:2"]})
        await publish(gateway, 1)
        await gateway.publish(type="lead:updated", data={"leadId": "2", "n": 2})
        assert await thief.numbers(1) == [2]
        assert await owner.numbers(2) == [0, 1]


async def test_recovery_survives_the_death_of_the_gateway(tmp_path: Path, js: Path) -> None:
    async with run_gateway(data=tmp_path / "data") as gateway, js_client(js) as client:
        await client.connect(gateway.http)
        assert (await client.request("subscribe", {"rooms": ["lead:1"]}))["ok"]
        for start in (0, 10, 20):
            for n in range(start, start + 5):
                answer = await client.request("publish", {"type": "lead:updated", "data": {"leadId": "1", "n": n}})
                assert answer["ok"]
            assert await client.numbers(5) == list(range(start, start + 5))
            await gateway.kill()
            await client.next("disconnect")
            await gateway.start()
            assert (await client.next("connect"))["recovered"] is True
