"""Clients that mean harm, while a healthy one is to get every event. On loopback, bounded, waiting for events alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from gapless.gateway import Gateway
from gapless.limits import AddressShares
from gapless.limits.limiter import POLITE
from gapless.mqtt import Connect, ProtocolVersion, Subscribe, SubscriptionRequest, encode
from gapless.transports.http import HttpOptions
from gapless.transports.mqtt import EdgeOptions
from tests.security.site import Wire, http, limits, running, upgrade, wire

EVENTS = 5
V5 = ProtocolVersion.V5
CONNECT = encode(Connect("flood", V5), V5)


async def healthy(gateway: Gateway, client: httpx.AsyncClient, number: int) -> None:
    """Publish some events, and get them all, in order."""
    start = (await client.get("/api/events?rooms=lead:1")).json()["position"]
    sent = []
    for n in range(EVENTS):
        event = {"topic": "crm/leads/1/updated", "data": {"n": n, "number": number}}
        answer = await client.post("/api/events", json=event)
        assert answer.status_code == 201, answer.text
        sent.append(answer.json()["id"])
    heard = (await client.get(f"/api/events?rooms=lead:1&after={start}")).json()
    assert heard["complete"]
    assert [event["id"] for event in heard["events"]] == sent


@asynccontextmanager
async def attackers(url: str | None, count: int) -> AsyncIterator[list[Wire]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(wire(url)) for _ in range(count)]


POST = b"POST /api/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
BEGINNINGS = {
    "header": b"GET /api/events?rooms=lead:1 HTTP/1.1\r\nhost: localhost\r\nx-slow: ",
    "body": POST % 100_000 + b"{",
    "websocket": upgrade("/mqtt", protocol="mqtt")[:-10],
    "mqtt": CONNECT[:1],
}


@pytest.mark.parametrize("kind", BEGINNINGS)
async def test_slow_loris(kind: str) -> None:
    """A byte at a time, with no end: each is ended by its deadline, and harms nobody before."""
    async with (
        running(edge=EdgeOptions(connect_timeout=1), http=HttpOptions(body_timeout=1)) as gateway,
        http(gateway) as client,
    ):
        url = gateway.mqtt_url if kind == "mqtt" else gateway.http_url
        assert gateway._server is not None
        gateway._server._deadlines._seconds = 1
        async with attackers(url, 50) as slow:
            for connection in slow:
                connection.send(BEGINNINGS[kind])
            for n in range(3):
                for connection in slow:
                    connection.send(CONNECT[n + 1 : n + 2] if kind == "mqtt" else b"a")
                await healthy(gateway, client, n)
            async with asyncio.timeout(30):
                await asyncio.gather(*(connection.ended() for connection in slow))
        await healthy(gateway, client, 9)


async def test_a_connection_flood_is_cut_at_the_share_of_its_address() -> None:
    share = AddressShares(connections=20, requests_per_second=0)
    async with running(limits=limits(address=share)) as gateway, http(gateway) as client:
        await healthy(gateway, client, 0)
        async with attackers(gateway.mqtt_url, 20 + POLITE + 30) as flood:
            async with asyncio.timeout(30):
                ended = await asyncio.gather(*(connection.ended() for connection in flood[-20:]))
            assert ended == [b""] * 20  # without a word
            flood[25].send(CONNECT)
            assert b"\x9f" in await flood[25].ended()
            await healthy(gateway, client, 1)  # its connection was there before


async def test_a_subscribe_flood_ends_at_its_share() -> None:
    share = AddressShares(subscriptions=50, requests_per_second=0)
    async with running(limits=limits(address=share)) as gateway, http(gateway) as client:
        async with wire(gateway.mqtt_url) as flood:
            flood.send(CONNECT)
            await flood.reader.read(4096)
            requests = [SubscriptionRequest(f"crm/leads/{n}/updated", qos=0) for n in range(80)]
            flood.send(encode(Subscribe(1, requests), V5))
            async with asyncio.timeout(30):
                answer = b""
                while len(answer) < 80 + 5:
                    answer += await flood.reader.read(4096)
            assert answer.count(b"\x97") == 30
            await healthy(gateway, client, 0)


async def test_giant_payloads_are_refused_before_they_are_read() -> None:
    async with running() as gateway, http(gateway) as client:
        async with attackers(gateway.http_url, 20) as giants:
            for connection in giants:
                connection.send(POST % 9_999_999_999 + b"[")
                status, error = await connection.error()
                assert (status, error["code"]) == (413, "payload_too_large")
        async with wire(gateway.mqtt_url) as connection:
            connection.send(CONNECT)
            await connection.reader.read(4096)
            connection.send(b"\x30\xff\xff\xff\x7f")  # a PUBLISH of 256 MiB
            assert b"\x95" in await connection.ended()
        await healthy(gateway, client, 0)
