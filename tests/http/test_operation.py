"""Connect, health, metrics, the API's description, the pages' files, and other origins."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gapless.auth import DevelopmentGate
from gapless.eventlog.memory import MemoryLog
from gapless.transports.http import HttpDoors, HttpOptions, Offers, Sample
from gapless.transports.http import __all__ as public
from gapless.transports.http.connect import ConnectAnswer
from gapless.transports.http.metrics import families
from gapless.transports.http.openapi import openapi_document
from gapless.transports.http.pages import FOLDER
from gapless.transports.http.schemas import AcceptedEvent, AcceptedEvents, EventPage
from tests.http.conftest import LIMITS, OPTIONS, Site, client, running, stream
from tests.http.test_rest import error_of

OFFERS = Offers(mqtt_port=1883, mqtts_port=8883)


def test_the_public_names() -> None:
    assert public == ["Front", "HttpDoors", "HttpOptions", "Offers", "Paths", "Sample"]


# --- connect


async def connect(site: Site, query: str = "", **headers: str) -> dict[str, Any]:
    async with client(site) as http:
        response = await http.get(f"/api/connect{query}", headers=headers)
    assert response.status_code == 200, response.text
    msgspec.json.decode(response.content, type=ConnectAnswer)
    answer: dict[str, Any] = response.json()
    return answer


async def test_connect_says_all_a_client_needs() -> None:
    async with running(Site(offers=lambda: OFFERS)) as site:
        await site.publish()
        answer = await connect(site, "?rooms=user:7,lead:1")
        assert (answer["epoch"], answer["position"]) == (site.log.epoch, f"{site.log.epoch}:1")
        at = f"127.0.0.1:{site.port}"
        query = "?rooms=lead:1,user:7"
        assert [(way["name"], way["url"]) for way in answer["transports"]] == [
            ("socketio", f"http://{at}/socket.io/"),
            ("mqtt", "mqtts://127.0.0.1:8883"),
            ("mqtt", "mqtt://127.0.0.1:1883"),
            ("mqtt-websocket", f"ws://{at}/mqtt"),
            ("sse", f"http://{at}/api/stream{query}"),
            ("poll", f"http://{at}/api/events{query}"),
        ]
        verbs = ("created", "updated", "assigned")
        lead, user = answer["rooms"]
        assert lead == {
            "room": "lead:1",
            "room_filter": "$room/lead:1",
            "filters": [f"crm/leads/1/{verb}" for verb in verbs],
            "mqtt": False,
            "match": [
                *({"pattern": f"crm/leads/{{leadId}}/{verb}", "room": "lead:{leadId}"} for verb in verbs),
                {"pattern": "crm/activities/{activityId}/created", "room": "lead:{data.leadId}"},
            ],
        }
        assert user["filters"] == ["crm/users/7/presence", "crm/users/7/notifications/+"]
        assert user["mqtt"] is True
        assert answer["keepalive"] == {
            "mqtt_seconds": 60,
            "sse_heartbeat_seconds": 15.0,
            "poll_max_wait_seconds": 60.0,
        }


async def test_connect_offers_only_what_there_is() -> None:
    offers = Offers(socketio_path=None, mqtt_path=None)
    async with running(Site(offers=lambda: offers)) as site:
        answer = await connect(site)
        assert [way["name"] for way in answer["transports"]] == ["sse", "poll"]
        (lead,) = (await connect(site, "?rooms=lead:1"))["rooms"]
        assert "room_filter" not in lead


async def test_connect_names_the_public_address() -> None:
    options = HttpOptions(public_url="https://events.example.com/live/")
    async with running(Site(options=options, offers=lambda: OFFERS)) as site:
        urls = [way["url"] for way in (await connect(site))["transports"]]
        assert urls == [
            "https://events.example.com/live/socket.io/",
            "mqtts://events.example.com:8883",
            "mqtt://events.example.com:1883",
            "wss://events.example.com/live/mqtt",
            "https://events.example.com/live/api/stream",
            "https://events.example.com/live/api/events",
        ]


@pytest.mark.parametrize("host", ["[::1]:8080", "[::1]", "events.example.com", "localhost:1"])
async def test_connect_takes_the_address_the_client_used(host: str) -> None:
    async with running(Site(offers=lambda: OFFERS)) as site:
        ways = (await connect(site, host=host))["transports"]
        assert ways[0]["url"] == f"http://{host}/socket.io/"
        assert ways[2]["url"] == f"mqtt://{re.sub(':[0-9]+$', '', host) if host != '[::1]' else host}:1883"


@pytest.mark.parametrize("host", ["a b", 'evil"', "user@host", "host/path", "a:b:c"])
async def test_connect_repeats_no_strange_host(site: Site, http: httpx.AsyncClient, host: str) -> None:
    error_of(await http.get("/api/connect", headers={"host": host}), 400, "invalid_request")


async def test_connect_refuses_unknown_rooms_and_strangers(site: Site, http: httpx.AsyncClient) -> None:
    error_of(await http.get("/api/connect?rooms=nothing:1"), 404, "unknown_room")
    async with running(Site(gate=DevelopmentGate("s3cret"))) as closed, client(closed) as stranger:
        error_of(await stranger.get("/api/connect"), 401, "unauthorized")


async def test_connect_tells_rooms_that_are_refused_beside_the_others(site: Site) -> None:
    answer = await connect(site, "?rooms=nothing:1,lead:1,topic:other/thing&partial=1")
    *heard, refused = answer["rooms"]
    assert [room["room"] for room in heard] == ["lead:1", "topic:other/thing"]
    assert heard[1] == {
        "room": "topic:other/thing",
        "room_filter": "$room/topic:other/thing",
        "filters": ["other/thing"],
        "mqtt": True,
    }
    assert (refused["room"], refused["error"]["code"]) == ("nothing:1", "unknown_room")


# --- health


async def test_alive_and_ready(site: Site, http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"alive": True}
    response = await http.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"ready": True, "components": {"doors": "ok", "log": "ok"}})


async def test_not_ready_while_a_component_has_a_problem() -> None:
    state = {"link": "not connected to mqtt://broker:1883"}
    async with running(Site(status=lambda: state)) as site, client(site) as http:
        response = await http.get("/readyz")
        assert response.status_code == 503
        assert response.json() == {"ready": False, "components": {"doors": "ok", "log": "ok", **state}}
        state["link"] = "ok"
        assert (await http.get("/readyz")).status_code == 200


async def test_not_ready_where_the_log_is_closed_or_the_doors_stop(site: Site, http: httpx.AsyncClient) -> None:
    await site.log.close()
    response = await http.get("/readyz")
    assert response.status_code == 503
    assert response.json()["components"]["log"] != "ok"
    assert (await http.get("/healthz")).status_code == 200
    await site.doors.stop()
    assert (await http.get("/readyz")).json()["components"]["doors"] != "ok"


class _StuckLog(MemoryLog):
    def write_state(self, writes: object, *, durable: bool) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()


async def test_not_ready_where_no_write_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapless.transports.http.health._PROBE_SECONDS", 0.01)
    async with running(Site(log=_StuckLog())) as site, client(site) as http:
        response = await http.get("/readyz")
        assert response.status_code == 503
        assert "no write" in response.json()["components"]["log"]


async def test_the_probe_leaves_nothing_in_the_log(site: Site, http: httpx.AsyncClient) -> None:
    from gapless.eventlog import StateKind

    await http.get("/readyz")
    assert [await site.log.all_state(kind) for kind in StateKind] == [{}] * len(StateKind)


# --- metrics


async def metrics(http: httpx.AsyncClient) -> dict[tuple[str, tuple[str, ...]], float]:
    response = await http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_metrics_count_what_happens(site: Site, http: httpx.AsyncClient) -> None:
    async with stream(http, "rooms=lead:1") as events:
        await events.next()
        await http.post("/api/events", json={"topic": "crm/leads/1/updated", "id": "a"})
        await http.post("/api/events", json={"topic": "crm/leads/1/updated", "id": "a"})
        await http.post("/api/events", json={"topic": "crm/notes/1/collaboration", "data": {"kind": "awareness"}})
        await http.get("/api/events?rooms=lead:1&after=start")
        await http.get("/nothing")
        await http.post("/api/events", json={})
        await events.event()
        found = await metrics(http)
    expected = {
        ("gapless_events_accepted_total", ("true",)): 1,
        ("gapless_events_accepted_total", ("false",)): 1,
        ("gapless_events_duplicate_total", ()): 1,
        ("gapless_log_head_offset", ()): 1,
        ("gapless_log_oldest_offset", ()): 1,
        ("gapless_hub_head_offset", ()): 1,
        ("gapless_connections", ("sse",)): 1,
        ("gapless_connections", ("poll",)): 0,
        ("gapless_http_answers_total", ("201",)): 3,
        ("gapless_http_answers_total", ("200",)): 1,
        ("gapless_http_answers_total", ("400",)): 1,
    }
    assert {key: found.get(key) for key in expected} == expected
    delivered = {key[1]: value for key, value in found.items() if key[0] == "gapless_events_delivered_total"}
    assert sorted(delivered.values()) == [0, 1, 1]


async def test_other_parts_add_their_figures() -> None:
    def samples() -> list[Sample]:
        help_text = "Clients connected now."
        return [Sample("gapless_connections", "gauge", help_text, 3, {"transport": "mqtt"})]

    async with running(Site(samples=samples)) as site, client(site) as http:
        found = await metrics(http)
        assert found["gapless_connections", ("mqtt",)] == 3
        assert found["gapless_connections", ("sse",)] == 0
        text = (await http.get("/metrics")).text
        assert Counter(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))["gapless_connections"] == 1


def test_samples_of_a_name_are_one_family() -> None:
    (family,) = families(Sample("x", "counter", "X.", value, {"a": str(value)}) for value in (1.0, 2.0))
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"a": "1.0"}, 1.0), ({"a": "2.0"}, 2.0)]


async def test_openmetrics_where_asked_for(site: Site, http: httpx.AsyncClient) -> None:
    response = await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


# --- the API's description


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        found = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return found + [reference for value in node.values() for reference in references(value)]
    if isinstance(node, list):
        return [reference for value in node for reference in references(value)]
    return []


def test_every_reference_of_the_description_leads_somewhere() -> None:
    document = openapi_document(LIMITS, OPTIONS)
    found = references(document)
    assert len(found) > 30
    for reference in found:
        node: Any = document
        for key in reference.removeprefix("#/").split("/"):
            node = node[key]
        assert isinstance(node, dict)
    operations = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(operations)) == len(operations)


async def test_the_description_and_the_doors_say_the_same(site: Site, http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    described = {(path, verb.upper()) for path, verbs in document["paths"].items() for verb in verbs}
    served = {
        (path, method)
        for path, endpoint in site.doors.paths.items()
        for method in getattr(endpoint, "_handlers")  # noqa: B009 it is private to the endpoint
        if method != "HEAD" and not path.startswith("/assets/")
    }
    pages = {("/", "GET"), ("/docs", "GET"), ("/openapi.json", "GET")}
    assert described == served - pages


async def test_its_examples_are_taken_as_they_stand(site: Site, http: httpx.AsyncClient) -> None:
    operation = openapi_document(LIMITS, OPTIONS)["paths"]["/api/events"]["post"]
    for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
        response = await http.post("/api/events", json=example["value"])
        assert response.status_code == 201, response.text
        kind = AcceptedEvents if isinstance(example["value"], list) else AcceptedEvent
        msgspec.json.decode(response.content, type=kind)
    lines = operation["requestBody"]["content"]["application/x-ndjson"]["examples"]["lines"]["value"]
    headers = {"content-type": "application/x-ndjson"}
    assert (await http.post("/api/events", content=lines, headers=headers)).status_code == 201
    response = await http.get("/api/events?rooms=org:global&after=start")
    page = msgspec.json.decode(response.content, type=EventPage)
    assert len(page.events) == 5


# --- the pages' files


async def test_the_pages_are_served_under_a_strict_policy(site: Site, http: httpx.AsyncClient) -> None:
    for path in ("/", "/docs", "/assets/app.js", "/assets/style.css", "/assets/icon.svg"):
        response = await http.get(path)
        assert response.status_code == 200
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        again = await http.get(path, headers={"if-none-match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        head = await http.head(path)
        assert (head.status_code, head.content) == (200, b"")


def test_the_pages_hold_nothing_inline_and_nothing_from_elsewhere() -> None:
    pages = [path for path in FOLDER.iterdir() if path.suffix in (".html", ".js", ".css", ".svg")]
    assert len(pages) >= 8
    for path in pages:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""(src|href|url|import|from)\s*[=(]?\s*["'(]?\s*(https?:)?//""", text), path.name
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", text), path.name


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fapp.py", "%2e%2e", "app.py"])
async def test_no_other_file_can_be_named(http: httpx.AsyncClient, name: str) -> None:
    error_of(await http.get(f"/assets/{name}"), 404, "not_found")


