"""The Socket.IO door, spoken to by the stock JavaScript client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gapless.config import Settings
from gapless.gateway import Gateway
from tests.socketio.conftest import js_client

pytestmark = pytest.mark.needs_node

TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]]


@pytest.mark.parametrize("transports", TRANSPORTS, ids="-".join)
async def test_an_event_arrives_once_with_data_meta_and_position(
    gateway: Gateway, js: Path, transports: list[str]
) -> None:
    async with js_client(js) as client:
        await client.connect(gateway.http_url, transports=transports)
        answer = await client.request("subscribe", {"rooms": ["lead:123", "org:global"]})
        assert answer == {
            "ok": True,
            "rooms": ["lead:123", "org:global"],
            "position": f"{gateway.epoch}:0",
            "complete": True,
        }
        accepted = await gateway.publish(type="lead:updated", data={"leadId": "123", "n": 1}, user_id="u7")
        await gateway.publish(type="lead:updated", data={"leadId": "999", "n": 2})
        name, data, meta, position = await client.event()
        assert (name, data) == ("lead:updated", {"leadId": "123", "n": 1})
        assert meta["id"] == accepted.id
        assert meta["topic"] == "crm/leads/123/updated"
        assert meta["userId"] == "u7"
        assert position == accepted.position == f"{gateway.epoch}:1"
        assert await client.numbers(1) == [2]


@pytest.mark.parametrize("transports", TRANSPORTS, ids="-".join)
async def test_a_burst_arrives_whole_and_in_order(gateway: Gateway, js: Path, transports: list[str]) -> None:
    async with js_client(js) as client:
        await client.connect(gateway.http_url, transports=transports)
        await client.request("subscribe", {"rooms": ["org:global"]})
        count = 2000  # more than may wait for a polling client
        await asyncio.gather(
            *(gateway.publish(type="lead:updated", data={"leadId": "1", "n": n}) for n in range(count))
        )
        assert await client.numbers(count) == list(range(count))


async def test_a_ping_is_answered(gateway: Gateway, js: Path) -> None:
    async with js_client(js) as client:
        await client.connect(gateway.http_url)
        assert await client.request("gapless:ping", {}) == {"ok": True}


async def test_a_client_publishes_and_hears_itself(gateway: Gateway, js: Path) -> None:
    async with js_client(js) as client:
        await client.connect(gateway.http_url)
        await client.request("subscribe", {"rooms": ["lead:5"]})
        event = {"type": "lead:created", "id": "e1", "data": {"leadId": "5", "name": "Acme Corp"}}
        first = await client.request("publish", event)
        again = await client.request("publish", event)
        position = f"{gateway.epoch}:1"
        assert first == {
            "ok": True,
            "id": "e1",
            "topic": "crm/leads/5/created",
            "type": "lead:created",
            "position": position,
            "duplicate": False,
        }
        assert again == {**first, "duplicate": True}
        await gateway.publish(type="lead:updated", data={"leadId": "5"})
        assert [(await client.event())[0] for _ in range(2)] == ["lead:created", "lead:updated"]


async def test_bytes_travel_as_bytes(gateway: Gateway, js: Path) -> None:
    async with js_client(js) as client:
        await client.connect(gateway.http_url)
        await client.request("subscribe", {"rooms": ["note:9"]})
        topic = "crm/notes/9/collaboration"
        assert (await client.request("publish", {"topic": topic, "data": {"hex": "00ff10"}}))["ok"]
        name, data, meta, position = await client.event()
        assert (name, data, position) == ("note:collaboration", {"hex": "00ff10"}, f"{gateway.epoch}:1")
        assert meta["topic"] == topic


async def test_an_ephemeral_event_leaves_no_offset_behind(gateway: Gateway, js: Path) -> None:
    async with js_client(js) as client:
        await client.connect(gateway.http_url)
        await client.request("subscribe", {"rooms": ["note:9"]})
        data = {"kind": "awareness", "cursor": 3}
        answer = await client.request("publish", {"topic": "crm/notes/9/collaboration", "data": data})
        assert answer["position"] is None
        event = await client.event()
        assert event[:2] == ["note:collaboration", {"noteId": "9", **data}]
        assert len(event) == 3
        assert gateway.log.head == 0


async def test_history_comes_before_live_events_and_nothing_twice(gateway: Gateway, js: Path) -> None:
    for n in range(300):
        await gateway.publish(type="lead:updated", data={"leadId": str(n % 2), "n": n})
    async with js_client(js) as client:
        await client.connect(gateway.http_url)
        await client.request("subscribe", {"rooms": ["lead:0"], "after": f"{gateway.epoch}:100"})
        # Taken back for a second room: what the first has delivered must not come again.
        assert await client.numbers(100) == list(range(100, 300, 2))
        answer = await client.request("subscribe", {"rooms": ["lead:1", "org:global"], "after": f"{gateway.epoch}:0"})
        assert answer["complete"]
        await gateway.publish(type="lead:updated", data={"leadId": "0", "n": 300})
        expected = [n for n in range(300) if n % 2 or n < 100]
        assert await client.numbers(len(expected) + 1) == [*expected, 300]


async def test_a_room_that_was_left_is_silent(gateway: Gateway, js: Path) -> None:
    async with js_client(js) as client:
        await client.connect(gateway.http_url)
        await client.request("subscribe", {"rooms": ["lead:1", "lead:2"]})
        assert await client.request("unsubscribe", {"rooms": ["lead:1"]}) == {"ok": True, "rooms": ["lead:1"]}
        await gateway.publish(type="lead:updated", data={"leadId": "1", "n": 1})
        await gateway.publish(type="lead:updated", data={"leadId": "2", "n": 2})
        assert await client.numbers(1) == [2]


async def test_the_older_names_of_the_map_work(gateway: Gateway, js: Path) -> None:
    async with js_client(js) as client:
        await client.connect(gateway.http_url)
        assert (await client.request("lead:subscribe", {"leadId": "123"}))["rooms"] == ["lead:123"]
        assert await client.event() == ["lead:subscribed", {"leadId": "123"}]
        await gateway.publish(type="lead:created", data={"leadId": "123"})
        assert (await client.event())[0] == "lead:created"
        assert (await client.request("lead:unsubscribe", {"leadId": "123"}))["ok"]
        assert await client.event() == ["lead:unsubscribed", {"leadId": "123"}]
        assert not gateway.socketio._fanout._by_room


BAD = [
    ("subscribe", {"rooms": ["leads:1"]}, "unknown_room"),
    ("subscribe", {"rooms": []}, "invalid_request"),
    ("subscribe", {"rooms": [1]}, "invalid_request"),
    ("subscribe", {}, "invalid_request"),
    ("subscribe", "lead:1", "invalid_request"),
    ("subscribe", {"rooms": ["lead:1"], "after": "nonsense"}, "invalid_position"),
    ("subscribe", {"rooms": ["lead:1"], "after": 5}, "invalid_position"),
    ("publish", {"data": {}}, "invalid_request"),
    ("publish", {"type": "lead:created", "data": {}}, "invalid_request"),
    ("publish", {"type": "no:such", "data": {}}, "unknown_topic"),
    ("publish", {"topic": "a/+/b", "data": {}}, "invalid_topic"),
    ("publish", {"topic": "a/" * 40, "data": {}}, "invalid_topic"),
    ("publish", {"topic": "a" * 2000, "data": {}}, "invalid_topic"),
    ("publish", {"topic": "$SYS/x", "data": {}}, "forbidden"),
    ("publish", {"topic": "a", "data": "x" * 300_000}, "payload_too_large"),
    ("publish", {"topic": "a", "data": 1, "qos": 7}, "invalid_request"),
    ("publish", {"topic": "a", "data": 1, "retain": "yes"}, "invalid_request"),
    ("publish", {"topic": "crm/leads/1/created", "type": "lead:updated", "data": 1}, "invalid_payload"),
    ("lead:subscribe", {}, "invalid_request"),
    ("no-such-request", {}, "invalid_request"),
]


async def test_bad_requests_are_answered_with_a_code_and_harm_nobody(gateway: Gateway, js: Path) -> None:
    async with js_client(js) as bad, js_client(js) as good:
        await bad.connect(gateway.http_url)
        await good.connect(gateway.http_url)
        await good.request("subscribe", {"rooms": ["lead:1"]})
        for event, argument, code in BAD:
            answer = await bad.request(event, argument)
            assert not answer["ok"], (event, argument)
            assert answer["error"]["code"] == code, (event, argument)
            assert answer["error"]["message"]
        future = await bad.request("subscribe", {"rooms": ["lead:1"], "after": f"{gateway.epoch}:99"})
        assert future["error"]["code"] == "invalid_position"
        assert gateway.log.head == 0
        await gateway.publish(type="lead:updated", data={"leadId": "1", "n": 1})
        assert await good.numbers(1) == [1]


async def test_a_token_is_asked_for(js: Path) -> None:
    settings = Settings(port=0, mqtt_port=None, data=None, token="open sesame")
    async with Gateway(settings) as gateway, js_client(js) as client:
        await client.script.send({"do": "connect", "url": gateway.http_url, "options": {"reconnection": False}})
        refused = await client.next("connect_error")
        assert refused["data"]["code"] == "unauthorized"
        assert (await client.connect(gateway.http_url, auth={"token": "open sesame"}, forceNew=True))["id"]
