"""What MQTT 5 adds to a message: properties passed on, expiry, sizes, aliases."""

from __future__ import annotations

import msgspec
import pytest

from gapless.mqtt import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Properties,
    ProtocolVersion,
    Publish,
    ReasonCode,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    encode,
)
from tests.mqtt_conformance.desk import Desk, read_to_end, receive
from tests.mqtt_conformance.tags import V5, V311, shows
from tests.mqtt_edge.support import Client, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")


@shows(v5="3.3.2-4 3.3.2-15 3.3.2-16 3.3.2-17 3.3.2-18 3.3.2-20")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_properties_pass_unaltered(desk: Desk, version: ProtocolVersion, qos: int) -> None:
    subscribers = [await desk.client(f"sub{n}", version) for n in range(2)]
    for subscriber in subscribers:
        await subscriber.subscribe(desk.topic("a"), qos=2)
    late = await desk.returning("late", version)
    await late.subscribe(desk.topic("a"), qos=2)
    await desk.gone(late, "late")
    publisher = await desk.client("pub", version)
    pairs = [("z", "1"), ("a", "2"), ("z", "1"), ("", "")]
    for indicator, payload in [(1, "grüße".encode()), (0, b"\xff"), (None, b"\xff")]:
        sent = Properties(
            payload_format_indicator=indicator,
            content_type="text/x",
            response_topic="ans/wer",
            correlation_data=b"\x00\xff",
            user_properties=pairs,
        )
        await publisher.publish(desk.topic("a"), payload, qos=qos, properties=sent)
    if qos:
        subscribers.append(await desk.returning("late", version))
    for subscriber in subscribers:
        for packet, indicator in zip(await receive(subscriber, 3), (1, 0, None), strict=True):
            got = packet.properties
            assert got is not None
            assert got.user_properties[: len(pairs)] == pairs
            assert got.payload_format_indicator == indicator
            assert (got.content_type, got.response_topic, got.correlation_data) == ("text/x", "ans/wer", b"\x00\xff")
            assert got.topic_alias is None
            assert got.message_expiry_interval is None


@shows(v5="3.1.2-26 3.1.2-27 3.3.2-11")
@pytest.mark.parametrize("maximum", [None, 0, 10])
async def test_the_server_sends_no_topic_aliases(desk: Desk, version: ProtocolVersion, maximum: int | None) -> None:
    client = await desk.say(Connect(desk.id("c"), version, properties=Properties(topic_alias_maximum=maximum)))
    await client.expect(Connack)
    await client.subscribe(desk.topic("#"), qos=2)
    publisher = await desk.client("pub", version)
    for qos in (0, 1, 2):
        await publisher.publish(desk.topic("a"), qos=qos, properties=Properties(topic_alias=1))
    for packet in await receive(client, 3):
        assert packet.topic == desk.topic("a")
        assert packet.properties is not None
        assert packet.properties.topic_alias is None


# Message expiry


@shows(v5="3.3.2-5 3.3.2-6")
async def test_a_message_waits_no_longer_than_its_expiry(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "c", version, clean=False, expiry=3600)
        await client.subscribe("a")
        await client.drop()
        publisher, _ = await Client.connect(node.port, "pub", version)
        for seconds in (10, 1000, None):
            properties = Properties(message_expiry_interval=seconds)
            await publisher.publish("a", str(seconds).encode(), properties=properties)
        await publisher.publish("r", b"old", retain=True, properties=Properties(message_expiry_interval=10))
        node.clock.ahead += 100
        client, _ = await Client.connect(node.port, "c", version, clean=False, expiry=3600)
        first, second = await receive(client, 2)
        assert (first.payload, second.payload) == (b"1000", b"None")
        assert first.properties is not None
        assert second.properties is not None
        assert first.properties.message_expiry_interval is not None
        assert 800 < first.properties.message_expiry_interval <= 900
        assert second.properties.message_expiry_interval is None
        await client.subscribe("r")
        await client.nothing_more()


@shows(v5="3.3.2-6")
async def test_a_message_that_does_not_wait_keeps_its_expiry(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    await client.subscribe(desk.topic("a"))
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("a"), properties=Properties(message_expiry_interval=4_294_967_295))
    got = (await client.receive()).properties
    assert got is not None
    assert got.message_expiry_interval is not None
    assert 4_294_967_290 <= got.message_expiry_interval <= 4_294_967_295


