"""TLS on every door, with certificates that are renewed, and clients who are known by theirs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from gapless.auth import Credentials, DevelopmentGate, Identity
from gapless.client import ClientEvent
from gapless.client.connect import TRANSPORTS
from gapless.client.model import Outgoing, Subscribed
from gapless.client.single import Target, connection_to, publisher_to
from gapless.config import Settings, load_settings
from gapless.errors import ConfigError
from gapless.gateway import Gateway
from gapless.testing import Certificates, make_certificates
from gapless.transports.http import HttpOptions
from gapless.transports.tls import ServerTls, TlsOptions

EVENTS, SIZE = 600, 4000


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def options(certificates: Certificates, **more: Any) -> TlsOptions:
    return TlsOptions(cert_file=certificates.server.certificate, key_file=certificates.server.key, **more)


@asynccontextmanager
async def serving(tls: TlsOptions, **more: Any) -> AsyncIterator[Gateway]:
    gate = more.pop("gate", None)
    settings = Settings(port=0, mqtt_port=None, mqtts_port=0, data=None, tls=tls, **more)
    async with Gateway(settings, gate=gate) as gateway:
        yield gateway


async def hear(transport: Any, target: Target, ready: asyncio.Event, count: int) -> list[Any]:
    heard: list[Any] = []
    async with aclosing(connection_to(target, transport).listen(None)) as signals:
        async for signal in signals:
            if isinstance(signal, Subscribed):
                ready.set()
            if isinstance(signal, ClientEvent):
                heard.append(signal.data)
                if len(heard) == count:
                    break
    return heard


async def test_every_client_and_door_over_tls(certificates: Certificates) -> None:
    trust = certificates.client_context()
    async with serving(options(certificates)) as gateway:
        assert gateway.http_url.startswith("https://")
        assert gateway.mqtts_url is not None
        assert gateway.mqtts_url.startswith("mqtts://")
        targets = {name: Target(url=gateway.http_url, rooms=("lead:1",), tls=trust) for name in TRANSPORTS}
        hearers = []
        for name, target in [*targets.items(), ("mqtt", Target(url=gateway.mqtts_url, filters=("crm/#",), tls=trust))]:
            ready = asyncio.Event()
            hearers.append(asyncio.create_task(hear(name, target, ready, 4)))
            await ready.wait()
        for door, url in [
            ("rest", gateway.http_url),
            ("socketio", gateway.http_url),
            ("mqtt", gateway.http_url),
            ("mqtt", gateway.mqtts_url),
        ]:
            async with publisher_to(url, door, tls=trust) as publisher:  # type: ignore[arg-type]
                await publisher.publish(
                    [Outgoing(id=os.urandom(8).hex(), topic="crm/leads/1/updated", data={"by": door})]
                )
        for heard in await asyncio.gather(*hearers):
            assert [data["by"] for data in heard] == ["rest", "socketio", "mqtt", "mqtt"]


async def test_connect_offers_only_what_is_encrypted(certificates: Certificates) -> None:
    async with (
        serving(options(certificates)) as gateway,
        httpx.AsyncClient(base_url=gateway.http_url, verify=certificates.client_context()) as http,
    ):
        answer = await http.get("/api/connect")
        schemes = {transport["url"].partition(":")[0] for transport in answer.json()["transports"]}
        assert schemes == {"https", "wss", "mqtts"}
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert "gapless_tls_certificate_expires" in (await http.get("/metrics")).text
        assert (await http.get("/readyz")).json()["components"]["tls"] == "ok"


async def test_a_reader_who_stops_over_tls_gets_everything_in_order(certificates: Certificates) -> None:
    """The lent transports pause and resume as they do without TLS: live, then from the log, then live again."""
    http = HttpOptions(stream_bytes=16 << 10)
    async with serving(options(certificates), http=http) as gateway:
        port = int(gateway.http_url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=certificates.client_context(), server_hostname="localhost", limit=1 << 16
        )
        writer.write(b"GET /api/stream?rooms=lead:1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"gapless.position")
        for number in range(EVENTS):
            await gateway.publish(topic="crm/leads/1/updated", data={"n": number, "filling": "x" * SIZE})
        assert gateway.http.sse.fell_behind > 0
        heard: list[int] = []
        while len(heard) < EVENTS + 1:
            line = await reader.readline()
            if line.startswith(b"data: ") and b'"n":' in line:
                heard.append(json.loads(line[6:])["data"]["n"])
            if len(heard) == EVENTS and gateway.http.sse.behind == 0:
                await gateway.publish(topic="crm/leads/1/updated", data={"n": EVENTS})
        assert heard == list(range(EVENTS + 1))
        writer.transport.abort()


async def test_certificates_are_taken_when_their_files_change(certificates: Certificates, tmp_path: Path) -> None:
    folder = tmp_path / "live"
    mine = make_certificates(folder)
    async with serving(options(mine)) as gateway:
        tls = gateway.tls
        assert tls is not None
        port = int(gateway.http_url.rsplit(":", 1)[1])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

        async def shown() -> tuple[bytes, asyncio.StreamWriter]:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            return writer.get_extra_info("ssl_object").getpeercert(binary_form=True), writer

        first, early = await shown()
        assert not tls.reload()

        mine.server.certificate.write_text("no certificate")
        assert not tls.reload()
        assert tls.problem is not None
        still, writer = await shown()
        assert still == first
        writer.close()

        mine.server.certificate.write_bytes(certificates.server.certificate.read_bytes())
        assert not tls.reload(), "the key is another's"
        assert "key" in str(tls.problem)
        mine.server.key.write_bytes(certificates.server.key.read_bytes())
        assert tls.reload()
        assert (tls.reloads, tls.status) == (1, "ok")
        after, writer = await shown()
        assert after == ssl.PEM_cert_to_DER_cert(
            certificates.server.certificate.read_text().split("-----END")[0] + "-----END CERTIFICATE-----\n"
        )
        writer.close()

        early.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")  # the connection from before is still served
        await early.drain()
        early.close()


class Recorder(DevelopmentGate):
    """Lets everybody in, and keeps what they showed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Credentials] = []

    async def authenticate(self, credentials: Credentials) -> Identity:
        self.seen.append(credentials)
        return Identity(user_id=credentials.certificate.common_name if credentials.certificate else None)


