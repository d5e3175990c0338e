"""Shared subscriptions (MQTT 5 §4.8.2)."""

from __future__ import annotations

import pytest

from gapless.mqtt import ProtocolVersion, Puback, Publish, Pubrec, Pubrel, ReasonCode
from tests.mqtt_conformance.desk import Desk, receive
from tests.mqtt_conformance.tags import shows
from tests.mqtt_edge.support import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def member(desk: Desk, name: str, *, qos: int = 2) -> Client:
    """A client with a session that stays, in the share group of the test."""
    client = await desk.returning(name)
    await client.subscribe(f"$share/g/{desk.topic('a')}", qos=qos)
    return client


@shows(v5="4.8.2-1 4.8.2-2")
async def test_each_message_goes_to_one_member_of_each_group(desk: Desk, version: ProtocolVersion) -> None:
    members = [await member(desk, f"m{n}", qos=1) for n in range(2)]
    alone = await desk.client("alone", version)
    await alone.subscribe(f"$share/other/{desk.topic('#')}")
    plain = await desk.client("plain", version)
    await plain.subscribe(desk.topic("a"))
    publisher = await desk.client("pub", version)
    for n in range(10):
        await publisher.publish(desk.topic("a"), b"%d" % n)
    everything = [b"%d" % n for n in range(10)]
    assert [packet.payload for packet in await receive(alone, 10)] == everything
    assert [packet.payload for packet in await receive(plain, 10)] == everything
    shared = []
    for client in members:
        shared += [packet.payload for packet in await receive(client, 5)]
        await client.nothing_more()
    assert sorted(shared) == everything


@shows(v5="4.8.2-3")
async def test_each_member_gets_its_granted_qos(desk: Desk, version: ProtocolVersion) -> None:
    members = {qos: await member(desk, f"m{qos}", qos=qos) for qos in (0, 1, 2)}
    publisher = await desk.client("pub", version)
    for _ in range(6):
        await publisher.publish(desk.topic("a"), qos=2)
    for qos, client in members.items():
        assert [packet.qos for packet in await receive(client, 2)] == [qos, qos]


@shows(v5="4.8.2-4")
async def test_qos_2_is_completed_with_the_same_member(desk: Desk, version: ProtocolVersion) -> None:
    first = await member(desk, "first")
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("a"), b"1", qos=2)
    await publisher.publish(desk.topic("a"), b"2", qos=2)
    one, two = await first.expect(Publish), await first.expect(Publish)
    first.send(Pubrec(two.packet_id))
    await first.expect(Pubrel)
    second = await member(desk, "second")
    await desk.gone(first, "first")
    await second.nothing_more()
    first = await desk.returning("first")
    again = await first.expect(Publish)
    assert (again.packet_id, again.payload, again.dup) == (one.packet_id, b"1", True)
    assert (await first.expect(Pubrel)).packet_id == two.packet_id
    await second.nothing_more()


@shows(v5="4.8.2-5")
async def test_qos_2_goes_to_nobody_else_when_the_session_ends(desk: Desk, version: ProtocolVersion) -> None:
    first = await member(desk, "first")
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("a"), b"1", qos=2)
    await first.expect(Publish)
    second = await member(desk, "second")
    await desk.gone(first, "first")
    await desk.client("first", clean=True)
    await second.nothing_more()
    await publisher.publish(desk.topic("a"), b"2", qos=2)
    assert (await second.receive()).payload == b"2"


@pytest.mark.parametrize("version", [pytest.param(ProtocolVersion.V5, id="5:4.8.2")])
async def test_qos_1_goes_to_another_when_the_session_ends(desk: Desk, version: ProtocolVersion) -> None:
    first = await member(desk, "first", qos=1)
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("a"), b"1")
    await first.expect(Publish)
    second = await member(desk, "second", qos=1)
    await desk.gone(first, "first")
    await desk.client("first", clean=True)
    assert (await second.receive()).payload == b"1"


@shows(v5="4.8.2-6 4.4.0-2")
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_a_member_refuses_goes_to_nobody_else(desk: Desk, version: ProtocolVersion, qos: int) -> None:
    members = [await member(desk, f"m{n}", qos=qos) for n in range(2)]
    publisher = await desk.client("pub", version)
    for n in range(2):
        await publisher.publish(desk.topic("a"), b"%d" % n, qos=qos)
    kind = Puback if qos == 1 else Pubrec
    got = [await client.expect(Publish) for client in members]
    members[0].send(kind(got[0].packet_id, ReasonCode.NOT_AUTHORIZED))
    await members[0].nothing_more()
    await members[1].acknowledge(got[1])
    await desk.gone(members[0], "m0")
    await desk.client("m0", clean=True)
    await members[1].nothing_more()
