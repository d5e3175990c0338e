"""From the server to a client: identifiers, acknowledgements, resending, flow control."""

from __future__ import annotations

import pytest

from gapless.mqtt import (
    Packet,
    ProtocolVersion,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
    Suback,
    Subscribe,
    SubscriptionRequest,
)
from tests.mqtt_conformance.desk import Desk, receive
from tests.mqtt_conformance.tags import V5, shows
from tests.mqtt_edge.support import Client, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def publish(desk: Desk, count: int, *, qos: int = 1, first: int = 0) -> None:
    """Publish the numbers from `first` as another client, each acknowledged before the next."""
    publisher = await desk.client("pub")
    for n in range(first, first + count):
        await publisher.publish(desk.topic("a"), b"%d" % n, qos=qos)
    await publisher.disconnect()


async def returning(desk: Desk, version: ProtocolVersion, *, qos: int = 2) -> Client:
    client = await desk.returning("c", version)
    await client.subscribe(desk.topic("a"), qos=qos)
    return client


@shows("2.3.1-4 4.3.1-1 4.3.2-1 4.3.3-1", "2.2.1-4 4.3.1-1 4.3.2-1 4.3.2-2 4.3.3-1 4.3.3-2")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_new_messages_have_identifiers_of_their_own_and_no_dup(
    desk: Desk, version: ProtocolVersion, qos: int
) -> None:
    client = await returning(desk, version)
    await publish(desk, 50, qos=qos)
    got = [await client.expect(Publish) for _ in range(50)]
    assert {(packet.qos, packet.dup) for packet in got} == {(qos, False)}
    identifiers = {packet.packet_id for packet in got}
    if qos == 0:
        assert identifiers == {0}
        return
    assert len(identifiers) == 50
    assert 0 not in identifiers
    # Those that stay unacknowledged are not given out again, however many others come and go.
    stuck = {packet.packet_id for packet in got[:2]}
    for packet in got[2:]:
        await client.acknowledge(packet)
    await publish(desk, 100, qos=qos)
    assert stuck.isdisjoint({packet.packet_id for packet in await receive(client, 100)})


@shows("4.3.2-1 4.3.3-1", "4.4.0-1")
async def test_nothing_is_sent_again_while_the_connection_stays(desk: Desk, version: ProtocolVersion) -> None:
    client = await returning(desk, version)
    await publish(desk, 1, qos=1)
    await publish(desk, 1, qos=2)
    await client.expect(Publish)
    two = await client.expect(Publish)
    await client.nothing_more()
    client.send(Pubrec(two.packet_id))
    assert await client.expect(Pubrel) == Pubrel(two.packet_id)
    await client.subscribe(desk.topic("a"), desk.topic("b"), qos=2)
    await client.nothing_more()


@shows(
    "4.4.0-1 3.3.1-1 4.6.0-1 4.3.2-1 4.3.3-1 2.3.1-6 4.1.0-1",
    "4.4.0-1 3.3.1-1 4.3.2-3 4.3.3-3 4.3.3-5 4.3.3-6 2.2.1-5 3.1.2-5",
)
async def test_what_is_unacknowledged_is_sent_again_in_order(desk: Desk, version: ProtocolVersion) -> None:
    client = await returning(desk, version)
    for n in range(6):
        await publish(desk, 1, qos=1 + n % 2, first=n)
    got = [await client.expect(Publish) for _ in range(6)]
    client.send(Puback(got[2].packet_id), Pubrec(got[3].packet_id))
    await client.expect(Pubrel)
    await desk.gone(client)

    for _ in range(2):
        client = await desk.returning("c", version)
        again: list[Packet | None] = [await client.next() for _ in range(5)]
        wanted: list[tuple[type, int, bytes | None]] = [
            (Publish, got[0].packet_id, b"0"),
            (Publish, got[1].packet_id, b"1"),
            (Pubrel, got[3].packet_id, None),
            (Publish, got[4].packet_id, b"4"),
            (Publish, got[5].packet_id, b"5"),
        ]
        for packet, (kind, packet_id, payload) in zip(again, wanted, strict=True):
            assert isinstance(packet, kind)
            assert isinstance(packet, Publish | Pubrel)
            assert packet.packet_id == packet_id
            if isinstance(packet, Publish):
                assert (packet.payload, packet.dup) == (payload, True)
        await client.nothing_more()
        await desk.gone(client)

    client = await desk.returning("c", version)
    for _ in range(5):
        packet = await client.next()
        if isinstance(packet, Publish) and packet.qos == 1:
            client.send(Puback(packet.packet_id))
        elif isinstance(packet, Publish):
            client.send(Pubrec(packet.packet_id))
        elif isinstance(packet, Pubrel):
            client.send(Pubcomp(packet.packet_id))
    for _ in range(2):
        client.send(Pubcomp((await client.expect(Pubrel)).packet_id))
    await client.nothing_more()
    await desk.gone(client)
    client = await desk.returning("c", version)
    await client.nothing_more()


@shows("4.6.0-4", "4.6.0-4")
@pytest.mark.parametrize("stays", [True, False])
async def test_pubrels_come_in_the_order_of_the_pubrecs(desk: Desk, version: ProtocolVersion, stays: bool) -> None:
    client = await desk.client("c", version, clean=not stays, expiry=60 if stays else None)
    await client.subscribe(desk.topic("a"), qos=2)
    await publish(desk, 10, qos=2)
    got = [(await client.expect(Publish)).packet_id for _ in range(10)]
    order = [got[n] for n in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)]
    client.send(*(Pubrec(packet_id) for packet_id in order[:6]))
    client.send(*(Pubrec(packet_id) for packet_id in order[6:]))
    assert [(await client.expect(Pubrel)).packet_id for _ in range(10)] == order


