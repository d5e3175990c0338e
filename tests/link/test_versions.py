"""MQTT 5, with fall-back to 3.1.1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gapless.eventlog.sqlite import SqliteLog
from gapless.mqtt import Connack, Connect, ProtocolVersion, Publish, ReasonCode, encode
from tests.link.scripted import scripted
from tests.link.support import Side, options, side

V5_REFUSAL = encode(Connack(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION), ProtocolVersion.V5)
V311_REFUSAL = b"\x20\x02\x00\x01"


def refuse_v5_with(answer: bytes) -> Callable[[Connect], bytes | None]:
    return lambda connect: answer if connect.version is ProtocolVersion.V5 else None


@pytest.mark.parametrize("answer", [V5_REFUSAL, V311_REFUSAL, b""], ids=["0x84", "code-1", "closes"])
async def test_falls_back_to_311(answer: bytes) -> None:
    async with scripted(refuse=refuse_v5_with(answer)) as broker, side(options(broker.url)) as gateway:
        assert gateway.link.state.version == "3.1.1"
        session = broker.sessions[1]
        connect = await session.get(Connect)
        assert (connect.version, connect.clean_start) == (ProtocolVersion.V311, False)
        # and both ways work over it
        await gateway.submit({"topic": "crm/leads/1/updated", "data": {"n": 1}})
        published = await session.get(Publish)
        assert b'"data":{"n":1}' in published.payload
        session.send(Publish("crm/leads/2/updated", b'{"n":2}', qos=1, packet_id=9))
        await gateway.heard.wait(2)
        assert gateway.heard.data[1] == {"n": 2}


async def test_fixed_version_does_not_fall_back() -> None:
    async with scripted(refuse=refuse_v5_with(V5_REFUSAL)) as broker:
        gateway = Side(options(broker.url, protocol="5"))
        await gateway.start(connected=False)
        await broker.session(2)
        assert gateway.link.state.status == "connecting"
        assert "version" in gateway.link.state.error
        versions = {(await session.get(Connect)).version for session in broker.sessions[:3]}
        assert versions == {ProtocolVersion.V5}
        await gateway.stop()


async def test_mqtt_5_is_tried_first_again_on_each_connection() -> None:
    """A broker that only closed may have been about to restart."""
    async with scripted(refuse=refuse_v5_with(b"")) as broker, side(options(broker.url)) as gateway:
        broker.refuse = lambda _: None
        broker.sessions[-1].close()
        await gateway.link.wait_disconnected()
        await gateway.connected()
        assert gateway.link.state.version == "5"


async def test_a_broker_that_spoke_mqtt_5_is_not_spoken_to_in_311_because_a_connection_was_cut() -> None:
    """3.1.1 has no place for ids: a message that comes again would be a second event."""
    async with scripted() as broker, side(options(broker.url)) as gateway:
        assert gateway.link.state.version == "5"
        broker.refuse = lambda _: b""
        broker.sessions[0].close()
        await broker.session(3)
        assert {(await session.get(Connect)).version for session in broker.sessions[:4]} == {ProtocolVersion.V5}
        broker.refuse = refuse_v5_with(V5_REFUSAL)  # but where it says so, it is believed
        await gateway.connected()
        assert gateway.link.state.version == "3.1.1"


async def test_a_restarted_gateway_still_knows_that_its_broker_spoke_mqtt_5(tmp_path: Path) -> None:
    async with scripted() as broker:
        async with side(options(broker.url), log=SqliteLog(tmp_path / "log.db")):
            pass
        before = len(broker.sessions)
        broker.refuse = lambda _: b""
        gateway = Side(options(broker.url), log=SqliteLog(tmp_path / "log.db"))
        await gateway.start(connected=False)
        await broker.session(before + 2)
        versions = {(await session.get(Connect)).version for session in broker.sessions[before : before + 3]}
        assert versions == {ProtocolVersion.V5}
        await gateway.stop()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (encode(Connack(ReasonCode.BAD_USER_NAME_OR_PASSWORD), ProtocolVersion.V5), "user name or password"),
        (encode(Connack(ReasonCode.NOT_AUTHORIZED), ProtocolVersion.V5), "does not let this client in"),
        (b"\x20\x02\x00\x05", "does not let this client in"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x0a", "is TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (b"\x20\x09garbage!!!!", "broke the protocol"),
        (b"\x00\x00\x00\x00", "broke the protocol"),
    ],
)
async def test_refusals_say_what_is_wrong_and_are_tried_again(answer: bytes, words: str) -> None:
    async with scripted(refuse=lambda _: answer) as broker:
        gateway = Side(options(broker.url))
        await gateway.start(connected=False)
        while gateway.link.state.attempts < 2:
            await gateway.link._changed.wait()
        assert words in gateway.link.state.error
        await gateway.stop()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_connack_in_single_bytes(version: str) -> None:
    async with scripted(trickles=True) as broker, side(options(broker.url, protocol=version)) as gateway:
        assert gateway.link.state.version == version
        assert len(broker.sessions) == 1
