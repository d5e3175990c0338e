from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gapless.testing import BrokerConfig, BrokerUnavailable, ProcessFailed, make_certificates, run_broker

pytestmark = pytest.mark.needs_mosquitto

CONNACK, PUBACK, PUBLISH = 0x20, 0x40, 0x30


def text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def packet(kind: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([kind, len(body)]) + body


class Client:
    """As little MQTT 3.1.1 as these tests need, so that they depend on no client library."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def receive(self) -> tuple[int, bytes]:
        kind, length = await self.reader.readexactly(2)
        assert length < 128
        return kind, await self.reader.readexactly(length)

    async def connect(self, *, user: str = "", password: str = "") -> int:
        flags = 0x02 | (0xC0 if user else 0)
        body = text("MQTT") + bytes([4, flags, 0, 0]) + text("")
        if user:
            body += text(user) + text(password)
        self.writer.write(packet(0x10, body))
        kind, answer = await self.receive()
        assert kind == CONNACK
        return answer[1]

    async def publish_retained(self, topic: str, payload: bytes) -> None:
        self.writer.write(packet(0x33, text(topic) + b"\x00\x01" + payload))
        assert (await self.receive())[0] == PUBACK
        # A further turn of its loop: with autosave the message is on disk after this.
        self.writer.write(packet(0xC0, b""))
        assert (await self.receive())[0] == 0xD0

    async def retained(self, topic: str) -> bytes | None:
        self.writer.write(packet(0x82, b"\x00\x02" + text(topic) + b"\x00"))
        assert (await self.receive())[0] == 0x90
        self.writer.write(packet(0xC0, b""))
        kind, body = await self.receive()
        return body[2 + len(topic) :] if kind & 0xF0 == PUBLISH else None


@asynccontextmanager
async def client_of(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    host, port = url.split("//")[1].split("/")[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def test_it_serves_and_stops() -> None:
    async with run_broker() as broker:
        assert broker.url == f"mqtt://127.0.0.1:{broker.port}"
        assert broker.is_running()
        async with client_of(broker.url) as client:
            assert await client.connect() == 0
        await broker.stop()
        assert not broker.is_running()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", broker.port)


async def test_a_clean_stop_keeps_retained_messages() -> None:
    async with run_broker() as broker:
        port = broker.port
        async with client_of(broker.url) as client:
            await client.connect()
            await client.publish_retained("a/b", b"kept")
        await broker.stop()
        await broker.start()
        assert broker.port == port
        async with client_of(broker.url) as client:
            await client.connect()
            assert await client.retained("a/b") == b"kept"


@pytest.mark.parametrize(("saves", "kept"), [(True, b"kept"), (False, None)])
async def test_what_a_kill_leaves_depends_on_autosave(saves: bool, kept: bytes | None) -> None:
    async with run_broker(BrokerConfig(save_every_change=saves)) as broker:
        pid = broker.pid
        async with client_of(broker.url) as client:
            await client.connect()
            await client.publish_retained("a/b", b"kept")
        await broker.kill()
        await broker.start()
        assert broker.pid != pid
        async with client_of(broker.url) as client:
            await client.connect()
            assert await client.retained("a/b") == kept


async def test_a_paused_broker_is_silent_until_resumed() -> None:
    async with run_broker() as broker:
        async with client_of(broker.url) as client:
            await client.connect()
            broker.pause()
            asked = asyncio.create_task(client.retained("a/b"))
            # The state of the process, not a time without an answer, shows that it is stopped.
            await asyncio.to_thread(os.waitid, os.P_PID, broker.pid, os.WSTOPPED | os.WNOWAIT)
            assert not asked.done()
            broker.resume()
            assert await asked is None


async def test_a_paused_broker_can_be_killed_and_stopped() -> None:
    async with run_broker() as broker:
        broker.pause()
        await broker.kill()
        await broker.start()
        broker.pause()
        await broker.stop()


async def test_passwords_let_in_the_right_user_only() -> None:
    config = BrokerConfig(users={"alice": "s3cret"})
    assert "s3cret" not in repr(config)
    async with run_broker(config) as broker:
        async with client_of(broker.url) as client:
            assert await client.connect(user="alice", password="s3cret") == 0
        async with client_of(broker.url) as client:
            assert await client.connect(user="alice", password="wrong") == 5
        async with client_of(broker.url) as client:
            assert await client.connect() == 5


async def test_tls_with_client_certificates(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    config = BrokerConfig(tls=certificates, require_client_certificate=True)
    async with run_broker(config) as broker:
        context = certificates.client_context(with_certificate=True)
        async with client_of(broker.tls_url, context) as client:
            assert await client.connect() == 0
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            async with client_of(broker.tls_url, certificates.client_context()) as client:
                await client.connect()


async def test_websocket_listeners(tmp_path: Path) -> None:
    from websockets.asyncio.client import connect

    certificates = make_certificates(tmp_path)
    async with run_broker(BrokerConfig(tls=certificates, websocket=True)) as broker:
        hello = packet(0x10, text("MQTT") + bytes([4, 2, 0, 0]) + text(""))
        async with connect(broker.ws_url, subprotocols=["mqtt"]) as socket:  # type: ignore[list-item]
            await socket.send(hello)
            assert await socket.recv() == b"\x20\x02\x00\x00"
        context = certificates.client_context()
        async with connect(broker.wss_url, subprotocols=["mqtt"], ssl=context) as socket:  # type: ignore[list-item]
            await socket.send(hello)
            assert await socket.recv() == b"\x20\x02\x00\x00"


async def test_listeners_that_were_not_asked_for_are_said_to_be_missing() -> None:
    async with run_broker() as broker:
        with pytest.raises(RuntimeError, match="no ws listener"):
            _ = broker.ws_url


async def test_a_wrong_configuration_is_reported_with_its_log() -> None:
    with pytest.raises(ProcessFailed, match="no_such_option"):
        async with run_broker(BrokerConfig(lines=["no_such_option 1"])):
            pytest.fail("it must not start")


async def test_a_given_folder_is_kept(tmp_path: Path) -> None:
    async with run_broker(folder=tmp_path) as broker:
        async with client_of(broker.url) as client:
            await client.connect()
            await client.publish_retained("a/b", b"kept")
    async with run_broker(folder=tmp_path) as broker, client_of(broker.url) as client:
        await client.connect()
        assert await client.retained("a/b") == b"kept"


async def test_without_mosquitto_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapless.testing.broker.find_mosquitto", lambda: None)
    with pytest.raises(BrokerUnavailable) as caught:
        async with run_broker():
            pytest.fail("it must not start")
    assert "apt-get install mosquitto" in caught.value.hint


async def test_several_brokers_at_once() -> None:
    async with run_broker() as one, run_broker() as two:
        assert one.port != two.port
        for broker in (one, two):
            async with client_of(broker.url) as client:
                assert await client.connect() == 0
