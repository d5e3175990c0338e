"""TCP, TLS, WebSocket and credentials, against a real Mosquitto; on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gapless.testing import Broker, BrokerConfig, Certificates, make_certificates, run_broker
from tests.link.support import Side, options, side, stock

pytestmark = pytest.mark.needs_mosquitto


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def broker(certificates: Certificates) -> AsyncIterator[Broker]:
    async with run_broker(BrokerConfig(tls=certificates, websocket=True)) as running:
        yield running


def url_of(broker: Broker, scheme: str) -> str:
    return {"mqtt": broker.url, "mqtts": broker.tls_url, "ws": broker.ws_url, "wss": broker.wss_url}[scheme]


async def both_ways(broker: Broker, certificates: Certificates, scheme: str, version: str) -> None:
    extra = {"ca_file": certificates.ca} if scheme in ("mqtts", "wss") else {}
    async with side(options(url_of(broker, scheme), protocol=version, **extra)) as gateway:
        async with stock(broker.port, "crm/leads/out/updated") as client:
            # More than one TLS record, and than one read. Over WebSocket, Mosquitto 2.0.11 pauses for
            # five seconds in a message that the socket does not take at once.
            big = "x" * (5_000 if scheme in ("ws", "wss") else 200_000)
            await gateway.submit({"topic": "crm/leads/out/updated", "data": {"big": big, "n": 0}}, qos=2)
            await client.publish("crm/leads/in/updated", '{"big":"' + big + '"}', qos=2)
            (message,) = await client.wait(1)
            await gateway.heard.wait(2)
            assert message.json["data"]["big"] == big
            assert {"big": big} in gateway.heard.data
            for n in range(200):
                await gateway.submit({"topic": "crm/leads/out/updated", "data": {"n": n}})
            messages = await client.wait(201)
            assert [m.n for m in messages[1:]] == list(range(200))


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
async def test_both_ways(broker: Broker, certificates: Certificates, scheme: str, version: str) -> None:
    await both_ways(broker, certificates, scheme, version)


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
def test_on_uvloop(certificates: Certificates, scheme: str) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with run_broker(BrokerConfig(tls=certificates, websocket=True)) as broker:
            await both_ways(broker, certificates, scheme, "5")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def failure(link_options: Any) -> Side:
    """A side whose link has failed to connect at least once; stopped."""
    gateway = Side(link_options)
    await gateway.start(connected=False)
    async with asyncio.timeout(20):
        while gateway.link.state.attempts < 2:
            await gateway.link._changed.wait()
    state = gateway.link.state
    await gateway.stop()
    assert state.status == "connecting"
    gateway.link.state = state
    return gateway


@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
async def test_unknown_authority_is_refused(broker: Broker, scheme: str) -> None:
    state = (await failure(options(url_of(broker, scheme)))).link.state
    assert "TLS" in state.error
    assert "authority" in state.hint
    assert "ca_file" in state.hint


async def test_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, names=("elsewhere.example",))
    async with run_broker(BrokerConfig(tls=made)) as broker:
        state = (await failure(options(broker.tls_url, ca_file=made.ca))).link.state
    assert "another name" in state.hint


async def test_expired_certificate_is_refused(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, not_after=datetime.now(UTC) - timedelta(days=1))
    async with run_broker(BrokerConfig(tls=made)) as broker:
        state = (await failure(options(broker.tls_url, ca_file=made.ca))).link.state
    assert "expired" in state.hint


async def test_client_certificate(certificates: Certificates) -> None:
    config = BrokerConfig(tls=certificates, require_client_certificate=True)
    async with run_broker(config) as broker:
        await failure(options(broker.tls_url, ca_file=certificates.ca))
        pair = certificates.client
        shown = options(broker.tls_url, ca_file=certificates.ca, cert_file=pair.certificate, key_file=pair.key)
        async with side(shown) as gateway, stock(broker.port) as client:
            await client.publish("crm/leads/1/updated", "{}")
            await gateway.heard.wait(1)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_user_and_password(version: str, caplog: pytest.LogCaptureFixture) -> None:
    async with run_broker(BrokerConfig(users={"gateway": "s3cret@x"})) as broker:
        at = f"127.0.0.1:{broker.port}"
        async with side(options(f"mqtt://gateway:s3cret%40x@{at}", protocol=version)) as gateway:
            assert gateway.link.state.version == version
        async with side(options(f"mqtt://{at}", username="gateway", password="s3cret@x")):
            pass
        for wrong in (f"mqtt://gateway:wr0ng@{at}", f"mqtt://{at}"):
            state = (await failure(options(wrong, protocol=version))).link.state
            assert "refused" in state.error
            assert state.hint
    for secret in ("s3cret", "wr0ng"):
        assert secret not in caplog.text
