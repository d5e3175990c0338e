"""The policy at the HTTP doors: who may, and what happens to those who are connected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gapless.event import Record
from gapless.eventlog import Page
from tests.gates import Clock, TableGate
from tests.http.conftest import Site, client, running, stream

ANA = {"authorization": "Bearer ana"}
MINE, OTHERS = "lead:1", "lead:2"
TOPIC = "crm/leads/1/updated"


@pytest.fixture
async def gate() -> TableGate:
    gate = TableGate(Clock())
    gate.hears["ana"] |= {MINE, "org:global"}
    gate.says["ana"].add(TOPIC)
    return gate


@pytest.fixture
async def site(gate: TableGate) -> AsyncIterator[Site]:
    async with running(Site(gate=gate)) as site:
        yield site


@pytest.fixture
async def http(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with client(site, headers=ANA) as http:
        yield http


async def reading(site: Site) -> None:
    """Until a poll waits."""
    while not site.doors.polling.waiting:
        await asyncio.sleep(0)


@pytest.mark.parametrize("path", ["/api/events", "/api/stream", "/api/connect"])
async def test_a_room_that_may_not_be_heard_is_refused_at_each_path(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path, params={"rooms": f"{MINE},{OTHERS}", "after": "start"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize("path", ["/api/events?rooms=lead:1", "/api/stream?rooms=lead:1", "/api/connect", "/metrics"])
async def test_nothing_is_answered_without_a_token(site: Site, path: str) -> None:
    async with client(site) as nobody:
        assert (await nobody.get(path)).status_code == 401


async def test_the_metrics_are_for_those_who_run_the_gateway(http: httpx.AsyncClient) -> None:
    assert (await http.get("/metrics")).status_code == 403
    assert (await http.get("/metrics", headers={"authorization": "Bearer admin"})).status_code == 200


async def test_the_gate_sees_door_and_address(gate: TableGate, http: httpx.AsyncClient) -> None:
    await http.get("/api/events", params={"rooms": MINE})
    await http.post("/api/events", json={"topic": TOPIC})
    shown = [
        (shown.door, shown.address, shown.token) for shown in gate.shown
    ]  # this server may have to wait for a body
    assert list(dict.fromkeys(shown)) == [
        ("poll", "127.0.0.1", "ana"),
        ("rest", "127.0.0.1", "ana"),
    ]


async def test_only_what_may_be_said_is_published(site: Site, http: httpx.AsyncClient) -> None:
    batch = [{"topic": TOPIC, "id": "a"}, {"topic": "crm/leads/2/updated", "id": "b"}]
    answer = await http.post("/api/events", json=batch)
    assert (answer.status_code, answer.json()["error"]["details"]["index"]) == (403, 1)
    assert site.hub.head == 0


async def test_the_application_is_asked_about_topics_before_events_are_taken_in(
    gate: TableGate, site: Site, http: httpx.AsyncClient
) -> None:
    gate.asks = {"crm/leads/2/updated": True, "crm/leads/3/updated": False}
    batch = [{"topic": TOPIC}, {"topic": "crm/leads/2/updated"}]
    assert (await http.post("/api/events", json=batch)).status_code == 201
    assert (await http.post("/api/events", json={"topic": "crm/leads/3/updated"})).status_code == 403
    assert gate.asked == ["crm/leads/2/updated", "crm/leads/3/updated"]
    assert site.log.head == 2


async def test_the_application_is_asked_about_rooms(gate: TableGate, http: httpx.AsyncClient) -> None:
    gate.asks = {"lead:2": True, "lead:3": False}
    assert (await http.get("/api/events", params={"rooms": "lead:2"})).status_code == 200
    assert (await http.get("/api/events", params={"rooms": "lead:3"})).status_code == 403


async def test_an_event_names_who_published_it_whatever_it_says(site: Site, http: httpx.AsyncClient) -> None:
    await http.post("/api/events", json={"topic": TOPIC, "userId": "boss"})
    (event,) = (await http.get("/api/events", params={"rooms": MINE, "after": "start"})).json()["events"]
    assert event["userId"] == "ana"


async def test_a_waiting_poll_is_answered_401_when_its_token_ends(gate: TableGate, site: Site) -> None:
    async with client(site, headers={"authorization": "Bearer ana@1010"}) as http:
        poll = asyncio.create_task(http.get("/api/events", params={"rooms": MINE, "wait": 30}))
        await reading(site)
        gate.leases._clock.now = 1010.0  # type: ignore[attr-defined]
        gate.leases.expire()
        answer = await poll
    assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (401, "expired")
    assert len(gate.leases) == 0


async def test_a_waiting_poll_hears_nothing_of_a_room_that_was_taken_away(
    gate: TableGate, site: Site, http: httpx.AsyncClient
) -> None:
    poll = asyncio.create_task(http.get("/api/events", params={"rooms": MINE, "wait": 30}))
    await reading(site)

    class TakeAway:
        """In the very step in which the event was handed to the poll."""

        def deliver(self, record: Record) -> None:
            gate.take("ana", MINE)

    site.hub.add(TakeAway())
    await site.publish()
    assert (await poll).status_code == 403


@pytest.mark.parametrize("told", [True, False], ids=["told", "the application's answer lapsed"])
async def test_a_poll_hears_nothing_of_a_room_that_was_taken_away_while_it_read(
    gate: TableGate, site: Site, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    if not told:
        gate.take("ana", MINE)
        gate.asks = {MINE: True}
    page = site.hub.page
    await site.publish("lead:updated", data={"leadId": "3"})

    async def slow(*args: Any, **more: Any) -> Page:
        read = await page(*args, **more)
        if told:
            gate.take("ana", MINE)
        else:
            gate.asks[MINE] = False
            gate._decided.clear()
        return read

    monkeypatch.setattr(site.hub, "page", slow)
    query = {"rooms": MINE, "after": "start", "wait": "30"}
    assert (await http.get("/api/events", params=query)).status_code == 403
    assert gate.asked == ([] if told else [MINE, MINE])
    assert site.doors.polling.waiting == 0


async def test_who_is_shut_out_while_its_request_comes_in_publishes_nothing(gate: TableGate, site: Site) -> None:
    body = json.dumps({"topic": TOPIC, "data": {}}).encode()
    head = b"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer ana\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:9])
    while not site.doors.rest._held:
        await asyncio.sleep(0.001)
    gate.barred.add("ana")
    writer.write(body[9:])
    assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
    writer.close()
    assert site.hub.head == 0
    assert site.doors.rest._held == 0


async def test_who_is_shut_out_while_the_application_is_asked_publishes_nothing(
    gate: TableGate, site: Site, http: httpx.AsyncClient
) -> None:
    gate.asks = {TOPIC: True}
    gate.may_answer.clear()
    publish = asyncio.create_task(http.post("/api/events", json={"topic": TOPIC, "data": {}}))
    await gate.asking.wait()
    gate.barred.add("ana")
    gate.may_answer.set()
    assert (await publish).status_code == 401
    assert site.hub.head == 0


@pytest.mark.parametrize(
    "path", ["/api/events?after=start&", "/api/presence?", "/api/connect?", "/api/connect?partial=1&", "/api/stream?"]
)
async def test_who_is_shut_out_while_the_application_is_asked_is_told_nothing(
    gate: TableGate, site: Site, http: httpx.AsyncClient, path: str
) -> None:
    await site.publish()
    gate.asks = {MINE: True}
    gate.may_answer.clear()
    ask = asyncio.create_task(http.get(f"{path}rooms={MINE}"))
    await gate.asking.wait()
    gate.barred.add("ana")
    gate.may_answer.set()
    answer = await ask
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


async def test_a_stream_says_why_it_ends(gate: TableGate, site: Site, http: httpx.AsyncClient) -> None:
    async with stream(http, f"rooms={MINE}") as events:
        await events.next()
        assert gate.revoke("ana") == 1
        name, data, own_id = await events.next()
        assert (name, data["code"], data["reason"], own_id) == ("gapless.unauthorized", "unauthorized", "revoked", None)
        with pytest.raises(EOFError):
            await events.next()
    assert len(gate.leases) == 0


async def test_a_stream_loses_a_room_and_keeps_the_others(gate: TableGate, site: Site, http: httpx.AsyncClient) -> None:
    async with stream(http, f"rooms={MINE},org:global") as events:
        await events.next()
        gate.take("ana", MINE)
        assert (await events.next())[:2] == ("gapless.revoked", {"rooms": [MINE]})
        await site.publish("activity:created", data={"activityId": "1", "leadId": "1"})
        assert (await events.event())["type"] == "activity:created"
        await site.publish(topic="crm/leads/1/viewed")
        gate.take("ana", "org:global")
        assert (await events.next())[0] == "gapless.revoked"
        with pytest.raises(EOFError):
            await events.next()


async def test_a_stream_waits_while_the_application_decides_again(
    gate: TableGate, site: Site, http: httpx.AsyncClient
) -> None:
    gate.asks = {MINE: True}
    async with stream(http, f"rooms={MINE},org:global") as events:
        await events.next()
        gate.forget(MINE)
        gate.asking.clear()
        gate.may_answer.clear()
        gate.leases.change(lambda _: True)
        await gate.asking.wait()
        await site.publish(data={"leadId": "1", "n": 1})
        gate.may_answer.set()
        assert (await events.event())["data"]["n"] == 1
