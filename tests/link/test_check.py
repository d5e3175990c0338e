"""Each step of `gapless check`: what it finds on a good broker, and what it says of a bad one."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gapless.link import LinkOptions
from gapless.link.check import Step, check_broker
from gapless.mqtt import Connack, Connect, Properties, ProtocolVersion, ReasonCode, encode
from gapless.testing import BrokerConfig, make_certificates, run_broker
from tests.link.scripted import listening, scripted
from tests.link.support import stock

NAMES = ["dns", "tcp", "connect", "limits", "subscribe", "qos0", "qos1", "qos2", "retained", "session", "strangers"]


async def check(url: str, *, timeout: float = 5.0, **changes: Any) -> list[Step]:
    return [step async for step in check_broker(LinkOptions(url=url, **changes), timeout=timeout)]


def last(steps: list[Step]) -> tuple[str, str, str]:
    """The failing step; all before it were good."""
    assert all(step.ok for step in steps[:-1]), steps
    assert not steps[-1].ok
    return steps[-1].name, steps[-1].detail, steps[-1].hint


@pytest.mark.needs_mosquitto
@pytest.mark.parametrize("version", ["auto", "5", "3.1.1"])
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
async def test_good_broker(tmp_path: Path, scheme: str, version: str) -> None:
    made = make_certificates(tmp_path)
    extra: dict[str, Any] = {"ca_file": made.ca} if scheme in ("mqtts", "wss") else {}
    expected = list(NAMES)
    if scheme in ("ws", "wss"):
        expected.insert(2, "websocket")
    if scheme in ("mqtts", "wss"):
        expected.insert(2, "tls")
    async with run_broker(BrokerConfig(tls=made, websocket=True)) as broker:
        url = {"mqtt": broker.url, "mqtts": broker.tls_url, "ws": broker.ws_url, "wss": broker.wss_url}[scheme]
        steps = await check(url, protocol=version, **extra)
        assert [step.name for step in steps if not step.ok] == []
        assert [step.name for step in steps] == expected
        found = {step.name: step.detail for step in steps}
        assert found["connect"].startswith("MQTT 3.1.1" if version == "3.1.1" else "MQTT 5")
        assert found["qos2"].endswith("at QoS 2")
        if version != "3.1.1":
            assert "receive maximum 20" in found["limits"]
        if "tls" in found:
            assert "TLSv1.3" in found["tls"]
            assert "more days" in found["tls"]
        assert all(step.seconds >= 0 for step in steps)
        # nothing is left behind
        async with stock(broker.port, "gapless/check/#") as client:
            await client.publish("gapless/check/end", b"")
            assert [m.topic for m in await client.wait(1)] == ["gapless/check/end"]


async def test_unknown_host() -> None:
    name, detail, hint = last(await check("mqtt://no-such-host.invalid"))
    assert name == "dns"
    assert "no-such-host.invalid" in detail
    assert "typing errors" in hint


async def test_nothing_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        name, detail, hint = last(await check(f"mqtt://127.0.0.1:{port}"))
    assert name == "tcp"
    assert "refused" in detail
    assert "is the broker running" in hint


@pytest.mark.needs_mosquitto
async def test_wrong_scheme_for_the_port(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    async with run_broker(BrokerConfig(tls=made, websocket=True)) as broker:
        ports = broker._ports
        plain, secure, web = ports["mqtt"], ports["mqtts"], ports["ws"]
        name, _, hint = last(await check(f"mqtts://127.0.0.1:{plain}"))
        assert (name, "mqtt://" in hint) == ("tls", True)
        name, detail, hint = last(await check(f"mqtt://127.0.0.1:{secure}"))
        assert name == "connect"
        assert "mqtts://" in hint, (detail, hint)
        name, detail, hint = last(await check(f"mqtt://127.0.0.1:{web}"))
        assert (name, f"ws://127.0.0.1:{web}" in hint) == ("connect", True)
        name, _, _ = last(await check(f"ws://127.0.0.1:{plain}", timeout=2))
        assert name == "websocket"


@pytest.mark.needs_mosquitto
async def test_certificates(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "good")
    async with run_broker(BrokerConfig(tls=made, require_client_certificate=True)) as broker:
        name, detail, hint = last(await check(broker.tls_url))
        assert (name, "ca_file" in hint) == ("tls", True)
        # TLS 1.3 tells of a missing client certificate only after the handshake
        name, detail, hint = last(await check(broker.tls_url, ca_file=made.ca))
        assert name in ("tls", "connect")
        assert "certificate" in f"{detail} {hint}"
        pair = made.client
        steps = await check(broker.tls_url, ca_file=made.ca, cert_file=pair.certificate, key_file=pair.key)
        assert all(step.ok for step in steps)
    other = make_certificates(tmp_path / "name", names=("elsewhere.example",))
    async with run_broker(BrokerConfig(tls=other)) as broker:
        name, _, hint = last(await check(broker.tls_url, ca_file=other.ca))
        assert (name, "another name" in hint) == ("tls", True)
    soon = make_certificates(tmp_path / "soon", not_after=datetime.now(UTC) + timedelta(days=3, hours=1))
    async with run_broker(BrokerConfig(tls=soon)) as broker:
        tls = (await check(broker.tls_url, ca_file=soon.ca))[2]
        assert tls.ok
        assert "ends in 3 days" in tls.hint


async def test_wrong_certificate_file(tmp_path: Path) -> None:
    async with scripted() as broker:
        steps = await check(f"mqtts://127.0.0.1:{broker.port}", ca_file=tmp_path / "absent.pem")
    name, detail, _ = last(steps)
    assert name == "tls"
    assert "absent.pem" in detail


@pytest.mark.needs_mosquitto
async def test_wrong_password() -> None:
    async with run_broker(BrokerConfig(users={"me": "right"})) as broker:
        at = f"127.0.0.1:{broker.port}"
        for url in (f"mqtt://me:wr0ng@{at}", f"mqtt://{at}"):
            steps = await check(url)
            name, detail, hint = last(steps)
            assert name == "connect"
            assert "password" in f"{detail} {hint}"
            assert "wr0ng" not in str(steps)
        assert all(step.ok for step in await check(f"mqtt://me:right@{at}"))


@pytest.mark.needs_mosquitto
async def test_topics_that_the_user_may_not_use(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read gapless/#\n")
    async with run_broker(BrokerConfig(lines=[f"acl_file {rules}"])) as broker:
        for version in ("5", "3.1.1"):
            steps = await check(broker.url, timeout=1, protocol=version)
            failed = {step.name: step for step in steps if not step.ok}
            assert {"qos0", "qos1", "qos2", "retained", "session"} <= set(failed)
            assert "publish to it" in failed["qos1"].hint
        assert "not authorized" in (await check(broker.url, timeout=1))[6].detail  # MQTT 5 says why


async def test_broker_with_little_to_offer() -> None:
    connack = Properties(maximum_qos=1, retain_available=False, wildcard_subscription_available=False)
    async with scripted(connack=connack, granted=ReasonCode.GRANTED_QOS_1) as broker:
        steps = {step.name: step for step in await check(broker.url, timeout=1)}  # some are not answered
        assert "QoS up to 1, retained messages no, wildcards no" in steps["limits"].detail
        assert "link.subscribe" in steps["limits"].hint
        assert "QoS 1 at most" in steps["subscribe"].hint
        assert steps["retained"].ok
        assert "QoS 1 at most" in steps["qos2"].detail
        assert (steps["session"].ok, "persistent sessions" in steps["session"].hint) == (False, True)


async def test_refused_subscription() -> None:
    async with scripted(granted=ReasonCode.NOT_AUTHORIZED) as broker:
        name, _, hint = last(await check(broker.url))
    assert (name, "access list" in hint) == ("subscribe", True)


async def test_falls_back_to_311() -> None:
    refusal = encode(Connack(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION), ProtocolVersion.V5)

    def refuse(connect: Connect) -> bytes | None:
        return refusal if connect.version is ProtocolVersion.V5 else None

    async with scripted(refuse=refuse) as broker:
        steps = check_broker(LinkOptions(url=broker.url))
        connect = await anext(step async for step in steps if step.name == "connect")
        await steps.aclose()  # type: ignore[attr-defined]
        assert connect.detail.startswith("MQTT 3.1.1 (it refused MQTT 5)")
        name, detail, _ = last(await check(broker.url, protocol="5"))
        assert (name, "version" in detail) == ("connect", True)


async def test_silent_port() -> None:
    async with listening(None) as port:
        for scheme, step in (("mqtt", "connect"), ("mqtts", "tls"), ("ws", "websocket")):
            name, _, hint = last(await check(f"{scheme}://127.0.0.1:{port}", timeout=0.3))
            assert name == step
            assert hint


async def test_web_server_that_speaks_no_websocket() -> None:
    async with listening(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as port:
        name, detail, hint = last(await check(f"ws://127.0.0.1:{port}/wrong"))
        assert name == "websocket"
        assert "404" in detail
        assert "path" in hint


async def test_stopping_half_way_closes_everything() -> None:
    async with scripted() as broker:
        steps = check_broker(LinkOptions(url=broker.url))
        async for step in steps:
            if step.name == "subscribe":
                break
        await steps.aclose()  # type: ignore[attr-defined]
        session = broker.sessions[0]
        async with asyncio.timeout(5):
            while not session.ended:
                session.news.clear()
                await session.news.wait()


@pytest.mark.needs_mosquitto
async def test_a_broker_that_is_open_to_everybody_is_warned_of() -> None:
    async with run_broker() as broker:
        *_, step = await check(broker.url)
    assert (step.name, step.ok, step.warning) == ("strangers", True, True)
    assert step.detail.startswith("ANYBODY WHO REACHES THIS BROKER MAY READ EVERYTHING AND PUBLISH")
    assert "allow_anonymous false" in step.hint


@pytest.mark.needs_mosquitto
async def test_a_broker_with_accounts_is_not() -> None:
    async with run_broker(BrokerConfig(users={"crm": "secret"})) as broker:
        *_, step = await check(broker.url, username="crm", password="secret")
    assert (step.name, step.ok, step.warning) == ("strangers", True, False)
    assert step.detail == "nobody connects without an account"


@pytest.mark.needs_mosquitto
async def test_a_broker_that_lets_strangers_in_and_tells_them_nothing(tmp_path: Path) -> None:
    rights = tmp_path / "acl"
    rights.write_text("topic read public/#\nuser crm\ntopic readwrite #\n")
    lines = [f"acl_file {rights}", "allow_anonymous true"]
    async with run_broker(BrokerConfig(users={"crm": "secret"}, lines=lines)) as broker:
        *_, step = await check(broker.url, username="crm", password="secret")
    assert (step.ok, step.warning) == (True, True)
    assert step.detail == "anybody connects without an account, but hears and says nothing of ours"
