"""Attackers on the wire, bounded and on loopback, while healthy clients of every kind get every event."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest

from gapless.client import ClientEvent
from gapless.client.connect import TRANSPORTS
from gapless.client.single import Subscribed, Target, connection_to
from gapless.gateway import Gateway
from gapless.limits import AddressShares, Rates, Shares
from gapless.mqtt import Connack, Connect, ProtocolVersion, Puback, Publish, ReasonCode, Suback, encode
from gapless.transports.http import HttpOptions
from gapless.transports.mqtt import EdgeOptions
from tests.mqtt_edge.support import Client
from tests.security.rawsocketio import socketio_client
from tests.security.site import Wire, http, limits, port, running, until, upgrade, wire

EVENTS = 10
V5 = ProtocolVersion.V5


async def hear(transport: Any, target: Target, ready: asyncio.Event) -> list[Any]:
    heard: list[Any] = []
    async with aclosing(connection_to(target, transport).listen(None)) as signals:
        async for signal in signals:
            if isinstance(signal, Subscribed):
                ready.set()
            if isinstance(signal, ClientEvent):
                heard.append(signal.data["n"])
                if len(heard) == EVENTS:
                    break
    return heard


@asynccontextmanager
async def healthy_clients(gateway: Gateway) -> AsyncIterator[None]:
    """One client of each kind is there all the time, and got every event, in order, at the end."""
    hearers = []
    for transport in TRANSPORTS:
        ready = asyncio.Event()
        target = Target(url=gateway.http_url, rooms=("lead:1",))
        hearers.append(asyncio.create_task(hear(transport, target, ready)))
        await ready.wait()
    try:
        yield
        for number in range(EVENTS):
            await gateway.publish(topic="crm/leads/1/updated", data={"n": number})
        for heard in await asyncio.gather(*hearers):
            assert heard == list(range(EVENTS))
    finally:
        for hearer in hearers:
            hearer.cancel()


async def test_slow_loris_at_every_door() -> None:
    """Whoever sends a request, a body or a CONNECT byte by byte is given up, and held nothing back."""
    quick: dict[str, Any] = {"edge": EdgeOptions(connect_timeout=0.3), "http": HttpOptions(body_timeout=0.3)}
    post = b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    post += b"Content-Length: 999\r\n\r\n{"
    connect = encode(Connect("slow", V5), V5)
    async with running(**quick) as gateway, AsyncExitStack() as stack:
        assert gateway._server is not None
        gateway._server._deadlines._seconds = 0.3
        async with healthy_clients(gateway):
            slow: list[tuple[Wire, bytes]] = []
            for url, beginning, answer in [
                (gateway.http_url, b"", b"408"),
                (gateway.http_url, b"\r\n", b"408"),
                (gateway.http_url, b"GET /api/events?rooms=lead:1 HTTP/1.1\r\nHost: local", b"408"),
                (gateway.http_url, upgrade("/mqtt", protocol="mqtt")[:-2], b"408"),
                (gateway.http_url, post, b"408"),
                (gateway.mqtt_url, b"", b""),
                (gateway.mqtt_url, connect[:5], b""),
            ] * 10:
                connection = await stack.enter_async_context(wire(url))
                connection.send(beginning)
                slow.append((connection, answer))
            for connection, answer in slow:
                assert answer in await connection.ended()
        assert len(gateway._server._deadlines) == 0
        assert gateway.http.rest._held == 0
        await until(lambda: not gateway.mqtt.sockets)


ATTACKER = "127.0.0.2"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on the loopback")
async def test_a_flood_of_connections() -> None:
    """One address has its share of connections; beyond it each protocol says so, and far beyond it nobody answers."""
    few = limits(address=AddressShares(connections=20))
    async with running(limits=few) as gateway, AsyncExitStack() as stack:
        party = gateway.limiter.party("address", ATTACKER)
        async with healthy_clients(gateway):
            for _ in range(20):
                await stack.enter_async_context(wire(gateway.mqtt_url, source=ATTACKER))
            await until(lambda: party.connections == 20)
            async with wire(gateway.http_url, source=ATTACKER) as refused:
                status, error = await refused.error()
                assert (status, error["code"], error["retryable"]) == (429, "rate_limited", True)
            async with wire(gateway.mqtt_url, source=ATTACKER) as phone:
                phone.send(encode(Connect("phone", V5), V5))
                connack = await phone.ended()
                assert connack[0] == 0x20
                assert connack[3] == ReasonCode.CONNECTION_RATE_EXCEEDED
            for _ in range(150):
                await stack.enter_async_context(wire(gateway.mqtt_url, source=ATTACKER))
            await until(lambda: gateway.limiter.refusals["address", "connections"] >= 2 + 150 - 64)
            assert party.connections <= 20 + 64
        await stack.aclose()
        await until(lambda: party.connections == 0)


async def _connect(gateway: Gateway, client_id: str = "phone") -> tuple[Client, Connack]:
    return await Client.connect(port(gateway.mqtt_url), client_id, V5)


async def test_a_user_has_a_share_of_connections() -> None:
    async with running(limits=limits(user=Shares(connections=2))) as gateway:
        clients = [
            await Client.connect(port(gateway.mqtt_url), f"d{number}", V5, username="ann") for number in range(3)
        ]
        codes = [connack.reason_code for _, connack in clients]
        assert codes == [ReasonCode.SUCCESS, ReasonCode.SUCCESS, ReasonCode.QUOTA_EXCEEDED]
        await clients[0][0].disconnect()
        await until(lambda: gateway.limiter.party("user", "ann").connections == 1)
        _, connack = await Client.connect(port(gateway.mqtt_url), "d9", V5, username="ann")
        assert connack.reason_code is ReasonCode.SUCCESS


async def test_a_flood_of_subscriptions() -> None:
    async with running(limits=limits(address=AddressShares(subscriptions=50))) as gateway:
        async with healthy_clients(gateway):
            phone, _ = await _connect(gateway)
            suback: Suback = await phone.subscribe(*(f"flood/{number}" for number in range(200)))
            granted = sum(not code.is_failure for code in suback.reason_codes)
            assert set(suback.reason_codes[granted:]) == {ReasonCode.QUOTA_EXCEEDED}
            assert 30 < granted < 50  # the healthy ones have theirs
            await phone.unsubscribe(*(f"flood/{number}" for number in range(granted)))
            again: Suback = await phone.subscribe("flood/again")
            assert not again.reason_codes[0].is_failure
            await phone.disconnect()
        await until(lambda: gateway.limiter.party("address", "127.0.0.1").subscriptions == 0)


async def test_a_flood_of_publishes_is_slowed_and_loses_nothing() -> None:
    """MQTT holds the publisher back; what it sends is taken in late, and acknowledged."""
    slow = limits(connection=Rates(requests_per_second=200), burst_seconds=0.05)
    async with running(limits=slow) as gateway:
        async with healthy_clients(gateway):
            phone, _ = await _connect(gateway)
            phone.send(*(Publish("flood/1", b"x", qos=1, packet_id=number) for number in range(1, 101)))
            for _ in range(100):
                answer = await phone.expect(Puback)
                assert not answer.reason_code.is_failure
        assert gateway.limiter.refusals["connection", "requests_per_second"] > 0
        assert gateway.hub.head == 100 + EVENTS


async def test_rest_says_when_to_come_again() -> None:
    slow = limits(address=AddressShares(requests_per_second=1), burst_seconds=2)
    async with running(limits=slow) as gateway, http(gateway) as client:
        event = {"topic": "crm/leads/1/updated", "data": {}}
        answers = [await client.post("/api/events", json=[event] * 10) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 429]
        error = answers[1].json()["error"]
        assert error["code"] == "rate_limited"
        assert error["retryable"] is True
        assert int(answers[1].headers["retry-after"]) == error["details"]["retry_after"] > 1
        assert gateway.hub.head == 10


async def test_giant_payloads() -> None:
    """They are refused by their announcement, or once they pass the bound; nothing of them is kept."""
    async with running() as gateway:
        async with healthy_clients(gateway):
            for beginning, status in [
                (b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
                (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431),
                (b"GET / HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * 600_000, 431),
                (b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 b"Content-Length: 99999999999\r\n\r\n", 413),
                (b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 b"Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + b"\x1f\x8b" + b"x" * 18, 415),
            ]:  # fmt: skip
                async with wire(gateway.http_url) as connection:
                    connection.send(beginning)
                    assert (await connection.error())[0] == status
            phone, _ = await _connect(gateway)
            phone.send_bytes(b"\x30\xff\xff\xff\x7f")  # a PUBLISH of 256 MiB
            await phone.expect_closed(ReasonCode.PACKET_TOO_LARGE)
            async with wire(gateway.http_url) as websocket:
                websocket.send(upgrade("/socket.io/?EIO=4&transport=websocket"))
                await websocket.head()
                websocket.send(b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"mask")
                await websocket.ended()
        assert gateway.http.rest._held == 0
        await until(lambda: len(gateway.mqtt.connected) == 0)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_acknowledgements_of_nothing_are_no_lines_of_the_log(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as gateway, socketio_client(gateway, transport) as client:
        for packet in (b'4377["x"]', b"430[]"):
            await client._transport.send(packet)
        assert (await client.call("gapless:ping", {}))["ok"]
    assert [record.getMessage() for record in caplog.records if record.name.startswith("gapless.socketio")] == []
