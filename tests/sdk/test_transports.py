"""The TypeScript client over each of its transports, against a real gateway."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from gapless.config import Settings
from gapless.gateway import Gateway
from tests.link.support import stock
from tests.sdk.hybrid import TRANSPORTS, Hybrids

pytestmark = [pytest.mark.needs_sdk, pytest.mark.asyncio(loop_scope="module")]

ROOM = "org:global"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_events_arrive_alike_over_each_transport(gateway: Gateway, hybrids: Hybrids, transport: str) -> None:
    client = await hybrids.create(gateway.http_url, ROOM, "user:7", transports=[transport])
    await client.first("ready", room=ROOM)
    assert await client.connected() == transport
    accepted = await gateway.publish(type="lead:updated", data={"n": 1}, topic="crm/leads/5/updated", user_id="u1")
    await gateway.publish(type="lead:updated", data=["no", "object"], topic="crm/leads/5/updated")
    await client.do("publish", publication={"topic": "crm/users/7/presence", "bytes": [0, 255]})
    published = await client.first("published")
    await client.until(lambda: len(client.heard) == 4)
    first, second, *both = client.heard
    assert first["data"] == {"leadId": "5", "n": 1}
    assert (first["id"], first["type"], first["position"]) == (accepted.id, "lead:updated", accepted.position)
    assert (first["topic"], first["userId"], first["room"]) == ("crm/leads/5/updated", "u1", ROOM)
    assert first["time"].endswith("Z")
    assert second["data"] == ["no", "object"]
    assert {m["room"] for m in both} == {ROOM, "user:7"}, "once for each of its rooms"
    assert all(m["data"] == {"bytes": [0, 255]} and m["id"] == published["id"] for m in both)


BYTES = {"bytes": [0, 255]}
PAYLOADS: list[tuple[bytes, object]] = [
    (b'{"n": 1}', {"leadId": "5", "n": 1}),
    (b"[1, 2]", [1, 2]),
    (b"12.5", 12.5),
    (b"true", True),
    (b"null", None),
    (b'"text"', "text"),
    ("plain té".encode(), {"bytes": list("plain té".encode())}),
    (b"\x00\xff", BYTES),
    (b"", None),
    (b'{"type": "lead:updated", "data": {"n": 2}}', {"leadId": "5", "n": 2}),
    (b'{"id": "own", "data_base64": "AP8="}', BYTES),
]
"""What a stock MQTT client publishes, and what every transport hands to a handler."""


async def test_payloads_of_mqtt_clients_arrive_alike(hybrids: Hybrids) -> None:
    async with Gateway(Settings(port=0, mqtt_port=0, data=None)) as gateway:
        await payloads_arrive_alike(gateway, hybrids)


async def payloads_arrive_alike(gateway: Gateway, hybrids: Hybrids) -> None:
    clients = [await hybrids.create(gateway.http_url, ROOM, transports=[name]) for name in TRANSPORTS]
    for client in clients:
        await client.first("ready")
    assert gateway.mqtt_url is not None
    port = urlsplit(gateway.mqtt_url).port
    assert port is not None
    async with stock(port) as publisher:
        for payload, _ in PAYLOADS:
            await publisher.publish("crm/leads/5/updated", payload)
    for client in clients:
        await client.until(lambda client=client: len(client.heard) == len(PAYLOADS))  # type: ignore[misc]
        await client.do("close")
    first, *others = ([(m["id"], m["type"], m["position"], m["data"]) for m in client.heard] for client in clients)
    assert [data for *_, data in first] == [data for _, data in PAYLOADS]
    assert all(other == first for other in others)
    assert first[-1][0] == "own"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_goes_on_from_its_cursor(
    gateway: Gateway, hybrids: Hybrids, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = str(tmp_path_factory.mktemp("client"))
    client = await hybrids.create(gateway.http_url, ROOM, transports=[transport], folder=folder)
    await client.first("ready")
    await gateway.publish(type="lead:updated", data={"leadId": "1", "n": 1})
    await client.until(lambda: client.numbers == [1])
    await client.do("close")
    await client.first("closed")
    missed = range(2, 1205)  # more than a page
    await asyncio.gather(*(gateway.publish(type="lead:updated", data={"leadId": "1", "n": n}) for n in missed))
    again = await hybrids.create(gateway.http_url, ROOM, transports=[transport], folder=folder)
    await again.first("ready")
    await gateway.publish(type="lead:updated", data={"leadId": "1", "n": 1205})
    await again.until(lambda: len(again.heard) >= 1204)
    assert again.numbers == list(range(2, 1206))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_rooms_may_be_joined_and_left_at_any_time(gateway: Gateway, hybrids: Hybrids, transport: str) -> None:
    client = await hybrids.create(gateway.http_url, "user:1", transports=[transport])
    await client.first("ready", room="user:1")
    await client.do("join", room="user:2")
    await client.first("ready", room="user:2")
    await gateway.publish(topic="crm/users/2/presence", data={"n": 2})
    await gateway.publish(topic="crm/users/1/presence", data={"n": 1})
    await client.until(lambda: len(client.heard) == 2)
    await client.do("leave", room="user:1")
    await client.do("join", room="user:3")
    await client.first("ready", room="user:3")
    await gateway.publish(topic="crm/users/1/presence", data={"n": 3})
    await gateway.publish(topic="crm/users/3/presence", data={"n": 4})
    await client.until(lambda: len(client.heard) == 3)
    assert [(m["room"], m["data"]["n"]) for m in client.heard] == [("user:2", 2), ("user:1", 1), ("user:3", 4)]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_room_from_the_payload_is_whole(gateway: Gateway, hybrids: Hybrids, transport: str) -> None:
    client = await hybrids.create(gateway.http_url, "lead:1", transports=[transport])
    await client.first("ready")
    assert await client.connected() == transport
    await gateway.publish(topic="crm/activities/9/created", data={"leadId": "1", "n": 1})
    await gateway.publish(topic="crm/activities/9/created", data={"leadId": 1, "n": 2})
    await gateway.publish(topic="crm/activities/9/created", data={"leadId": "2", "n": 3})
    await gateway.publish(topic="crm/leads/1/updated", data={"n": 4})
    await client.until(lambda: len(client.heard) == 3)
    assert client.numbers == [1, 2, 4]
