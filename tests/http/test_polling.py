"""`GET /api/events`: history, long poll, exact positions, and honesty about gaps."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from gapless.auth import DevelopmentGate, Identity
from gapless.errors import Forbidden, GaplessError
from gapless.eventlog import Retention
from gapless.eventlog.memory import MemoryLog
from gapless.transports.http import HttpOptions
from tests.http.conftest import Site, client, running
from tests.http.test_rest import error_of


async def poll(http: httpx.AsyncClient, query: str = "", **parameters: Any) -> dict[str, Any]:
    response = await http.get("/api/events", params={"rooms": "lead:1", **parameters})
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    answer: dict[str, Any] = response.json()
    assert set(answer) == {"position", "complete", "events"}
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [event["id"] for event in answer["events"]]


async def waiting(site: Site, count: int = 1) -> None:
    while site.doors.polling.waiting != count:
        await asyncio.sleep(0)


async def test_without_a_position_it_starts_now(site: Site, http: httpx.AsyncClient) -> None:
    await site.publish()
    answer = await poll(http)
    assert answer == {"position": f"{site.log.epoch}:1", "complete": True, "events": []}


async def test_history_comes_in_order_and_ends_at_the_head(site: Site, http: httpx.AsyncClient) -> None:
    for number in range(5):
        await site.publish(id=f"e{number}")
        await site.publish(data={"leadId": "2"})
    first = await poll(http, after="start", limit=2)
    assert ids(first) == ["e0", "e1"]
    assert first["position"] == f"{site.log.epoch}:3"  # that of e1: the rest comes next
    second = await poll(http, after=first["position"])
    assert ids(second) == ["e2", "e3", "e4"]
    assert second["position"] == f"{site.log.epoch}:10"
    assert ids(await poll(http, after=second["position"])) == []


async def test_an_event_is_the_envelope(site: Site, http: httpx.AsyncClient) -> None:
    accepted = await site.publish(id="a", userId="7", time="2026-01-31T09:30:00.125Z", data={"leadId": "1", "x": [1]})
    (event,) = (await poll(http, after="start"))["events"]
    assert event == {
        "id": "a",
        "type": "lead:updated",
        "topic": "crm/leads/1/updated",
        "data": {"leadId": "1", "x": [1]},
        "time": "2026-01-31T09:30:00.125Z",
        "userId": "7",
        "position": accepted.position,
        "leadId": "1",
    }


async def test_an_event_in_several_of_the_rooms_comes_once(site: Site, http: httpx.AsyncClient) -> None:
    waiter = asyncio.create_task(poll(http, rooms="lead:1,org:global", wait=20))
    await waiting(site)
    await site.publish(id="a")
    assert ids(await waiter) == ["a"]
    assert ids(await poll(http, rooms="lead:1,org:global", after="start")) == ["a"]


async def test_repeated_rooms_are_joined(site: Site, http: httpx.AsyncClient) -> None:
    await site.publish(id="a")
    response = await http.get("/api/events?rooms=user:1&rooms=lead:1&after=start")
    assert ids(response.json()) == ["a"]


async def test_a_wait_ends_with_the_next_event(site: Site, http: httpx.AsyncClient) -> None:
    waiter = asyncio.create_task(poll(http, wait=20))
    await waiting(site)
    await site.publish(data={"leadId": "2"})
    accepted = await site.publish(id="mine")
    answer = await waiter
    assert ids(answer) == ["mine"]
    assert answer["position"] == accepted.position
    assert site.doors.polling.waiting == 0


async def test_a_burst_is_one_answer(site: Site, http: httpx.AsyncClient) -> None:
    waiter = asyncio.create_task(poll(http, wait=20))
    await waiting(site)
    await asyncio.gather(*(site.publish(id=f"e{number}") for number in range(10)))
    assert ids(await waiter) == [f"e{number}" for number in range(10)]


async def test_a_burst_past_the_limit_goes_on_in_the_next_answer(site: Site, http: httpx.AsyncClient) -> None:
    waiter = asyncio.create_task(poll(http, wait=20, limit=3))
    await waiting(site)
    await asyncio.gather(*(site.publish(id=f"e{number}") for number in range(5)))
    first = await waiter
    assert ids(first) == ["e0", "e1", "e2"]
    assert ids(await poll(http, after=first["position"])) == ["e3", "e4"]


async def test_an_answer_is_bounded_in_bytes() -> None:
    async with running(Site(options=HttpOptions(poll_bytes=1000))) as site, client(site) as http:
        for number in range(4):
            await site.publish(id=f"e{number}", data={"leadId": "1", "text": "x" * 600})
        first = await poll(http, after="start")
        assert ids(first) == ["e0", "e1"]
        assert ids(await poll(http, after=first["position"])) == ["e2", "e3"]


async def test_a_wait_that_is_over_answers_empty(site: Site, http: httpx.AsyncClient) -> None:
    answer = await poll(http, wait=0.01)
    assert answer == {"position": f"{site.log.epoch}:0", "complete": True, "events": []}


async def test_a_longer_wait_than_the_longest_is_the_longest() -> None:
    async with running(Site(options=HttpOptions(poll_max_wait=0.01))) as site, client(site) as http:
        assert ids(await poll(http, wait=3600)) == []


async def test_ephemeral_events_reach_those_who_wait(site: Site, http: httpx.AsyncClient) -> None:
    waiter = asyncio.create_task(poll(http, rooms="note:9", wait=20))
    await waiting(site)
    await site.publish(topic="crm/notes/9/collaboration", id="cursor", data={"kind": "awareness"})
    answer = await waiter
    assert ids(answer) == ["cursor"]
    assert answer["events"][0]["position"] is None
    assert answer["position"] == f"{site.log.epoch}:0"
    assert ids(await poll(http, rooms="note:9", after="start")) == []


async def test_expired_events_are_left_out(site: Site, http: httpx.AsyncClient) -> None:
    await http.post("/api/events", json={"topic": "crm/leads/1/updated", "id": "old", "expires_in": 0.001})
    await http.post("/api/events", json={"topic": "crm/leads/1/updated", "id": "new", "expires_in": 600})
    clock = site.ingress.clock
    site.doors.polling._clock = lambda: clock() + 60
    assert ids(await poll(http, after="start")) == ["new"]


@pytest.mark.parametrize("recent_events", [100_000, 1])
async def test_a_position_older_than_what_is_kept_is_not_complete(recent_events: int) -> None:
    log = MemoryLog(retention=Retention(seconds=0, bytes=None), clock=lambda: 1.0)
    async with running(Site(log=log, recent_events=recent_events)) as site, client(site) as http:
        for number in range(3):
            await site.publish(id=f"e{number}")
        await log.trim(now=100.0)
    site = Site(log=log, recent_events=recent_events)
    async with running(site), client(site) as http:
        await site.publish(id="e3")
        answer = await poll(http, after=f"{log.epoch}:1", wait=20)
        assert (answer["complete"], ids(answer)) == (False, ["e3"])
        assert answer["position"] == f"{log.epoch}:4"
        answer = await poll(http, after=f"{log.epoch}:3")
        assert (answer["complete"], ids(answer)) == (True, ["e3"])
        answer = await poll(http, after="start")
        assert (answer["complete"], ids(answer)) == (True, ["e3"])


async def test_a_position_of_another_epoch_starts_again_at_the_head(site: Site, http: httpx.AsyncClient) -> None:
    await site.publish()
    answer = await poll(http, after="other:99", wait=20)
    assert answer == {"position": f"{site.log.epoch}:1", "complete": False, "events": []}


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "invalid_request"),
        ("rooms=", 400, "invalid_request"),
        ("rooms=nothing:1", 404, "unknown_room"),
        ("rooms=lead:1,nothing:1", 404, "unknown_room"),
        ("rooms=lead:1&after=", 400, "invalid_position"),
        ("rooms=lead:1&after=5", 400, "invalid_position"),
        ("rooms=lead:1&after=a:-1", 400, "invalid_position"),
        ("rooms=lead:1&after=a:b", 400, "invalid_position"),
        ("rooms=lead:1&after=a:99999999999999999999", 400, "invalid_position"),
        ("rooms=lead:1&after=a:1&after=a:2", 400, "invalid_request"),
        ("rooms=lead:1&limit=0", 400, "invalid_request"),
        ("rooms=lead:1&limit=-1", 400, "invalid_request"),
        ("rooms=lead:1&limit=ten", 400, "invalid_request"),
        ("rooms=lead:1&limit=9999999999", 400, "invalid_request"),
        ("rooms=lead:1&wait=-1", 400, "invalid_request"),
        ("rooms=lead:1&wait=nan", 400, "invalid_request"),
        ("rooms=lead:1&wait=inf", 400, "invalid_request"),
        ("rooms=lead:1&wait=soon", 400, "invalid_request"),
        ("rooms=%ff", 400, "invalid_request"),
        ("&".join("x=1" for _ in range(1001)), 400, "invalid_request"),
        (",".join(["rooms=lead:0", *(f"lead:{number}" for number in range(1, 257))]), 400, "invalid_request"),
    ],
)
async def test_a_bad_query_is_refused_by_name(http: httpx.AsyncClient, query: str, status: int, code: str) -> None:
    error_of(await http.get(f"/api/events?{query}"), status, code)
    if "limit" not in query and "wait" not in query:
        error_of(await http.get(f"/api/stream?{query}"), status, code)


async def test_a_position_ahead_of_the_log_is_refused(site: Site, http: httpx.AsyncClient) -> None:
    error_of(await http.get(f"/api/events?rooms=lead:1&after={site.log.epoch}:1"), 400, "invalid_position")


class _NotLead1(DevelopmentGate):
    def check_subscribe_room(self, identity: Identity, room: str) -> None:
        if room == "lead:1":
            raise Forbidden("not lead:1")


async def test_the_gate_decides_who_hears_a_room() -> None:
    async with running(Site(gate=_NotLead1())) as site, client(site) as http:
        error_of(await http.get("/api/events?rooms=lead:2,lead:1"), 403, "forbidden")
        error_of(await http.get("/api/stream?rooms=lead:2,lead:1"), 403, "forbidden")
        assert (await http.get("/api/events?rooms=lead:2")).status_code == 200


async def test_stopping_answers_every_poll(site: Site, http: httpx.AsyncClient) -> None:
    polls = [asyncio.create_task(poll(http, wait=60)) for _ in range(20)]
    await waiting(site, 20)
    await site.doors.stop()
    answers = await asyncio.gather(*polls)
    assert all(answer["complete"] and not answer["events"] for answer in answers)
    assert ids(await poll(http, wait=60)) == []  # and later ones do not wait


async def test_a_client_that_leaves_waits_no_more(site: Site, http: httpx.AsyncClient) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /api/events?rooms=lead:1&wait=60 HTTP/1.1\r\nHost: x\r\n\r\n")
    await waiting(site)
    writer.close()
    await waiting(site, 0)


async def test_too_many_polls_are_turned_away() -> None:
    async with running(Site(options=HttpOptions(max_polls=1))) as site, client(site) as http:
        first = asyncio.create_task(poll(http, wait=60))
        await waiting(site)
        error = error_of(await http.get("/api/events?rooms=lead:1&wait=60"), 503, "overloaded")
        assert error["retryable"]
        await site.publish(id="a")
        assert ids(await first) == ["a"]


async def test_many_waiters_hear_one_event() -> None:
    count = 500
    async with running(Site()) as site:
        connections = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(count)]
        for _, writer in connections:
            writer.write(b"GET /api/events?rooms=lead:1&wait=60 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await waiting(site, count)
        await site.publish(id="a")
        for reader, writer in connections:
            _, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert ids(json.loads(body)) == ["a"]
            writer.close()
        assert site.doors.polling._readers._by_room == {}


async def test_polling_on_misses_nothing_while_events_pour_in(site: Site, http: httpx.AsyncClient) -> None:
    total = 300

    async def pour() -> None:
        for number in range(total):
            await site.publish(id=f"e{number}")
            if number % 7 == 0:
                await asyncio.sleep(0)

    got: list[str] = []
    position = "start"
    pouring = asyncio.create_task(pour())
    while len(got) < total:
        answer = await poll(http, after=position, wait=20, limit=11)
        assert answer["complete"]
        position = answer["position"]
        got += ids(answer)
    await pouring
    assert got == [f"e{number}" for number in range(total)]


async def test_a_defect_is_a_500_in_our_form(
    site: Site, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(site.hub, "page_now", lambda *_, **__: None)
    monkeypatch.setattr(site.hub, "page", fail)
    await site.publish()
    response = await http.get("/api/events?rooms=lead:1&after=start")
    error = error_of(response, 500, GaplessError.code)
    assert "broken" not in response.text
    assert error["retryable"] is False
    assert any(record.exc_info and record.name == "gapless.http" for record in caplog.records)
