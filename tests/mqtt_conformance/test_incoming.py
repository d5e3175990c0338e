"""From a client to the server: acknowledgements, repetitions, order, what is refused."""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Sequence

import pytest

from gapless.errors import LogUnavailable
from gapless.event import Event
from gapless.eventlog import Answer, MemoryLog, StateWrite
from gapless.mqtt import (
    Connect,
    Packet,
    Pingresp,
    Properties,
    ProtocolVersion,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
)
from tests.mqtt_conformance.desk import Desk, read_to_end, receive
from tests.mqtt_conformance.tags import V5, V311, shows
from tests.mqtt_edge.support import Client, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def watching(desk: Desk) -> Client:
    watcher = await desk.client("watcher")
    await watcher.subscribe(desk.topic("#"), qos=2)
    return watcher


async def payloads(watcher: Client, count: int) -> list[bytes]:
    """What the watcher gets, which must be no more than that."""
    got = [packet.payload for packet in await receive(watcher, count)]
    await watcher.nothing_more()
    return got


# Acknowledgements


@shows("3.3.4-1 2.3.1-6 4.3.2-2 4.3.3-2", "3.3.4-1 2.2.1-5 4.3.2-4 4.3.3-8 4.3.3-11 3.4.2-1 3.5.2-1 3.7.2-1")
async def test_each_qos_has_its_answer(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version)
    client.send(Publish(desk.topic("a"), b"0"))
    await client.nothing_more()
    client.send(Publish(desk.topic("a"), b"1", qos=1, packet_id=65_535))
    assert await client.expect(Puback) == Puback(65_535)
    client.send(Publish(desk.topic("a"), b"2", qos=2, packet_id=65_534))
    assert await client.expect(Pubrec) == Pubrec(65_534)
    client.send(Pubrel(65_534))
    assert await client.expect(Pubcomp) == Pubcomp(65_534)
    assert await payloads(watcher, 3) == [b"0", b"1", b"2"]