async def test_a_clients_certificate_reaches_the_gate_by_every_door(certificates: Certificates) -> None:
    gate = Recorder()
    trust = certificates.client_context(with_certificate=True)
    tls = options(certificates, client_ca_file=certificates.ca)
    async with serving(tls, gate=gate) as gateway:
        for door in ("rest", "socketio", "mqtt"):
            async with publisher_to(gateway.http_url, door, tls=trust) as publisher:
                await publisher.publish([Outgoing(id=door, topic="crm/leads/1/updated", data={})])
        async with publisher_to(gateway.mqtts_url or "", "mqtt", tls=trust) as publisher:
            await publisher.publish([Outgoing(id="mqtts", topic="crm/leads/1/updated", data={})])
    assert {seen.door for seen in gate.seen} == {"rest", "socketio", "mqtt"}
    assert len({seen.connection for seen in gate.seen}) == 4  # one is looked at again where its body was waited for
    for seen in gate.seen:
        assert seen.address == "127.0.0.1"
        assert re.fullmatch(r"(ws )?127\.0\.0\.1:[1-9][0-9]+", seen.connection or "")
        assert seen.certificate is not None
        assert seen.certificate.common_name == "device-7"
        assert seen.certificate.names == ("DNS:device-7.test",)
        assert len(seen.certificate.fingerprint) == 64


@pytest.mark.parametrize(("auth", "let_in"), [("required", False), ("optional", True)])
async def test_a_client_without_a_certificate(certificates: Certificates, auth: Any, let_in: bool) -> None:
    gate = Recorder()
    tls = options(certificates, client_ca_file=certificates.ca, client_auth=auth)
    async with (
        serving(tls, gate=gate) as gateway,
        httpx.AsyncClient(base_url=gateway.http_url, verify=certificates.client_context()) as http,
    ):
        if let_in:
            assert (await http.get("/api/connect")).status_code == 200
            assert [seen.certificate for seen in gate.seen] == [None]
        else:
            with pytest.raises(httpx.TransportError):
                await http.get("/api/connect")
            assert gate.seen == []


async def test_another_authoritys_client_is_refused(certificates: Certificates, tmp_path: Path) -> None:
    strangers = make_certificates(tmp_path)
    trust = certificates.client_context()
    trust.load_cert_chain(strangers.client.certificate, strangers.client.key)
    tls = options(certificates, client_ca_file=certificates.ca, client_auth="optional")
    async with serving(tls) as gateway, httpx.AsyncClient(base_url=gateway.http_url, verify=trust) as http:
        with pytest.raises(httpx.TransportError):
            await http.get("/healthz")


class TestSettings:
    """Without a loop."""

    def test_wrong_files_are_named(self, certificates: Certificates, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot read .*nothing.pem"):
            ServerTls(TlsOptions(cert_file=tmp_path / "nothing.pem"))
        with pytest.raises(ConfigError, match="private key is not that"):
            ServerTls(TlsOptions(cert_file=certificates.server.certificate, key_file=certificates.client.key))
        with pytest.raises(ConfigError, match="client_ca_file"):
            ServerTls(options(certificates, client_auth="required"))
        old = make_certificates(tmp_path, not_after=datetime.now(UTC) - timedelta(days=1))
        with pytest.raises(ConfigError, match="has expired"):
            ServerTls(options(old))

    def test_the_plain_mqtt_port_is_closed_by_default_where_others_reach_it(self, certificates: Certificates) -> None:
        table = {"cert_file": str(certificates.server.certificate), "key_file": str(certificates.server.key)}
        away = {"host": "0.0.0.0", "tls": table}
        assert load_settings(environment={}, flags=away).mqtt_port is None
        assert load_settings(environment={}, flags=away).mqtts_port == 8883
        assert load_settings(environment={}, flags={**away, "mqtt_port": 1883}).mqtt_port == 1883
        assert load_settings(environment={}, flags={"tls": table}).mqtt_port == 1883
