"""CONNECT and what follows from it: CONNACK, sessions, identifiers, keep alive, authentication."""

from __future__ import annotations

import pytest

from gapless.auth import DevelopmentGate
from gapless.mqtt import (
    Auth,
    Connack,
    Connect,
    Pingreq,
    Pingresp,
    Properties,
    ProtocolVersion,
    Publish,
    ReasonCode,
    Will,
)
from gapless.transports.mqtt import EdgeOptions
from tests.mqtt_conformance.desk import Desk, read_to_end, receive
from tests.mqtt_conformance.tags import V5, V311, shows
from tests.mqtt_edge.support import Client, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")


@shows("3.1.4-4 3.2.0-1 7.1.1-1", "3.1.4-5 3.2.0-1 3.2.0-2 4.2.0-1")
async def test_connack_comes_first_and_once(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.returning("c", version)
    await client.subscribe(desk.topic("a"))
    await desk.gone(client)
    await (await desk.client("pub")).publish(desk.topic("a"))

    client = await desk.say(
        Connect(desk.id("c"), version, clean_start=False, properties=_expiry(3600) if version is V5 else None)
    )
    connack = await client.expect(Connack)
    assert connack.reason_code is ReasonCode.SUCCESS
    await client.receive()
    await client.nothing_more()


@shows("3.1.2-6 3.1.4-3 3.2.2-1", "3.1.2-4 3.1.4-4 3.2.2-2")
async def test_clean_start_discards_the_session(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.returning("c", version)
    await client.subscribe(desk.topic("a"))
    await desk.gone(client)

    client, connack = await desk.connect("c", version, clean=True)
    assert not connack.session_present
    await (await desk.client("pub")).publish(desk.topic("a"))
    await client.nothing_more()
    await desk.gone(client)

    client, connack = await desk.connect("c", version, clean=False)
    assert not connack.session_present, "the session of clean start ended with its connection"
    await client.nothing_more()


@shows(
    "3.1.2-4 3.1.2-5 3.1.3-2 3.1.4-3 3.2.2-2 3.2.2-3 4.1.0-1 4.5.0-1",
    "3.1.2-5 3.1.2-6 3.1.2-23 3.1.3-2 3.2.2-3 4.5.0-1",
)
async def test_a_session_is_resumed_by_its_client_identifier(desk: Desk, version: ProtocolVersion) -> None:
    client, connack = await desk.connect("c", version, clean=False, expiry=3600)
    assert not connack.session_present
    await client.subscribe(desk.topic("a"), qos=2)
    await desk.gone(client)
    publisher = await desk.client("pub", version)
    for n, qos in enumerate([1, 2, 1]):
        await publisher.publish(desk.topic("a"), b"%d" % n, qos=qos)

    other, connack = await desk.connect("other", version, clean=False, expiry=3600)
    assert not connack.session_present
    await other.nothing_more()
    client, connack = await desk.connect("c", version, clean=False, expiry=3600)
    assert connack.session_present
    messages = await receive(client, 3)
    assert [(packet.payload, packet.qos) for packet in messages] == [(b"0", 1), (b"1", 2), (b"2", 1)]
    await client.nothing_more()


@shows("3.1.4-2", "3.1.4-3")
async def test_a_second_connection_takes_over(desk: Desk, version: ProtocolVersion) -> None:
    old = await desk.returning("c", version)
    await old.subscribe(desk.topic("a"))
    new, connack = await desk.connect("c", version, clean=False, expiry=3600)
    assert connack.session_present
    await old.expect_closed(ReasonCode.SESSION_TAKEN_OVER if version is V5 else None)
    await (await desk.client("pub")).publish(desk.topic("a"))
    await new.receive()
    await new.nothing_more()


@shows("3.1.0-2", "3.1.0-2")
async def test_a_second_connect_closes_the_connection(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    client.send(Connect(desk.id("c"), version))
    await client.expect_closed(ReasonCode.PROTOCOL_ERROR if version is V5 else None)


@shows("3.1.3-9 3.2.2-4 3.2.2-5", "3.1.3-8 3.1.4-2 3.2.2-6 3.2.2-7 3.14.0-1")
async def test_a_client_identifier_that_is_refused(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.say(Connect("x" * 2000, version))
    connack, *rest = await read_to_end(client)
    assert isinstance(connack, Connack)
    assert connack.reason_code is ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
    assert not connack.session_present
    assert rest == []


@shows("3.1.3-8 3.2.2-5")
async def test_no_client_identifier_for_a_session_that_stays(desk: Desk, version: ProtocolVersion) -> None:
    client = await Client.open(desk.port, version)
    client.send_bytes(b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00")
    assert await read_to_end(client) == [Connack(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)]


@shows("3.1.3-6", "3.1.3-6 3.1.3-7 3.2.2-16")
async def test_an_empty_client_identifier_becomes_a_unique_one(desk: Desk, version: ProtocolVersion) -> None:
    first, one = await Client.connect(desk.port, "", version, expiry=60)
    second, two = await Client.connect(desk.port, "", version, expiry=60)
    for client in (first, second):
        await client.nothing_more()
    if version is V311:
        return
    assert one.properties is not None
    assert two.properties is not None
    assigned = one.properties.assigned_client_identifier
    assert assigned
    assert assigned != two.properties.assigned_client_identifier
    await first.disconnect()
    _, connack = await Client.connect(desk.port, assigned, version, clean=False, expiry=60)
    assert connack.session_present


@shows("3.1.3-5", "3.1.3-5")
async def test_identifiers_of_23_letters_and_digits(desk: Desk, version: ProtocolVersion) -> None:
    for name in ("a", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"):
        client, connack = await Client.connect(desk.port, name, version)
        assert connack.reason_code is ReasonCode.SUCCESS
        await client.disconnect()


@shows("3.1.4-5", "3.1.4-6")
async def test_nothing_after_a_refused_connect_is_processed(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await desk.client("watcher")
    await watcher.subscribe(desk.topic("#"))
    client = await desk.say(Connect("x" * 2000, version))
    client.send(Publish(desk.topic("a"), b"no", qos=1, packet_id=1))
    (connack,) = await read_to_end(client)
    assert isinstance(connack, Connack)
    await watcher.nothing_more()


@shows("3.1.4-2 3.2.2-5", "3.1.4-2 3.2.2-7")
@pytest.mark.parametrize("password", [None, b"wrong"])
async def test_wrong_credentials(version: ProtocolVersion, password: bytes | None) -> None:
    async with running_edge(gate=DevelopmentGate("secret")) as node:
        client = await Client.open(node.port, version)
        client.send(Connect("c", version, username=None if password is None else "u", password=password))
        connack, *rest = await read_to_end(client)
        assert isinstance(connack, Connack)
        wanted = ReasonCode.NOT_AUTHORIZED if password is None else ReasonCode.BAD_USER_NAME_OR_PASSWORD
        assert connack.reason_code is wanted
        assert rest == []


@shows("3.1.2-24", "3.1.2-22 3.2.2-22")
async def test_silence_ends_the_connection_as_a_broken_network_does(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await desk.client("watcher")
    await watcher.subscribe(desk.topic("#"))
    will = Will(desk.topic("will"), b"silent")
    client, connack = await desk.connect("c", version, keep_alive=1, will=will)
    if version is V5:
        assert connack.properties is not None
        assert connack.properties.server_keep_alive is None
    await client.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT if version is V5 else None)
    assert (await watcher.receive()).payload == b"silent"


async def test_the_servers_keep_alive_holds_where_it_says_so() -> None:
    async with running_edge(options=EdgeOptions(keepalive_max=1)) as node:
        client, connack = await Client.connect(node.port, "c", V5, keep_alive=0)
        assert connack.properties is not None
        assert connack.properties.server_keep_alive == 1
        await client.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT)


@shows("3.12.4-1", "3.12.4-1")
async def test_a_ping_is_answered(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    client.send(Pingreq(), Pingreq(), Pingreq())
    for _ in range(3):
        await client.expect(Pingresp)


@shows("4.1.0-2", "4.1.0-1")
async def test_a_session_lasts_as_long_as_its_connection(version: ProtocolVersion) -> None:
    async with running_edge(options=EdgeOptions(max_session_expiry=10)) as node:
        client, _ = await Client.connect(node.port, "c", version, clean=False, expiry=10)
        await client.subscribe("a")
        node.clock.ahead += 1000
        await node.publish("a", 1)
        await client.receive()
        await client.drop()
        client, connack = await Client.connect(node.port, "c", version, clean=False, expiry=10)
        assert connack.session_present


@shows(v5="4.1.0-2")
async def test_a_session_ends_when_its_expiry_has_passed(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "c", version, clean=False, expiry=10)
        await client.disconnect()
        node.clock.ahead += 11
        client, connack = await Client.connect(node.port, "c", version, clean=False, expiry=10)
        assert not connack.session_present


@shows(v5="3.1.2-28")
@pytest.mark.parametrize("asked", [None, False, True])
async def test_response_information_is_never_sent(desk: Desk, version: ProtocolVersion, asked: bool | None) -> None:
    properties = None if asked is None else Properties(request_response_information=asked)
    client = await desk.say(Connect(desk.id("c"), version, properties=properties))
    connack = await client.expect(Connack)
    assert connack.properties is not None
    assert connack.properties.response_information is None


# Extended authentication: one method, gapless-token, in one step


@shows(v5="4.12.0-1 4.12.0-4 3.2.2-7")
async def test_an_authentication_method_is_refused(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.say(Connect(desk.id("c"), version, properties=Properties(authentication_method="SCRAM")))
    connack, *rest = await read_to_end(client)
    assert isinstance(connack, Connack)
    assert connack.reason_code is ReasonCode.BAD_AUTHENTICATION_METHOD
    assert rest == []


@shows(v5="4.12.0-6")
async def test_without_a_method_none_is_answered(desk: Desk, version: ProtocolVersion) -> None:
    client, connack = await desk.connect("c", version)
    assert connack.properties is not None
    assert connack.properties.authentication_method is None
    assert connack.properties.authentication_data is None
    await client.nothing_more()


@shows(v5="4.12.0-7 4.12.1-2")
@pytest.mark.parametrize("code", [ReasonCode.REAUTHENTICATE, ReasonCode.CONTINUE_AUTHENTICATION])
async def test_auth_closes_the_connection(desk: Desk, version: ProtocolVersion, code: ReasonCode) -> None:
    client = await desk.client("c", version)
    client.send(Auth(code, Properties(authentication_method="SCRAM")))
    await client.expect_closed(ReasonCode.PROTOCOL_ERROR)


@shows(v5="4.12.0-5")
async def test_connack_and_auth_repeat_the_method(desk: Desk, version: ProtocolVersion) -> None:
    method = Properties(authentication_method="gapless-token", authentication_data=b"")
    client = await desk.say(Connect(desk.id("c"), version, properties=method))
    connack = await client.expect(Connack)
    assert connack.properties is not None
    assert connack.properties.authentication_method == "gapless-token"
    client.send(Auth(ReasonCode.REAUTHENTICATE, method))
    auth = await client.expect(Auth)
    assert auth.reason_code is ReasonCode.SUCCESS
    assert auth.properties is not None
    assert auth.properties.authentication_method == "gapless-token"


def _expiry(seconds: int) -> Properties:
    return Properties(session_expiry_interval=seconds)
