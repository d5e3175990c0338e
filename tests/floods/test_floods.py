"""Clients that mean harm, while a healthy one is to get every event. On loopback, bounded, waiting for events alone."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from gapless.auth import Identity
from gapless.gateway import Gateway
from gapless.limits import AddressShares, Rates, Shares
from gapless.limits.limiter import POLITE
from gapless.mqtt import (
    Auth,
    Connect,
    Properties,
    ProtocolVersion,
    ReasonCode,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    encode,
)
from gapless.testing import Certificates, make_certificates
from gapless.transports.http import HttpOptions
from gapless.transports.mqtt import EdgeOptions
from gapless.transports.mqtt.access import METHOD
from gapless.transports.tls import TlsOptions
from gapless.transports.tls_listener import TlsListener
from tests.gates import TableGate
from tests.mqtt_edge.support import Client
from tests.security.site import Wire, http, limits, port, running, until, upgrade, wire

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
async def attackers(url: str | None, count: int, *, source: str = "127.0.0.1") -> AsyncIterator[list[Wire]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(wire(url, source=source)) for _ in range(count)]


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


STRAY = {
    "PUBACK": b"\x40\x02\x77\x77",
    "PUBREC": b"\x50\x02\x77\x77",
    "PUBREL": b"\x62\x02\x77\x77",
    "PUBCOMP": b"\x70\x02\x77\x77",
}
MANY = [f"crm/leads/{n}/updated" for n in range(300)]
UNASKED = {name: packet * 300 for name, packet in STRAY.items()} | {
    "one SUBSCRIBE": encode(Subscribe(1, [SubscriptionRequest(name) for name in MANY]), V5),
    "one UNSUBSCRIBE": encode(Unsubscribe(1, MANY), V5),
}


@pytest.mark.parametrize("what", UNASKED)
async def test_what_costs_as_much_as_a_request_counts_as_one(what: str) -> None:
    """Acknowledgements of nothing, and each filter of a packet that names many."""
    few = limits(connection=Rates(requests_per_second=20), user=Shares(requests_per_second=0))
    async with running(limits=few) as gateway, http(gateway) as client:
        async with wire(gateway.mqtt_url) as flood:
            flood.send(CONNECT)
            await flood.reader.read(4096)
            connection = gateway.mqtt.connected["flood"]
            flood.send(UNASKED[what])
            await until(lambda: connection.output.reading_held)
            assert gateway.limiter.refusals["connection", "requests_per_second"] >= 1
            await healthy(gateway, client, 0)


async def test_a_denied_filter_counts_as_ten_and_is_denied_once() -> None:
    gate = TableGate()
    gate.hears["eve"].add("mine")
    few = limits(connection=Rates(requests_per_second=20), user=Shares(requests_per_second=0))
    async with running(gate=gate, limits=few) as gateway, wire(gateway.mqtt_url) as flood:
        flood.send(encode(Connect("flood", V5, password=b"eve"), V5))
        await flood.reader.read(4096)
        connection = next(iter(gateway.mqtt.connected.values()))
        checked: list[str] = []
        check = gate.check_subscribe_filter

        def count(identity: Identity, topic_filter: str) -> None:
            checked.append(topic_filter)
            check(identity, topic_filter)

        gate.check_subscribe_filter = count  # type: ignore[method-assign]
        names = ["mine", *(f"yours/{n}" for n in range(30)), "yours/1"]
        flood.send(encode(Subscribe(1, [SubscriptionRequest(name) for name in names]), V5))
        answer = await flood.reader.read(4096)
        assert answer.count(b"\x87") == 31
        assert checked == names[:-1]  # each once: a denial is counted and audited once
        assert connection.output.reading_held


async def test_a_fresh_token_counts_as_a_request() -> None:
    few = limits(connection=Rates(requests_per_second=1))
    async with running(limits=few) as gateway, wire(gateway.mqtt_url) as flood:
        method = Properties(authentication_method=METHOD, authentication_data=b"")
        flood.send(encode(Connect("flood", V5, properties=method), V5))
        await flood.reader.read(4096)
        connection = gateway.mqtt.connected["flood"]
        for _ in range(12):
            flood.send(encode(Auth(ReasonCode.REAUTHENTICATE, method), V5))
            await flood.reader.read(4096)
            if connection.output.reading_held:
                break
        assert connection.output.reading_held


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


def client_hello() -> bytes:
    """How a TLS handshake begins."""
    outgoing = ssl.MemoryBIO()
    handshake = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()


HELLO = client_hello()
STALLS = {
    "nothing": b"",
    "one byte": HELLO[:1],
    "half a ClientHello": HELLO[: len(HELLO) // 2],
    "a whole one": HELLO,
    "a record that never ends": b"\x16\x03\x01\x40\x00",
    "something else": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def listener_of(gateway: Gateway, door: str) -> TlsListener:
    assert gateway._server is not None
    found = gateway._server.servers[0] if door == "https" else gateway.mqtt._servers[-1]._server
    assert isinstance(found, TlsListener)
    return found


@asynccontextmanager
async def healthy_over_tls(gateway: Gateway, certificates: Certificates) -> AsyncIterator[None]:
    """A client of each door is there before, during and after, and gets every event in order; so does a new one."""
    trusted = certificates.client_context()
    async with http(gateway, verify=trusted) as browser:
        phone, _ = await Client.connect(port(gateway.mqtts_url), "phone", V5, tls=trusted)
        await phone.subscribe("crm/leads/1/updated", qos=1)

        async def all_is_well(client: httpx.AsyncClient, number: int) -> None:
            await healthy(gateway, client, number)
            for n in range(EVENTS):
                assert b'"n":%d,"number":%d' % (n, number) in (await phone.receive()).payload

        await all_is_well(browser, 0)
        yield
        await all_is_well(browser, 1)
        _, connack = await Client.connect(port(gateway.mqtts_url), "another", V5, tls=trusted)
        assert not connack.reason_code.is_failure
        async with http(gateway, verify=trusted) as another:
            await all_is_well(another, 2)
        await phone.disconnect()


@pytest.mark.parametrize("door", ["https", "mqtts"])
async def test_handshakes_that_stall_are_ended_and_harm_nobody(door: str, certificates: Certificates) -> None:
    tls = TlsOptions(cert_file=certificates.server.certificate, key_file=certificates.server.key)
    async with running(tls=tls, mqtt_port=None, limits=limits()) as gateway:
        listener = listener_of(gateway, door)
        listener._timeout = 1
        url = gateway.http_url if door == "https" else gateway.mqtts_url
        async with healthy_over_tls(gateway, certificates), attackers(url, 60) as slow:
            for number, connection in enumerate(slow):
                connection.send(list(STALLS.values())[number % len(STALLS)])
            async with asyncio.timeout(30):
                await asyncio.gather(*(connection.ended() for connection in slow))
            await until(lambda: listener.handshakes == 0)
            assert listener.failed == 60
        async with http(gateway, verify=certificates.client_context()) as client:
            metrics = (await client.get("/metrics")).text
        assert f'gapless_tls_handshakes_failed_total{{protocol="{door}"}} 60.0' in metrics


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on the loopback")
@pytest.mark.parametrize("door", ["https", "mqtts"])
async def test_a_flood_of_handshakes_is_cut_at_the_share_of_its_address(door: str, certificates: Certificates) -> None:
    """They count before TLS has said a word."""
    tls = TlsOptions(cert_file=certificates.server.certificate, key_file=certificates.server.key)
    share = AddressShares(connections=20, requests_per_second=0)
    async with running(tls=tls, mqtt_port=None, limits=limits(address=share)) as gateway:
        url = gateway.http_url if door == "https" else gateway.mqtts_url
        attacker = gateway.limiter.party("address", "127.0.0.2")
        async with healthy_over_tls(gateway, certificates):
            async with attackers(url, 20 + POLITE + 30, source="127.0.0.2") as flood:
                for connection in flood:
                    connection.send(HELLO[:-1])
                async with asyncio.timeout(30):
                    assert await asyncio.gather(*(connection.ended() for connection in flood[-30:])) == [b""] * 30
                assert attacker.connections == 20 + POLITE
                assert listener_of(gateway, door).handshakes == 20 + POLITE
                assert gateway.limiter.refusals["address", "connections"] == 30
            await until(lambda: attacker.connections == 0)
