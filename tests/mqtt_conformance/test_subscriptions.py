"""SUBSCRIBE and UNSUBSCRIBE, overlapping and replaced subscriptions, No Local."""

from __future__ import annotations

import pytest

from gapless.mqtt import (
    Properties,
    ProtocolVersion,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from tests.mqtt_conformance.desk import Desk, receive
from tests.mqtt_conformance.tags import V5, shows

pytestmark = pytest.mark.asyncio(loop_scope="module")


@shows("3.8.4-1 3.8.4-2 3.8.4-4 3.8.4-5 3.9.3-1 2.3.1-7", "3.8.4-1 3.8.4-2 3.8.4-5 3.8.4-6 3.8.4-7 3.9.3-1 2.2.1-6")
async def test_suback(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    requests = [SubscriptionRequest(desk.topic(name), qos) for name, qos in [("a", 2), ("b", 0), ("c", 1), ("d", 2)]]
    client.send(Subscribe(4711, requests))
    suback = await client.expect(Suback)
    assert suback.packet_id == 4711
    assert suback.reason_codes == [2, 0, 1, 2]
    publisher = await desk.client("pub", version)
    for name in "abcd":
        await publisher.publish(desk.topic(name), qos=2)
    assert [packet.qos for packet in await receive(client, 4)] == [2, 0, 1, 2]
    await client.nothing_more()


@shows("3.8.4-5 3.9.3-2", "3.8.4-6 3.8.4-7 3.9.3-2")
async def test_one_of_several_filters_fails(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    deep = "/".join("x" * 100)
    suback = await client.subscribe(desk.topic("a"), deep, desk.topic("b"), qos=1)
    failure = ReasonCode.TOPIC_FILTER_INVALID if version is V5 else ReasonCode.UNSPECIFIED_ERROR
    assert suback.reason_codes == [1, failure, 1]
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("b"))
    await client.receive()


@shows("3.8.4-6 3.3.2-3", "3.8.4-8 3.3.2-3")
@pytest.mark.parametrize("granted", [0, 1, 2])
async def test_the_lower_qos_counts(desk: Desk, version: ProtocolVersion, granted: int) -> None:
    subscriber = await desk.client("sub", version)
    await subscriber.subscribe(desk.topic("+/x"), qos=granted)
    publisher = await desk.client("pub", version)
    for qos in (0, 1, 2):
        await publisher.publish(desk.topic(f"{qos}/x"), qos=qos)
        await publisher.publish(desk.topic(f"{qos}/y"), qos=qos)
    got = await receive(subscriber, 3)
    assert [(packet.topic, packet.qos) for packet in got] == [
        (desk.topic(f"{qos}/x"), min(qos, granted)) for qos in (0, 1, 2)
    ]
    await subscriber.nothing_more()


@shows("3.8.4-3", "3.8.4-3 3.8.4-4")
async def test_an_equal_filter_replaces_and_loses_nothing(desk: Desk, version: ProtocolVersion) -> None:
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("r/x"), b"retained", retain=True)
    subscriber = await desk.client("sub", version)
    await subscriber.subscribe(desk.topic("r/+"), qos=0)
    assert (await subscriber.receive()).qos == 0
    await subscriber.subscribe(desk.topic("r/+"), qos=1)
    again = await subscriber.receive()
    assert (again.payload, again.qos, again.retain) == (b"retained", 1, True)
    await publisher.publish(desk.topic("r/x"), b"once")
    assert (await subscriber.receive()).qos == 1
    await subscriber.nothing_more()

    await subscriber.subscribe(desk.topic("s"), qos=1)
    publisher.send(*(Publish(desk.topic("s"), b"%d" % n, qos=1, packet_id=n) for n in range(1, 101)))
    got: list[bytes] = []
    subacks = 0
    for n in range(10):
        subscriber.send(Subscribe(100 + n, [SubscriptionRequest(desk.topic("s"), 1 + n % 2)]))
    while len(got) < 100 or subacks < 10:
        packet = await subscriber.next()
        if isinstance(packet, Suback):
            subacks += 1
        else:
            assert isinstance(packet, Publish)
            got.append(packet.payload)
            await subscriber.acknowledge(packet)
    assert got == [b"%d" % n for n in range(1, 101)]
    await subscriber.nothing_more()


@shows("3.3.5-1", "3.3.4-2 3.3.4-3 3.3.4-4")
async def test_overlapping_subscriptions_get_one_copy_at_the_highest_qos(desk: Desk, version: ProtocolVersion) -> None:
    subscriber = await desk.client("sub", version)
    for identifier, (name, qos) in enumerate([("a/#", 0), ("a/+", 2), ("a/b", 1), ("+/b", 0)], start=1):
        await subscriber.subscribe(desk.topic(name), qos=qos, identifier=identifier if version is V5 else None)
    await (await desk.client("pub")).publish(desk.topic("a/b"), qos=2)
    got = await subscriber.receive()
    assert got.qos == 2
    if version is V5:
        assert got.properties is not None
        assert sorted(got.properties.subscription_identifiers) == [1, 2, 3, 4]
    await subscriber.nothing_more()


@shows(v5="3.3.4-3")
async def test_a_replaced_subscription_has_the_new_identifier(desk: Desk, version: ProtocolVersion) -> None:
    subscriber = await desk.client("sub", version)
    publisher = await desk.client("pub", version)
    for identifier, expected in [(268_435_455, [268_435_455]), (7, [7]), (None, [])]:
        await subscriber.subscribe(desk.topic("a"), identifier=identifier)
        await publisher.publish(desk.topic("a"))
        got = (await subscriber.receive()).properties
        assert got is not None
        assert got.subscription_identifiers == expected


@shows(v5="3.8.3-3")
async def test_no_local(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.returning("c", version)
    await client.subscribe(SubscriptionRequest(desk.topic("a"), 1, no_local=True))
    other = await desk.client("other", version)
    await client.publish(desk.topic("a"), b"own")
    await other.publish(desk.topic("a"), b"other")
    assert (await client.receive()).payload == b"other"
    await client.publish(desk.topic("a"), b"own, before the connection broke")
    await desk.gone(client)
    client = await desk.returning("c", version)
    await client.nothing_more()


@pytest.mark.parametrize("version", [pytest.param(V5, id="5:3.8.3.1")])
async def test_without_no_local_a_publisher_hears_itself(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    await client.subscribe(desk.topic("a"), qos=0)
    await client.publish(desk.topic("a"), b"own", qos=0)
    assert (await client.receive()).payload == b"own"


@shows("3.10.4-1 3.10.4-2 3.10.4-4 2.3.1-7", "3.10.4-1 3.10.4-2 3.10.4-4 3.10.4-5 2.2.1-6")
async def test_unsubscribe_removes_an_equal_filter_only(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    await client.subscribe(desk.topic("a/+"), desk.topic("B"), qos=1)
    for name in ("a/b", "a/#", "b"):
        await client.unsubscribe(desk.topic(name))
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("a/b"))
    await client.receive()
    client.send(Unsubscribe(4711, [desk.topic("a/+")]))
    assert (await client.expect(Unsuback)).packet_id == 4711
    await publisher.publish(desk.topic("a/b"))
    await publisher.publish(desk.topic("B"))
    assert (await client.receive()).topic == desk.topic("B")
    await client.nothing_more()


@shows("3.10.4-5 3.10.4-6", "3.10.4-5 3.10.4-6 3.11.3-1 3.11.3-2")
async def test_unsuback_for_several_filters_also_for_none(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    unsuback = await client.unsubscribe(desk.topic("never"))
    if version is V5:
        assert unsuback.reason_codes == [ReasonCode.NO_SUBSCRIPTION_EXISTED]
    await client.subscribe(desk.topic("a"), desk.topic("c"))
    unsuback = await client.unsubscribe(desk.topic("a"), desk.topic("b"), desk.topic("c"))
    if version is V5:
        assert unsuback.reason_codes == [ReasonCode.SUCCESS, ReasonCode.NO_SUBSCRIPTION_EXISTED, ReasonCode.SUCCESS]
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("a"))
    await publisher.publish(desk.topic("c"))
    await client.nothing_more()


@shows("3.10.4-3", "3.10.4-3")
async def test_what_was_begun_is_completed_after_unsubscribe(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.returning("c", version)
    await client.subscribe(desk.topic("a"), qos=2)
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("a"), b"2", qos=2)
    await publisher.publish(desk.topic("a"), b"1", qos=1)
    two = await client.receive(acknowledge=False)
    one = await client.receive(acknowledge=False)
    await client.unsubscribe(desk.topic("a"))
    client.send(Pubrec(two.packet_id))
    assert (await client.expect(Pubrel)).packet_id == two.packet_id
    await desk.gone(client)

    client = await desk.returning("c", version)
    assert (await client.expect(Pubrel)).packet_id == two.packet_id
    client.send(Pubcomp(two.packet_id))
    again = await client.receive()
    assert (again.payload, again.packet_id, again.dup) == (b"1", one.packet_id, True)
    await client.nothing_more()


@shows("4.7.3-4", "4.7.3-4")
async def test_matching_takes_characters_as_they_are(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    names = ["caf\u00e9", "cafe\u0301", "A", "a", " a", "a/", "a//b"]
    publisher = await desk.client("pub", version)
    for name in names:
        await client.subscribe(desk.topic(name))
        for other in names:
            await publisher.publish(desk.topic(other), other.encode())
        got = await client.receive()
        assert (got.topic, got.payload) == (desk.topic(name), name.encode())
        await client.nothing_more()
        await client.unsubscribe(desk.topic(name))


@shows(v5="3.1.2-29")
async def test_without_problem_information_only_codes_are_sent(desk: Desk, version: ProtocolVersion) -> None:
    from gapless.mqtt import Connack, Connect, Puback

    for explain in (False, True):
        client = await desk.say(
            Connect(desk.id("c"), version, properties=Properties(request_problem_information=explain))
        )
        await client.expect(Connack)
        wrong = await client.subscribe(desk.topic("a"), user_properties=[("gapless-start", "no position")])
        other_epoch = await client.subscribe(desk.topic("a"), user_properties=[("gapless-start", "zzz:3")])
        plain = await client.subscribe(desk.topic("a"))
        puback = await client.publish("$SYS/x")
        assert isinstance(puback, Puback)
        assert puback.reason_code.is_failure
        told = [packet.properties is not None for packet in (wrong, other_epoch, plain, puback)]
        assert told == [explain] * 4