@shows("4.3.3-1", "4.3.3-4 3.6.2-1")
async def test_a_repeated_pubrec_gets_its_pubrel(desk: Desk, version: ProtocolVersion) -> None:
    client = await returning(desk, version)
    await publish(desk, 1, qos=2)
    got = await client.expect(Publish)
    for _ in range(2):
        client.send(Pubrec(got.packet_id))
        assert await client.expect(Pubrel) == Pubrel(got.packet_id)
    client.send(Pubcomp(got.packet_id))
    await client.nothing_more()


@pytest.mark.parametrize("version", [pytest.param(V5, id="5:MQTT-3.6.2-1")])
async def test_a_pubrec_of_nothing(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    client.send(Pubrec(99))
    assert await client.expect(Pubrel) == Pubrel(99, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)


@shows(v5="4.4.0-2 4.3.3-4")
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_refusal_ends_the_message(desk: Desk, version: ProtocolVersion, qos: int) -> None:
    client = await desk.returning("c", version, receive_maximum=1)
    await client.subscribe(desk.topic("a"), qos=qos)
    await publish(desk, 2, qos=qos)
    got = await client.expect(Publish)
    kind = Puback if qos == 1 else Pubrec
    client.send(kind(got.packet_id, ReasonCode.UNSPECIFIED_ERROR))
    assert (await client.receive()).payload == b"1"  # no PUBREL, and the quota is free again
    await client.nothing_more()
    await desk.gone(client)
    client = await desk.returning("c", version)
    await client.nothing_more()


@shows(v5="4.4.0-2 4.3.3-4")
async def test_a_pubrec_below_0x80_is_no_refusal(desk: Desk, version: ProtocolVersion) -> None:
    client = await returning(desk, version)
    await publish(desk, 1, qos=2)
    got = await client.expect(Publish)
    client.send(Pubrec(got.packet_id, ReasonCode.NO_MATCHING_SUBSCRIBERS))
    assert (await client.expect(Pubrel)).packet_id == got.packet_id


@shows(v5="3.3.4-9 3.3.4-10 4.9.0-1 4.9.0-2 4.9.0-3")
@pytest.mark.parametrize("qos", [1, 2])
async def test_the_clients_receive_maximum(desk: Desk, version: ProtocolVersion, qos: int) -> None:
    client = await desk.client("c", version, receive_maximum=3)
    await client.subscribe(desk.topic("a"), qos=2)
    await publish(desk, 10, qos=qos)
    got = [await client.expect(Publish) for _ in range(3)]
    await client.nothing_more()
    client.send(Subscribe(1000, [SubscriptionRequest(desk.topic("b"), 1)]))
    assert (await client.expect(Suback)).packet_id == 1000
    await client.publish(desk.topic("other"), qos=1)
    await client.publish(desk.topic("other"), qos=2)
    for n in range(3, 10):
        oldest = got.pop(0)
        if qos == 2:
            client.send(Pubrec(oldest.packet_id))
            await client.expect(Pubrel)
            await client.nothing_more()  # PUBREC alone frees nothing
            client.send(Pubcomp(oldest.packet_id))
        else:
            client.send(Puback(oldest.packet_id))
        got.append(await client.expect(Publish))
        assert got[-1].payload == b"%d" % n
        await client.nothing_more()


@shows(v5="3.3.4-9 4.9.0-1")
async def test_the_receive_maximum_of_the_next_connection(desk: Desk, version: ProtocolVersion) -> None:
    client = await returning(desk, version)
    await publish(desk, 5)
    for _ in range(5):
        await client.expect(Publish)
    await desk.gone(client)
    client = await desk.returning("c", version, receive_maximum=2)
    assert [(await client.receive(acknowledge=False)).payload for _ in range(2)] == [b"0", b"1"]
    await client.nothing_more()


@shows("3.1.2-5 4.5.0-1", "3.1.2-5 3.1.2-23 4.5.0-1")
async def test_1000_messages_wait_for_an_absent_client(desk: Desk, version: ProtocolVersion) -> None:
    client = await returning(desk, version, qos=1)
    await desk.gone(client)
    publisher = await desk.client("pub", version)
    publisher.send(*(Publish(desk.topic("a"), b"%d" % n, qos=1, packet_id=n) for n in range(1, 201)))
    for _ in range(200):
        await publisher.expect(Puback)
    client = await desk.returning("c", version)
    assert [packet.payload for packet in await receive(client, 200)] == [b"%d" % n for n in range(1, 201)]
    await client.nothing_more()


@shows(v5="4.3.3-7 4.4.0-1")
async def test_what_was_sent_does_not_expire(version: ProtocolVersion) -> None:
    from gapless.mqtt import Properties

    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "c", version, clean=False, expiry=3600)
        await client.subscribe("a", qos=2)
        publisher, _ = await Client.connect(node.port, "pub", version)
        for qos in (1, 2):
            await publisher.publish("a", qos=qos, properties=Properties(message_expiry_interval=10))
            await client.expect(Publish)
        await client.drop()
        node.clock.ahead += 100
        client, connack = await Client.connect(node.port, "c", version, clean=False, expiry=3600)
        assert connack.session_present
        assert [(packet.qos, packet.dup) for packet in await receive(client, 2)] == [(1, True), (2, True)]
