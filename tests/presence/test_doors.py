"""Presence as clients of each door see it, in a real gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gapless.auth import Credentials
from gapless.config import Settings
from gapless.errors import ConfigError
from gapless.eventlog import MemoryLog
from gapless.gateway import Gateway
from gapless.mqtt import ProtocolVersion
from gapless.presence import PresenceOptions
from tests.gates import TableGate
from tests.http.conftest import stream
from tests.mqtt_edge.support import Client, until
from tests.socketio.conftest import JsClient, js_client

AT_ONCE = PresenceOptions(grace=0.0, start_grace=0.0, interval=0.0)
PATIENT = PresenceOptions(grace=3600.0, interval=0.0)


@asynccontextmanager
async def serving(options: PresenceOptions = AT_ONCE, **settings: Any) -> AsyncIterator[tuple[Gateway, TableGate]]:
    gate = TableGate()
    for user in ("ana", "bob"):
        gate.hears[user] |= {"lead:1", "lead:2", "crm/leads/1/#", "crm/users/ana/presence"}
        gate.says[user].add("crm/users/ana/presence")
    async with Gateway(Settings(port=0, mqtt_port=0, data=None, presence=options, **settings), gate=gate) as gateway:
        yield gateway, gate


def web(gateway: Gateway, user: str = "ana") -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {user}"}
    return httpx.AsyncClient(base_url=gateway.http_url, headers=headers, timeout=20, trust_env=False)


def who(gateway: Gateway, room: str = "lead:1") -> dict[str, int]:
    return {person.user_id: person.connections for person in gateway.presence.snapshot(room).users}


def mqtt_port(gateway: Gateway) -> int:
    assert gateway.mqtt_url is not None
    return int(gateway.mqtt_url.rpartition(":")[2])


async def phone(gateway: Gateway, user: str = "ana", **options: Any) -> Client:
    client, _ = await Client.connect(mqtt_port(gateway), f"phone-{user}", password=user.encode(), **options)
    return client


@asynccontextmanager
async def tab(gateway: Gateway, js: Path, user: str = "ana") -> AsyncIterator[JsClient]:
    async with js_client(js) as client:
        await client.connect(gateway.http_url, auth={"token": user}, transports=["websocket"])
        yield client


async def test_two_tabs_of_a_user_and_one_is_closed(js: Path) -> None:
    async with serving() as (gateway, _), tab(gateway, js, "bob") as bob, tab(gateway, js) as first:
        answer = await bob.request("presence", {"rooms": ["lead:1"]})
        assert answer == {"ok": True, "rooms": {"lead:1": {"users": [], "anonymous": 0, "complete": True}}}
        await first.request("subscribe", {"rooms": ["lead:1"]})
        came = {"room": "lead:1", "userId": "ana", "online": True, "connections": 1}
        assert await bob.event() == ["gapless:presence", came]
        async with tab(gateway, js) as second:
            await second.request("subscribe", {"rooms": ["lead:1"]})
            assert await bob.event() == ["gapless:presence", {**came, "connections": 2}]
        assert await bob.event() == ["gapless:presence", came]
        await first.do("disconnect")
        assert await bob.event() == ["gapless:presence", {**came, "online": False, "connections": 0}]


async def test_a_reload_makes_nobody_flicker(js: Path) -> None:
    async with serving(PATIENT) as (gateway, _), tab(gateway, js, "bob") as bob:
        await bob.request("presence", {"rooms": ["lead:1"]})
        for _ in range(2):
            async with tab(gateway, js) as ana:
                await ana.request("subscribe", {"rooms": ["lead:1"]})
        await until(lambda: who(gateway) == {"ana": 0})
        await bob.request("subscribe", {"rooms": ["lead:1"]})
        told = [(await bob.event())[1] for _ in range(2)]
        assert [(one["userId"], one["online"]) for one in told] == [("ana", True), ("bob", True)]
        answer = await bob.request("presence", {"rooms": ["lead:1"], "live": False})
        (ana_there, _) = answer["rooms"]["lead:1"]["users"]
        assert ana_there["connections"] == 0
        assert ana_there["lastSeen"] >= ana_there["since"]
        assert gateway.presence.watchers == 0


async def test_nobody_sees_a_room_that_they_may_not_hear(js: Path) -> None:
    async with serving() as (gateway, gate), tab(gateway, js, "eve") as eve, web(gateway, "eve") as http:
        gate.hears["eve"].add("lead:2")
        answer = await eve.request("presence", {"rooms": ["lead:2", "lead:1"]})
        assert answer["error"]["code"] == "forbidden"
        assert (await http.get("/api/presence?room=lead:2,lead:1")).status_code == 403
        assert (await http.get("/api/presence?room=nothing:1")).status_code == 404
        assert (await http.get("/api/presence")).status_code == 400
        assert (await http.get("/api/presence?room=lead:2", headers={"authorization": ""})).status_code == 401
        assert (await eve.request("presence", {"rooms": ["lead:2"]}))["ok"]
        gate.take("eve", "lead:2")
        async with tab(gateway, js) as ana:
            await ana.request("subscribe", {"rooms": ["lead:2"]})
            assert await eve.event() == ["gapless:revoked", {"rooms": ["lead:2"]}]
        assert gateway.presence.watchers == 0


async def test_a_phone_is_in_the_rooms_that_its_filters_cover() -> None:
    async with serving() as (gateway, _), web(gateway, "bob") as http:
        client = await phone(gateway, expiry=3600)
        await client.subscribe("crm/leads/1/#")
        answer = (await http.get("/api/presence?room=lead:1,lead:2")).json()
        (there,) = answer["rooms"]["lead:1"]["users"]
        assert (there["userId"], there["connections"], answer["rooms"]["lead:2"]["users"]) == ("ana", 1, [])
        await client.drop()
        await until(lambda: who(gateway) == {})
        client = await phone(gateway, clean=False, expiry=3600)  # its session has the subscription
        assert who(gateway) == {"ana": 1}
        await client.unsubscribe("crm/leads/1/#")
        await until(lambda: who(gateway) == {})
        assert gateway.presence.is_online("ana")


async def test_a_stream_is_there_and_is_told() -> None:
    async with serving() as (gateway, gate), web(gateway) as http:
        async with stream(http, "rooms=lead:1&presence=1") as events:
            await events.next()  # the position
            name, whole, own_id = await events.next()
            assert (name, own_id) == ("gapless.present", None)
            assert [(one["userId"], one["connections"]) for one in whole["users"]] == [("ana", 1)]
            gateway.presence.entered(await identity(gate, "bob"), ["lead:1"])
            name, change, own_id = await events.next()
            assert (name, own_id) == ("gapless.presence", None)
            assert change == {"room": "lead:1", "userId": "bob", "online": True, "connections": 1}
        await until(lambda: "ana" not in who(gateway))
        assert gateway.presence.watchers == 0


async def test_a_stream_that_loses_a_room_is_there_no_more() -> None:
    async with serving() as (gateway, gate), web(gateway) as http:
        async with stream(http, "rooms=lead:1,lead:2&presence=1"):
            assert who(gateway) == {"ana": 1}
            gate.take("ana", "lead:1")
            await until(lambda: who(gateway) == {})
            assert who(gateway, "lead:2") == {"ana": 1}
        await until(lambda: who(gateway, "lead:2") == {})


async def test_a_poll_that_waits_is_there_and_a_look_at_history_is_not() -> None:
    async with serving() as (gateway, _), web(gateway) as http:
        await http.get("/api/events?rooms=lead:1")
        assert who(gateway) == {}
        await http.get("/api/events?rooms=lead:1&wait=0.05")
        await until(lambda: who(gateway) == {})
    async with serving(PATIENT) as (gateway, _), web(gateway) as http:
        await http.get("/api/events?rooms=lead:1&wait=0.01")
        assert who(gateway) == {"ana": 0}


async def identity(gate: TableGate, user: str) -> Any:
    return await gate.authenticate(Credentials(token=user))


def told(gateway: Gateway, user: str = "ana") -> bool | None:
    record = gateway.hub.retained.get(f"crm/users/{user}/presence")
    if record is None:
        return None
    online: bool = msgspec.json.decode(record.event.data)["online"]
    return online


async def publishing(options: PresenceOptions, log: Any = None) -> Gateway:
    gate = TableGate()
    gate.hears["ana"].add("crm/users/ana/presence")
    return Gateway(Settings(port=0, mqtt_port=0, data=None, presence=options), gate=gate, log=log)


async def test_the_maps_row_says_who_is_online() -> None:
    async with await publishing(AT_ONCE) as gateway:
        first = await phone(gateway)
        await first.subscribe("crm/users/ana/presence")
        packet = await first.receive()
        document = json.loads(packet.payload)
        assert (packet.topic, document["data"]["online"]) == ("crm/users/ana/presence", True)
        assert document["type"] == "user:presence"
        second, _ = await Client.connect(
            mqtt_port(gateway), "laptop", ProtocolVersion.V311, username="x", password=b"ana"
        )
        await first.drop()
        await until(lambda: gateway.mqtt.stats.connections == 1)
        assert told(gateway) is True
        await second.drop()
        await until(lambda: told(gateway) is False)
        assert gateway.log.head == 2


async def test_after_a_restart_only_those_who_do_not_come_back_are_told_offline() -> None:
    log = MemoryLog()
    async with await publishing(PATIENT, log) as gateway:
        for user in ("ana", "bob"):
            await phone(gateway, user)
        await until(lambda: told(gateway, "ana") is True and told(gateway, "bob") is True)
    head = log.head
    options = msgspec.structs.replace(PATIENT, start_grace=0.3, grace=0.0)
    async with await publishing(options, log) as gateway:
        await phone(gateway, "bob")
        await until(lambda: told(gateway, "ana") is False)
        assert told(gateway, "bob") is True
        assert log.head == head + 1


async def test_a_user_id_that_fits_no_topic_is_counted() -> None:
    async with await publishing(AT_ONCE) as gateway:
        await phone(gateway, "a/b")
        await phone(gateway, "ana")
        await until(lambda: told(gateway) is True)
        async with web(gateway, "admin") as http:
            text = (await http.get("/metrics")).text
        assert "gapless_presence_unfit_total 1.0" in text
        assert "gapless_present_users 2.0" in text


@pytest.mark.parametrize("topic", ["crm/users/presence", "crm/{userId}/{userId}", "x{userId}"])
def test_a_topic_without_the_user_is_refused(topic: str) -> None:
    with pytest.raises(ConfigError, match=r"presence\.publish"):
        PresenceOptions(publish=topic).check()
