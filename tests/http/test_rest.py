"""`POST /api/events`: what is taken, what is refused and how, and that nothing accepted is lost."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from typing import Any

import httpx
import pytest

from gapless.auth import Credentials, DevelopmentGate, Identity
from gapless.errors import Forbidden
from gapless.eventlog import EVERYTHING
from gapless.limits import Limits
from gapless.topicmap import Row, TopicMap
from gapless.transports.http import HttpOptions
from tests.http.conftest import Site, client, running

LEAD = {"type": "lead:created", "data": {"leadId": "123", "name": "Acme Corp"}}
NDJSON = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}


async def logged(site: Site) -> list[str]:
    return [record.event.id for record in (await site.log.read(EVERYTHING, 0)).records]


def error_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code
    assert error["message"]
    return error


async def test_one_event_is_answered_with_its_place(site: Site, http: httpx.AsyncClient) -> None:
    response = await http.post("/api/events", json=LEAD)
    assert response.status_code == 201
    answer = response.json()
    assert answer == {
        "id": answer["id"],
        "topic": "crm/leads/123/created",
        "type": "lead:created",
        "position": f"{site.log.epoch}:1",
        "duplicate": False,
    }
    assert await logged(site) == [answer["id"]]


async def test_the_same_id_again_is_the_same_event(site: Site, http: httpx.AsyncClient) -> None:
    first = (await http.post("/api/events", json={**LEAD, "id": "a"})).json()
    again = await http.post("/api/events", json={**LEAD, "id": "a"})
    assert again.status_code == 201
    assert again.json() == {**first, "duplicate": True}
    assert await logged(site) == ["a"]


async def test_an_array_is_answered_in_its_order(site: Site, http: httpx.AsyncClient) -> None:
    events = [{**LEAD, "id": name} for name in ("a", "b", "a")]
    response = await http.post("/api/events", json=events)
    assert response.status_code == 201
    answers = response.json()["events"]
    assert [(answer["id"], answer["duplicate"]) for answer in answers] == [("a", False), ("b", False), ("a", True)]
    assert await logged(site) == ["a", "b"]


async def test_an_empty_array_stores_nothing(site: Site, http: httpx.AsyncClient) -> None:
    response = await http.post("/api/events", json=[])
    assert (response.status_code, response.json()) == (201, {"events": []})
    assert await logged(site) == []


async def test_one_event_per_line(site: Site, http: httpx.AsyncClient) -> None:
    lines = "\n".join(json.dumps({**LEAD, "id": name}) for name in "abc") + "\r\n\n"
    response = await http.post("/api/events", content=lines, headers=NDJSON)
    assert response.status_code == 201
    assert [answer["id"] for answer in response.json()["events"]] == ["a", "b", "c"]
    assert await logged(site) == ["a", "b", "c"]


async def test_all_fields_are_taken(site: Site, http: httpx.AsyncClient) -> None:
    event = {
        "topic": "crm/leads/123/updated",
        "data_base64": base64.b64encode(b"\0\1").decode(),
        "id": "x",
        "time": "2026-01-31T09:30:00.125Z",
        "userId": "7",
        "qos": 2,
        "retain": True,
        "expires_in": 60,
    }
    assert (await http.post("/api/events", json=event)).status_code == 201
    record = await site.log.find("x")
    assert record is not None
    stored = record.event
    assert (stored.data, stored.binary, stored.user_id, stored.qos, stored.retain) == (b"\0\1", True, "7", 2, True)
    assert stored.origin.door == "rest"
    assert stored.time == 1769851800125
    assert stored.expires is not None
    assert stored.expires > site.ingress.clock() * 1000 + 50_000


async def test_an_ephemeral_event_has_no_position(site: Site, http: httpx.AsyncClient) -> None:
    event = {"topic": "crm/notes/9/collaboration", "data": {"kind": "awareness"}}
    response = await http.post("/api/events", json=event)
    assert response.status_code == 201
    assert response.json()["position"] is None
    assert await logged(site) == []


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (5, 400, "invalid_payload"),
        (None, 400, "invalid_payload"),
        ({}, 400, "invalid_request"),
        ({"type": "no:such"}, 400, "unknown_topic"),
        ({"type": "lead:created", "data": {}}, 400, "invalid_request"),
        ({**LEAD, "topic": "crm/notifications/1"}, 400, "invalid_payload"),
        ({"topic": "crm/leads/+/created"}, 400, "invalid_topic"),
        ({"topic": "crm/#"}, 400, "invalid_topic"),
        ({"topic": "a\0b"}, 400, "invalid_payload"),
        ({"topic": "/".join("a" * 33)}, 400, "invalid_topic"),
        ({"topic": "a" * 1025}, 400, "invalid_topic"),
        ({"topic": ""}, 400, "invalid_payload"),
        ({"topic": "$SYS/x"}, 403, "forbidden"),
        ({**LEAD, "id": 5}, 400, "invalid_payload"),
        ({**LEAD, "id": "a" * 129}, 400, "invalid_payload"),
        ({**LEAD, "time": "yesterday"}, 400, "invalid_payload"),
        ({**LEAD, "data_base64": "AA=="}, 400, "invalid_payload"),
        ({"topic": "a", "data_base64": "!"}, 400, "invalid_payload"),
        ({**LEAD, "qos": 3}, 400, "invalid_request"),
        ({**LEAD, "qos": True}, 400, "invalid_request"),
        ({**LEAD, "retain": 1}, 400, "invalid_request"),
        ({**LEAD, "expires_in": 0}, 400, "invalid_request"),
        ({**LEAD, "expires_in": "60"}, 400, "invalid_request"),
        ({**LEAD, "expires_in": 2**40}, 400, "invalid_request"),
        ({"topic": "a", "data": "x" * 262_143}, 413, "payload_too_large"),
    ],
)
async def test_a_bad_event_is_refused_by_name_and_alone(
    site: Site, http: httpx.AsyncClient, event: object, status: int, code: str
) -> None:
    await site.publish(id="before")
    error_of(await http.post("/api/events", content=json.dumps(event), headers=JSON), status, code)
    error = error_of(await http.post("/api/events", json=[LEAD, event]), status, code)
    assert error["details"]["index"] == 1
    assert error["message"].startswith("event 1: ")
    lines = f"{json.dumps(LEAD)}\n\n{json.dumps(event)}\n"
    error = error_of(await http.post("/api/events", content=lines, headers=NDJSON), status, code)
    assert error["details"]["line"] == 3
    assert error["message"].startswith("line 3: ")
    assert await logged(site) == ["before"]
    assert (await http.post("/api/events", json={**LEAD, "id": "after"})).status_code == 201


@pytest.mark.parametrize(
    ("body", "line", "column"),
    [
        (b"", 1, 1),
        (b'{"type": "lead:created",}', 1, 25),
        (b'{\n  "type": oops\n}', 2, 11),
        (b'{"type": "lead:created"', 1, 24),
        (b'{"type": "lead:created"}\n{}', 2, 1),
        (b'{"data": NaN}', 1, 10),
    ],
)
async def test_malformed_json_is_located(http: httpx.AsyncClient, body: bytes, line: int, column: int) -> None:
    error = error_of(await http.post("/api/events", content=body, headers=JSON), 400, "invalid_payload")
    assert (error["details"]["line"], error["details"]["column"]) == (line, column)


async def test_a_malformed_line_is_located_in_the_request(site: Site, http: httpx.AsyncClient) -> None:
    body = json.dumps(LEAD).encode() + b'\n\n{"type": oops}\n'
    error = error_of(await http.post("/api/events", content=body, headers=NDJSON), 400, "invalid_payload")
    assert error["details"] == {"line": 3, "column": 10}
    assert error["message"].endswith("(line 3, column 10)")
    assert await logged(site) == []


@pytest.mark.parametrize(
    "body", [b'{"topic": "a", "data": "\xff"}', b'{"topic": "a\xc3"}', '{"topic": "a"}'.encode("utf-16")]
)
async def test_invalid_utf8_is_refused(site: Site, http: httpx.AsyncClient, body: bytes) -> None:
    error_of(await http.post("/api/events", content=body, headers=JSON), 400, "invalid_payload")
    error_of(await http.post("/api/events", content=body, headers=NDJSON), 400, "invalid_payload")
    assert await logged(site) == []


@pytest.mark.parametrize("depth", [65, 100_000])
async def test_json_too_deep_is_refused(site: Site, http: httpx.AsyncClient, depth: int) -> None:
    body = b'{"topic": "a", "data": ' + b"[" * depth + b"]" * depth + b"}"
    error_of(await http.post("/api/events", content=body, headers=JSON), 400, "invalid_payload")
    assert await logged(site) == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_other_media_types_are_refused(site: Site, http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    response = await http.post("/api/events", content=json.dumps(LEAD).encode(), headers=headers)
    error_of(response, 415, "unsupported_media_type")
    assert await logged(site) == []


async def test_a_charset_of_utf8_is_fine(http: httpx.AsyncClient) -> None:
    headers = {"content-type": 'Application/JSON; charset="UTF-8"'}
    assert (await http.post("/api/events", content=json.dumps(LEAD), headers=headers)).status_code == 201


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
async def test_a_wrong_method_is_told_which_are_right(http: httpx.AsyncClient, method: str) -> None:
    response = await http.request(method, "/api/events")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, POST"
    if method != "HEAD":
        error_of(response, 405, "method_not_allowed")


async def test_an_unknown_path_is_answered_in_our_form(http: httpx.AsyncClient) -> None:
    error_of(await http.get("/api/nothing"), 404, "not_found")


async def test_too_many_events_are_refused() -> None:
    async with running(Site(limits=Limits(batch_events=2))) as site, client(site) as http:
        error = error_of(await http.post("/api/events", json=[LEAD] * 3), 413, "payload_too_large")
        assert error["details"] == {"size": 3, "limit": 2}
        body = (json.dumps(LEAD) + "\n") * 3
        error_of(await http.post("/api/events", content=body, headers=NDJSON), 413, "payload_too_large")
        assert await logged(site) == []


async def test_a_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    async with running(Site(options=HttpOptions(body_bytes=1000))) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(
            b"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await reader.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
        writer.close()
        assert await logged(site) == []


async def test_a_chunked_body_over_the_limit_is_refused_once_it_passes_it() -> None:
    async with running(Site(options=HttpOptions(body_bytes=1000))) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(
            b"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + b" " * 1000 + b"\r\n1\r\n \r\n"
        )  # and it never ends
        assert await reader.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
        writer.close()
        assert site.doors.rest._held == 0


async def test_all_bodies_together_are_bounded() -> None:
    options = HttpOptions(body_bytes=1000, bodies_bytes=1000)
    async with running(Site(options=options)) as site, client(site) as http:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        event = json.dumps({**LEAD, "id": "a"}).encode()
        writer.write(
            b"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 951\r\n\r\n" + event + b" " * (950 - len(event))
        )
        while site.doors.rest._held < 950:
            await asyncio.sleep(0.001)
        response = await http.post("/api/events", json={**LEAD, "pad": "x" * 100})
        error = error_of(response, 503, "overloaded")
        assert error["retryable"] is True
        assert response.headers["retry-after"] == "1"
        writer.write(b" ")
        assert await reader.readline() == b"HTTP/1.1 201 Created\r\n"
        writer.close()
        assert (await http.post("/api/events", json={**LEAD, "pad": "x" * 100})).status_code == 201


async def test_what_is_only_announced_shuts_out_nobody() -> None:
    options = HttpOptions(body_bytes=1000, bodies_bytes=1000)
    async with running(Site(options=options)) as site, client(site) as http:
        writers = []
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(
                b"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n"
            )
            writers.append(writer)
        assert (await http.post("/api/events", json=LEAD)).status_code == 201
        for writer in writers:
            writer.transport.abort()


async def test_a_body_that_trickles_is_given_up(http: httpx.AsyncClient) -> None:
    async with running(Site(options=HttpOptions(body_timeout=0.05))) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(
            b"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        assert b"request_timeout" in await reader.read()
        assert site.doors.rest._held == 0
        writer.close()


async def test_a_client_that_leaves_within_the_body_publishes_nothing(site: Site, http: httpx.AsyncClient) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(
        b"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{}"
    )
    await writer.drain()
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
    assert (await http.post("/api/events", json={**LEAD, "id": "other"})).status_code == 201
    assert await logged(site) == ["other"]


async def test_a_closed_log_is_a_retryable_refusal(site: Site, http: httpx.AsyncClient) -> None:
    await site.log.close()
    error = error_of(await http.post("/api/events", json=LEAD), 503, "log_unavailable")
    assert error["retryable"] is True


async def test_topics_outside_a_closed_map_are_unknown() -> None:
    topic_map = TopicMap([Row("a/{x}", "thing:happened", ("room:{x}",))], unmapped=False)
    async with running(Site(topic_map=topic_map)) as site, client(site) as http:
        error = error_of(await http.post("/api/events", json={"topic": "b"}), 400, "unknown_topic")
        assert error["hint"]


async def test_the_token_is_asked_for() -> None:
    async with running(Site(gate=DevelopmentGate("s3cret"))) as site, client(site) as http:
        response = await http.post("/api/events", json=LEAD)
        error_of(response, 401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")
        for header in ("Bearer wrong", "Basic czNjcmV0", "Bearer"):
            response = await http.post("/api/events", json=LEAD, headers={"authorization": header})
            error_of(response, 401, "unauthorized")
        assert await logged(site) == []
        response = await http.post("/api/events", json=LEAD, headers={"authorization": "bearer s3cret"})
        assert response.status_code == 201
        # A token in the query is for streams alone: it ends up in the logs of proxies.
        error_of(await http.post("/api/events?token=s3cret", json=LEAD), 401, "unauthorized")


class _OnlyLeads(DevelopmentGate):
    async def authenticate(self, credentials: Credentials) -> Identity:
        return Identity(user_id="42")

    def check_publish(self, identity: Identity, topic: str) -> None:
        if not topic.startswith("crm/leads/"):
            raise Forbidden(f"{identity.user_id} may not publish to {topic}")


async def test_the_gate_decides_by_the_topic_of_the_event() -> None:
    async with running(Site(gate=_OnlyLeads())) as site, client(site) as http:
        notification = {"type": "notification", "data": {"notificationId": "1"}}
        error = error_of(await http.post("/api/events", json=notification), 403, "forbidden")
        assert "crm/notifications/1" in error["message"]
        error_of(await http.post("/api/events", json=[LEAD, notification]), 403, "forbidden")
        assert await logged(site) == []
        # Whom the gate knows is who caused the event, whatever the body claims.
        assert (await http.post("/api/events", json={**LEAD, "id": "a", "userId": "1"})).status_code == 201
        record = await site.log.find("a")
        assert record is not None
        assert record.event.user_id == "42"


async def test_many_publishers_at_once_lose_nothing(site: Site, http: httpx.AsyncClient) -> None:
    async def publish(number: int) -> int:
        answer = await http.post("/api/events", json={**LEAD, "id": f"e{number}"})
        return int(answer.json()["position"].rpartition(":")[2])

    offsets = await asyncio.gather(*(publish(number) for number in range(200)))
    assert sorted(offsets) == list(range(1, 201))
    assert sorted(await logged(site)) == sorted(f"e{number}" for number in range(200))