@shows("4.6.0-2 4.6.0-3", "4.6.0-2 4.6.0-3")
async def test_acknowledgements_come_in_the_order_of_the_messages(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    order = [7, 3, 9, 1, 8, 2, 6, 4, 5, 20, 10, 11]
    for qos in (1, 2, 0):
        client.send(
            *(
                Publish(desk.topic("a"), b"%d" % number, qos=qos or 1 + place % 2, packet_id=number + 100 * qos)
                for place, number in enumerate(order)
            )
        )
        got = [await client.next() for _ in order]
        wanted: list[Packet] = [
            Puback(number + 100 * qos) if (qos or 1 + place % 2) == 1 else Pubrec(number + 100 * qos)
            for place, number in enumerate(order)
        ]
        assert got == wanted


@shows("4.6.0-5 4.6.0-6", "4.6.0-5 4.6.0-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_keep_their_order(desk: Desk, version: ProtocolVersion, qos: int) -> None:
    subscribers = [await desk.client(f"sub{n}", version) for n in range(3)]
    for subscriber in subscribers:
        await subscriber.subscribe(desk.topic("a"), qos=2)
    client = await desk.client("c", version)
    client.send(*(Publish(desk.topic("a"), b"%d" % n, qos=qos, packet_id=n if qos else 0) for n in range(1, 101)))
    for subscriber in subscribers:
        assert [packet.payload for packet in await receive(subscriber, 100)] == [b"%d" % n for n in range(1, 101)]


@shows("3.3.1-3", "3.3.1-3")
@pytest.mark.parametrize("qos", [1, 2])
async def test_dup_does_not_pass_on(desk: Desk, version: ProtocolVersion, qos: int) -> None:
    subscriber = await desk.client("sub", version)
    await subscriber.subscribe(desk.topic("a"), qos=2)
    client = await desk.client("c", version)
    await client.publish(desk.topic("a"), qos=qos, dup=True)
    assert not (await subscriber.receive()).dup


# Packet identifiers used again


@shows("4.3.2-2", "4.3.2-5")
async def test_after_puback_the_identifier_is_free(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version)
    for payload, dup in [(b"one", False), (b"one", False), (b"two", True), (b"three", False)]:
        await client.publish(desk.topic("a"), payload, packet_id=5, dup=dup)
    assert await payloads(watcher, 4) == [b"one", b"one", b"two", b"three"]


@shows("4.3.2-2", "4.3.2-5")
async def test_the_last_message_of_an_identifier_flagged_dup_is_known_again(
    desk: Desk, version: ProtocolVersion
) -> None:
    """Where the edge goes further than the standard: this is a resent message whose PUBACK was lost."""
    watcher = await watching(desk)
    client = await desk.returning("c", version)
    await client.publish(desk.topic("a"), b"one", packet_id=5)
    await client.publish(desk.topic("a"), b"one", packet_id=5, dup=True)
    await desk.gone(client)
    client = await desk.returning("c", version)
    await client.publish(desk.topic("a"), b"one", packet_id=5, dup=True)
    await client.publish(desk.topic("a"), b"two", packet_id=6, dup=True)
    assert await payloads(watcher, 2) == [b"one", b"two"]


@shows("4.3.3-2", "4.3.3-10 4.3.3-11 4.3.3-12")
async def test_qos_2_repetitions_are_not_delivered_again(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version)
    for payload, dup in [(b"one", False), (b"one", True), (b"other", False)]:
        client.send(Publish(desk.topic("a"), payload, qos=2, packet_id=5, dup=dup))
        assert await client.expect(Pubrec) == Pubrec(5)
    client.send(Pubrel(5))
    assert await client.expect(Pubcomp) == Pubcomp(5)
    assert await payloads(watcher, 1) == [b"one"]
    await client.publish(desk.topic("a"), b"two", qos=2, packet_id=5, dup=True)
    assert await payloads(watcher, 1) == [b"two"]


@shows("4.3.3-2", "4.3.3-10")
async def test_qos_2_repetitions_sent_together_get_one_event(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version)
    message = Publish(desk.topic("a"), b"one", qos=2, packet_id=5)
    client.send(message, message, message)
    assert await client.expect(Pubrec) == Pubrec(5)
    client.send(Pubrel(5))
    while not isinstance(answer := await client.next(), Pubcomp):
        assert answer == Pubrec(5)
    assert await payloads(watcher, 1) == [b"one"]


@shows("4.3.3-2 4.4.0-1", "4.3.3-10 4.1.0-1")
async def test_qos_2_repetitions_are_known_in_the_next_connection(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.returning("c", version)
    client.send(Publish(desk.topic("a"), b"one", qos=2, packet_id=5))
    await client.expect(Pubrec)
    await desk.gone(client)
    client = await desk.returning("c", version)
    await client.publish(desk.topic("a"), b"one", qos=2, packet_id=5, dup=True)
    assert await payloads(watcher, 1) == [b"one"]


@pytest.mark.parametrize("version", [pytest.param(V5, id="5:MQTT-3.7.2-1"), pytest.param(V311, id="3.1.1:4.3.3")])
async def test_a_pubrel_of_nothing_is_completed(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    client.send(Pubrel(77))
    code = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND if version is V5 else ReasonCode.SUCCESS
    assert await client.expect(Pubcomp) == Pubcomp(77, code)


# What is refused


@shows("3.3.5-2", "3.4.2-1 3.5.2-1 4.3.3-9")
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_publish_that_is_not_allowed(desk: Desk, version: ProtocolVersion, qos: int) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version)
    client.send(Publish("$SYS/x", b"no", qos=qos, packet_id=5))
    if version is V311:
        await client.expect_closed()
        return
    answer = await client.next()
    assert isinstance(answer, Puback if qos == 1 else Pubrec)
    assert (answer.packet_id, answer.reason_code) == (5, ReasonCode.NOT_AUTHORIZED)
    await client.publish(desk.topic("a"), b"new", qos=qos, packet_id=5)
    assert await payloads(watcher, 1) == [b"new"]


@shows(v5="3.4.2-1 3.5.2-1")
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_payload_that_is_not_what_it_says(desk: Desk, version: ProtocolVersion, qos: int) -> None:
    client = await desk.client("c", version)
    text = Properties(payload_format_indicator=1)
    answer = await client.publish(desk.topic("a"), b"\xff", qos=qos, properties=text)
    assert answer is not None
    assert answer.reason_code is ReasonCode.PAYLOAD_FORMAT_INVALID
    answer = await client.publish(desk.topic("a"), "grüße".encode(), qos=qos, properties=text)
    assert answer is not None
    assert answer.reason_code is ReasonCode.SUCCESS


class _FailingLog(MemoryLog):
    """A log that takes nothing once `failing` is set."""

    failing = False

    def append_one(self, event: Event, answer: Answer, *, state: Sequence[StateWrite] = ()) -> None:
        if not self.failing:
            super().append_one(event, answer, state=state)
        else:
            get_running_loop().call_soon(answer.refused, LogUnavailable("the disk is full"))


@shows("4.8.0-2", "3.4.2-1 3.5.2-1")
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_passing_fault_of_the_log(version: ProtocolVersion, qos: int) -> None:
    log = _FailingLog()
    async with running_edge(log=log) as node:
        bystander, _ = await Client.connect(node.port, "bystander", version)
        client, _ = await Client.connect(node.port, "c", version)
        log.failing = True
        client.send(Publish("a", b"x", qos=qos, packet_id=1))
        if version is V311:
            await client.expect_closed()
        else:
            answer = await client.next()
            assert isinstance(answer, Puback | Pubrec)
            assert answer.reason_code is ReasonCode.QUOTA_EXCEEDED
            log.failing = False
            await client.publish("a", b"x", qos=qos, packet_id=1)
        await bystander.nothing_more()


# Flow control, sizes and topic aliases of MQTT 5


@shows(v5="3.3.4-7 4.13.1-1 3.14.4-1")
async def test_more_than_the_receive_maximum(desk: Desk, version: ProtocolVersion) -> None:
    client, connack = await desk.connect("c", version)
    assert connack.properties is not None
    limit = connack.properties.receive_maximum
    assert limit is not None
    for n in range(1, limit + 1):
        client.send(Publish(desk.topic("a"), b"x", qos=2, packet_id=n))
    for _ in range(limit):
        await client.expect(Pubrec)
    client.send(Pubrel(1))
    await client.expect(Pubcomp)
    client.send(Publish(desk.topic("a"), b"x", qos=2, packet_id=limit + 1))
    await client.expect(Pubrec)
    client.send(Publish(desk.topic("a"), b"x", qos=1, packet_id=limit + 2))
    await client.expect_closed(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)


@shows(v5="3.2.2-15")
async def test_a_packet_over_the_servers_maximum(desk: Desk, version: ProtocolVersion) -> None:
    client, connack = await desk.connect("c", version)
    assert connack.properties is not None
    assert connack.properties.maximum_packet_size is not None
    client.send(Publish(desk.topic("a"), bytes(connack.properties.maximum_packet_size)))
    await client.expect_closed(ReasonCode.PACKET_TOO_LARGE)


@shows(v5="3.3.2-12")
async def test_every_topic_alias_up_to_the_maximum(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client, connack = await desk.connect("c", version)
    assert connack.properties is not None
    limit = connack.properties.topic_alias_maximum
    assert limit is not None
    assert limit > 1
    for alias in range(1, limit + 1):
        client.send(Publish(desk.topic(f"{alias}"), b"set", properties=Properties(topic_alias=alias)))
    for alias in range(limit, 0, -1):
        client.send(Publish("", b"used", properties=Properties(topic_alias=alias)))
    client.send(Publish(desk.topic("other"), b"changed", properties=Properties(topic_alias=1)))
    client.send(Publish("", b"used", properties=Properties(topic_alias=1)))
    topics = [packet.topic for packet in await receive(watcher, 2 * limit + 2)]
    wanted = [*range(1, limit + 1), *range(limit, 0, -1), "other", "other"]
    assert topics == [desk.topic(f"{name}") for name in wanted]


@shows(v5="3.3.2-9 3.2.2-17")
async def test_a_topic_alias_over_the_maximum(desk: Desk, version: ProtocolVersion) -> None:
    client, connack = await desk.connect("c", version)
    assert connack.properties is not None
    limit = connack.properties.topic_alias_maximum
    assert limit is not None
    client.send(Publish(desk.topic("a"), b"x", properties=Properties(topic_alias=limit + 1)))
    await client.expect_closed(ReasonCode.TOPIC_ALIAS_INVALID)


@shows(v5="3.3.2-7")
async def test_topic_aliases_end_with_their_connection(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.returning("c", version)
    client.send(Publish(desk.topic("a"), b"x", qos=1, packet_id=1, properties=Properties(topic_alias=1)))
    await client.expect(Puback)
    await desk.gone(client)
    client = await desk.returning("c", version)
    client.send(Publish("", b"x", qos=1, packet_id=2, properties=Properties(topic_alias=1)))
    await client.expect_closed(ReasonCode.PROTOCOL_ERROR)


# After the end


@shows("3.14.4-2", "3.14.4-1 3.14.4-2")
async def test_nothing_after_a_disconnect_is_processed(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version)
    from gapless.mqtt import Disconnect, Pingreq

    client.send(Publish(desk.topic("a"), b"before"), Disconnect(), Publish(desk.topic("a"), b"after"), Pingreq())
    assert not any(isinstance(packet, Pingresp) for packet in await read_to_end(client))
    assert await payloads(watcher, 1) == [b"before"]


@shows("3.1.4-4", "3.1.4-5 3.2.0-1")
async def test_packets_may_follow_connect_at_once(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await Client.open(desk.port, version)
    client.send(Connect(desk.id("c"), version), Publish(desk.topic("a"), b"1", qos=1, packet_id=1))
    await client.next()
    assert await client.expect(Puback) == Puback(1)
    assert await payloads(watcher, 1) == [b"1"]