async def test_the_page_can_be_left_out() -> None:
    async with running(Site(options=HttpOptions(pages=False))) as site, client(site) as http:
        error_of(await http.get("/"), 404, "not_found")
        assert (await http.get("/docs")).status_code == 200


# --- other origins


async def test_other_origins_get_nothing_by_default(site: Site, http: httpx.AsyncClient) -> None:
    response = await http.get("/api/events?rooms=lead:1", headers={"origin": "https://elsewhere.example"})
    error_of(response, 403, "forbidden")
    assert "access-control-allow-origin" not in response.headers
    preflight = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    response = await http.options("/api/events", headers=preflight)
    error_of(response, 403, "forbidden")
    assert "access-control-allow-origin" not in response.headers


async def test_allowed_origins_may_use_the_api() -> None:
    origin = "https://app.example"
    async with running(Site(options=HttpOptions(origins=(origin,)))) as site, client(site) as http:
        preflight = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,authorization",
        }
        response = await http.options("/api/events", headers=preflight)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == origin
        event = {"topic": "crm/leads/1/updated"}
        response = await http.post("/api/events", json=event, headers={"origin": origin})
        assert response.status_code == 201
        assert response.headers["access-control-allow-origin"] == origin
        other = await http.get("/api/events?rooms=lead:1", headers={"origin": "https://elsewhere.example"})
        assert "access-control-allow-origin" not in other.headers
        async with http.stream("GET", "/api/stream?rooms=lead:1", headers={"origin": origin}) as response:
            assert response.headers["access-control-allow-origin"] == origin


async def test_doors_can_be_made_before_the_log_is_open() -> None:
    site = Site()
    assert isinstance(site.doors, HttpDoors)
    async with running(site), client(site) as http:
        assert (await http.get("/readyz")).status_code == 200
