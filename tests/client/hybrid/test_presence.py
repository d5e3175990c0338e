"""Who is in a room, as the Python client tells it over each transport of a real gateway."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gapless.client import Client, Member, Presence, Present, SyncClient, TransportName
from gapless.client.hybrid import presence as presence_module
from gapless.client.hybrid.machine import Machine
from gapless.config import Settings
from gapless.errors import Forbidden, InvalidRequest, UnknownRoom
from gapless.gateway import Gateway
from gapless.presence import PresenceOptions
from tests.client.hybrid.fake_gateway import FakeGateway, FakeWorld
from tests.client.hybrid.support import LADDER
from tests.gates import TableGate

ROOM = "lead:1"
AT_ONCE = PresenceOptions(grace=0.0, start_grace=0.0, interval=0.0)


@pytest.fixture
async def gate() -> TableGate:
    gate = TableGate()
    for user in ("ana", "bob"):
        gate.hears[user] |= {ROOM, "lead:2", f"$room/{ROOM}", "crm/leads/1/#"}
    return gate


@pytest.fixture
async def gateway(gate: TableGate, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(presence_module, "INTERVAL", 0.05)
    async with Gateway(Settings(port=0, mqtt_port=None, data=None, presence=AT_ONCE), gate=gate) as gateway:
        yield gateway


def who(present: Present) -> dict[str, int]:
    return {member.user_id: member.connections for member in present.users}


async def until(presence: Presence, wanted: dict[str, int]) -> Present:
    async with asyncio.timeout(20):
        async for present in presence:
            if who(present) == wanted:
                return present
    raise AssertionError("it ended")


@pytest.mark.parametrize("transport", LADDER)
async def test_who_comes_and_goes_is_told(transport: TransportName, gateway: Gateway) -> None:
    only: list[TransportName] = [transport]
    async with Client(gateway.http_url, token="ana", transports=only) as ana:
        presence = ana.presence(ROOM)
        await until(presence, {})
        await ana.ready(timeout=20)
        assert ana.status.transport == transport
        async with Client(gateway.http_url, token="bob", transports=only) as bob:
            async with bob.subscribe(ROOM) as events:
                await events.ready()
                present = await until(presence, {"bob": 1})
                assert presence.now == present
                assert present.complete
                mine = ana.subscribe(ROOM)
                await mine.ready()
                await until(presence, {"bob": 1, "ana": 1})
            await bob.close()
        await until(presence, {"ana": 1})
        another = ana.presence(ROOM)  # what is known is told at once
        assert who(await anext(another)) == {"ana": 1}
        await presence.aclose()
        await another.aclose()
        assert [each async for each in presence] == []
        if transport == "socketio":
            await _until_unwatched(gateway)


async def _until_unwatched(gateway: Gateway) -> None:
    async with asyncio.timeout(20):
        while gateway.presence.watchers:
            await asyncio.sleep(0)


async def test_another_connection_asks_again(gateway: Gateway) -> None:
    async with Client(gateway.http_url, token="ana", transports=["socketio"]) as ana:
        presence = ana.presence(ROOM)
        await ana.ready(timeout=20)
        await until(presence, {})
        for _ in range(2):
            ana.reconnect()
            async with Client(gateway.http_url, token="bob", transports=["socketio"]) as bob:
                await bob.subscribe(ROOM).ready()
                await until(presence, {"bob": 1})
            await until(presence, {})


@pytest.mark.parametrize("transport", LADDER)
async def test_who_may_not_hear_a_room_is_told_so_and_hears_of_it_once_allowed(
    transport: TransportName, gateway: Gateway, gate: TableGate
) -> None:
    async with Client(gateway.http_url, token="ana", transports=[transport]) as ana, asyncio.timeout(20):
        with pytest.raises(InvalidRequest):
            ana.presence("lead:1,lead:2")
        with pytest.raises(UnknownRoom):
            await anext(ana.presence("no-such-kind:1"))
        presence = ana.presence("lead:3")
        with pytest.raises(Forbidden):
            await anext(presence)
        assert presence.now is None
        gate.hears["ana"].add("lead:3")
        assert who(await anext(presence)) == {}


async def test_a_right_that_is_taken_away_ends_the_telling(gateway: Gateway, gate: TableGate) -> None:
    async with Client(gateway.http_url, token="ana", transports=["socketio"]) as ana, asyncio.timeout(20):
        await ana.ready()
        presence = ana.presence("lead:2")
        await until(presence, {})
        gate.take("ana", "lead:2")
        async with Client(gateway.http_url, token="bob") as bob:  # noticed when there is something to tell
            await bob.subscribe("lead:2").ready()
            with pytest.raises(Forbidden):
                await anext(presence)
        assert presence.now is None


async def test_without_asyncio(gateway: Gateway) -> None:
    def work() -> list[dict[str, int]]:
        with SyncClient(gateway.http_url, token="ana") as rt, rt.presence(ROOM) as presence:
            assert presence.room == ROOM
            rt.ready()
            found = [who(next(presence))]
            assert presence.now == Present()
            with pytest.raises(TimeoutError):
                presence.get(timeout=0)
            rt.subscribe("lead:2").ready()
            events = rt.subscribe(ROOM)
            events.ready()
            for present in presence:
                found.append(who(present))
                if found[-1]:
                    break
            threading.Timer(0, rt.close).start()
            rest = list(presence)
            assert rest == []
            assert presence.get() is None
            return found

    async with asyncio.timeout(40):
        assert await asyncio.to_thread(work) == [{}, {"ana": 1}]


def told(*news: tuple[str, dict[str, Any]]) -> Present | None:
    """What is known of a room of three after these."""
    machine = Machine(FakeWorld(FakeGateway(), {}))
    watch = machine.watches.add(ROOM, lambda: None)
    users = [{"userId": name, "connections": 1, "since": "2026-01-31T09:30:00.125Z"} for name in "abc"]
    for event, document in (("present", {"users": users, "anonymous": 2, "complete": True}), *news):
        machine.presence(f"gapless:{event}", {"room": ROOM, **document})
    return watch.present


def change(user: str | None, connections: int, *, online: bool = True) -> tuple[str, dict[str, Any]]:
    return "presence", {"userId": user, "online": online, "connections": connections}


def test_changes_are_put_into_what_is_known() -> None:
    def after(*news: tuple[str, dict[str, Any]]) -> tuple[dict[str, int], int]:
        present = told(*news)
        assert present is not None
        return who(present), present.anonymous

    assert after() == ({"a": 1, "b": 1, "c": 1}, 2)
    assert after(change("b", 2), change("d", 1)) == ({"a": 1, "b": 2, "c": 1, "d": 1}, 2)
    assert after(change("b", 0, online=False), change("x", 0, online=False)) == ({"a": 1, "c": 1}, 2)
    assert after(change(None, 5), change(None, 0, online=False)) == ({"a": 1, "b": 1, "c": 1}, 0)
    assert after(("present", {"users": [], "anonymous": 0, "complete": False})) == ({}, 0)


def test_what_is_known_of_a_member_stays() -> None:
    present = told(change("b", 3))
    assert present is not None
    assert present.users[1] == Member(user_id="b", connections=3, since="2026-01-31T09:30:00.125Z")