@shows(v5="4.3.3-13")
async def test_qos_2_is_completed_also_where_the_message_has_expired(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        publisher, _ = await Client.connect(node.port, "pub", version)
        subscriber, _ = await Client.connect(node.port, "sub", version)
        await subscriber.subscribe("a", qos=2)
        await publisher.publish("a", qos=2, properties=Properties(message_expiry_interval=0))
        publisher.send(Publish("a", b"x", qos=2, packet_id=9, properties=Properties(message_expiry_interval=1)))
        node.clock.ahead += 100
        await publisher.publish("b", qos=2, packet_id=9)


# Maximum packet size


@shows(v5="3.1.2-24 3.1.2-25")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_message_too_large_counts_as_sent(desk: Desk, version: ProtocolVersion, qos: int) -> None:
    client = await desk.returning("c", version, maximum_packet_size=300, receive_maximum=1)
    await client.subscribe(desk.topic("a"), qos=2)
    publisher = await desk.client("pub", version)
    for payload in (b"1", bytes(300), b"2", bytes(250), b"3"):
        await publisher.publish(desk.topic("a"), payload, qos=qos)
    got = []
    for _ in range(3):
        packet = await client.receive()
        assert len(encode(packet, version)) <= 300
        got.append(packet.payload)
    assert got == [b"1", b"2", b"3"]
    await client.nothing_more()
    await publisher.publish(desk.topic("a"), bytes(300), qos=1, retain=True)
    await client.subscribe(SubscriptionRequest(desk.topic("a"), 1))
    await client.nothing_more()
    await desk.gone(client)
    client = await desk.returning("c", version, maximum_packet_size=300)
    await client.nothing_more()


@shows(v5="3.1.2-24")
async def test_a_message_of_just_the_maximum_is_sent(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    await client.subscribe(desk.topic("a"))
    publisher = await desk.client("pub", version)
    # The id has one length always, the time too; the position grows with the log, by a digit at most.
    await publisher.publish(desk.topic("a"), b"x" * 60)
    size = len(encode(await client.receive(), version))
    exact = await desk.client("exact", version, maximum_packet_size=size + 1)
    await exact.subscribe(desk.topic("a"))
    small = await desk.client("small", version, maximum_packet_size=size - 1)
    await small.subscribe(desk.topic("a"))
    await publisher.publish(desk.topic("a"), b"x" * 60)
    assert len(encode(await exact.receive(), version)) in (size, size + 1)
    await small.nothing_more()


@shows(v5="3.1.2-24")
async def test_connack_leaves_out_what_may_be_left_out_or_is_not_sent(desk: Desk, version: ProtocolVersion) -> None:
    _, whole = await desk.connect("whole", version)
    assert whole.properties is not None
    assert whole.properties.topic_alias_maximum
    size = len(encode(whole, version))
    _, fits = await desk.connect("fits", version, maximum_packet_size=size)
    assert fits == whole
    _, less = await desk.connect("less", version, maximum_packet_size=size - 1)
    assert less.properties == msgspec.structs.replace(whole.properties, topic_alias_maximum=None)
    size = len(encode(less, version))
    _, least = await desk.connect("least", version, maximum_packet_size=size)
    assert least == less
    for limit, answers in ((size - 1, [Connack(ReasonCode.PACKET_TOO_LARGE)]), (4, [])):
        refused = await desk.say(
            Connect(desk.id("no"), version, properties=Properties(maximum_packet_size=limit, session_expiry_interval=9))
        )
        assert await read_to_end(refused) == answers
    assert desk.id("no") not in desk.edge.connected


@shows(v5="3.1.2-24")
async def test_a_client_that_cannot_take_the_reason_codes_is_disconnected(desk: Desk, version: ProtocolVersion) -> None:
    filters = [desk.topic(str(n)) for n in range(50)]
    for packet in (Subscribe(1, [SubscriptionRequest(each, 0) for each in filters]), Unsubscribe(1, filters)):
        client = await desk.client("c", version, maximum_packet_size=LIMIT)
        client.send(packet)
        assert await read_to_end(client) == [Disconnect(ReasonCode.PACKET_TOO_LARGE)]


LIMIT = 40


@shows(
    v5="3.1.2-24 3.2.2-19 3.2.2-20 3.4.2-2 3.4.2-3 3.5.2-2 3.5.2-3 3.6.2-2 3.6.2-3 3.7.2-2 3.7.2-3 3.9.2-1 3.9.2-2"
    " 3.11.2-1 3.11.2-2 3.14.2-3 3.14.2-4"
)
async def test_no_answer_is_larger_than_the_client_takes(desk: Desk, version: ProtocolVersion) -> None:
    client, connack = await desk.connect("c", version, maximum_packet_size=LIMIT, receive_maximum=1)
    answers: list[Packet | None] = [connack]
    answers.append(await client.subscribe(desk.topic("a"), user_properties=[("gapless-start", "no position")]))
    answers.append(await client.subscribe(desk.topic("a"), user_properties=[("gapless-start", "other:12345")]))
    for qos in (1, 2):
        answers.append(await client.publish("$SYS/" + "x" * 60, qos=qos))
        answers.append(await client.publish(desk.topic("a"), bytes(100), qos=qos))
    client.send(Unsubscribe(9, [desk.topic("a"), desk.topic("b")]))
    answers.append(await client.expect(Unsuback))
    client.send_bytes(b"\x36\x00")
    answers += await read_to_end(client)
    refused = await desk.say(Connect("x" * 2000, version, properties=Properties(maximum_packet_size=10)))
    (answer,) = await read_to_end(refused)
    assert len(encode(answer, version)) <= 10
    assert {type(packet).__name__ for packet in answers if packet is not None} == {
        "Connack",
        "Suback",
        "Puback",
        "Pubrec",
        "Unsuback",
        "Disconnect",
    }
    assert [packet for packet in answers if packet is not None and len(encode(packet, version)) > LIMIT] == []


@shows(v5="3.14.2-2 4.13.2-1")
async def test_the_servers_disconnect_has_no_session_expiry(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.returning("c", version)
    await desk.returning("c", version)
    (packet,) = await read_to_end(client)
    assert packet is not None
    assert getattr(packet, "reason_code", None) is ReasonCode.SESSION_TAKEN_OVER
    properties = getattr(packet, "properties", None)
    assert properties is None or properties.session_expiry_interval is None


@pytest.mark.parametrize(
    "version", [pytest.param(V311, id="3.1.1:MQTT-3.3.2-3"), pytest.param(V5, id="5:MQTT-3.3.2-3")]
)
async def test_a_publisher_of_the_other_version_is_heard(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    await client.subscribe(desk.topic("+"), qos=1)
    publisher = await desk.client("pub", V311 if version is V5 else V5)
    await publisher.publish(desk.topic("a"), b"\x00\xff")
    got = await client.receive()
    assert (got.topic, got.payload) == (desk.topic("a"), b"\x00\xff")
