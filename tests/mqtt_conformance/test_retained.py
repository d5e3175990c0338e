"""Retained messages: stored, sent at SUBSCRIBE, replaced, removed."""

from __future__ import annotations

import pytest

from gapless.mqtt import ProtocolVersion, SubscriptionRequest
from tests.mqtt_conformance.desk import Desk, receive
from tests.mqtt_conformance.tags import V5, V311, shows

pytestmark = pytest.mark.asyncio(loop_scope="module")


@shows("3.3.1-5 3.3.1-6 3.3.1-8 3.1.2-7", "3.3.1-5 3.3.1-9")
async def test_a_new_subscription_gets_the_last_of_each_topic(desk: Desk, version: ProtocolVersion) -> None:
    publisher = await desk.client("pub", version)
    for topic, payload, qos in [("a", b"old", 2), ("a", b"1", 1), ("b", b"2", 2), ("c/d", b"3", 0)]:
        await publisher.publish(desk.topic(topic), payload, qos=qos, retain=True)
    await publisher.disconnect()

    subscriber = await desk.client("sub", version)
    await subscriber.subscribe(desk.topic("+"), desk.topic("c/#"), qos=2)
    got = {(packet.topic, packet.payload, packet.qos, packet.retain) for packet in await receive(subscriber, 3)}
    assert got == {
        (desk.topic("a"), b"1", 1, True),
        (desk.topic("b"), b"2", 2, True),
        (desk.topic("c/d"), b"3", 0, True),
    }
    await subscriber.nothing_more()


@shows("3.3.1-7", "3.3.1-5")
async def test_qos_0_replaces_too(desk: Desk, version: ProtocolVersion) -> None:
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("a"), b"old", qos=1, retain=True)
    await publisher.publish(desk.topic("a"), b"new", qos=0, retain=True)
    await publisher.nothing_more()
    subscriber = await desk.client("sub", version)
    await subscriber.subscribe(desk.topic("a"), qos=1)
    got = await subscriber.receive()
    assert (got.payload, got.qos) == (b"new", 0)
    await subscriber.nothing_more()


@shows("3.3.1-9", "3.3.1-12")
@pytest.mark.parametrize("qos", [0, 1])
async def test_an_existing_subscription_gets_it_without_the_flag(
    desk: Desk, version: ProtocolVersion, qos: int
) -> None:
    subscriber = await desk.client("sub", version)
    await subscriber.subscribe(desk.topic("a"))
    await (await desk.client("pub", version)).publish(desk.topic("a"), qos=qos, retain=True)
    assert not (await subscriber.receive()).retain


@shows(v5="3.3.1-13")
async def test_retain_as_published(desk: Desk, version: ProtocolVersion) -> None:
    subscriber = await desk.client("sub", version)
    await subscriber.subscribe(SubscriptionRequest(desk.topic("a"), 1, retain_as_published=True))
    publisher = await desk.client("pub", version)
    for retain in (True, False, True):
        await publisher.publish(desk.topic("a"), retain=retain)
        assert (await subscriber.receive()).retain is retain


@shows("3.3.1-10 3.3.1-11", "3.3.1-6 3.3.1-7")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_an_empty_message_is_delivered_and_removes(desk: Desk, version: ProtocolVersion, qos: int) -> None:
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("a"), b"1", retain=True)
    early = await desk.client("early", version)
    await early.subscribe(desk.topic("a"), qos=2)
    assert (await early.receive()).retain
    await publisher.publish(desk.topic("a"), b"", qos=qos, retain=True)
    got = await early.receive()
    assert (got.payload, got.retain, got.qos) == (b"", False, qos)
    late = await desk.client("late", version)
    await late.subscribe(desk.topic("a"))
    await late.nothing_more()


@shows("3.3.1-12", "3.3.1-8")
async def test_without_the_flag_nothing_is_stored_or_removed(desk: Desk, version: ProtocolVersion) -> None:
    publisher = await desk.client("pub", version)
    await publisher.publish(desk.topic("a"), b"kept", retain=True)
    for payload in (b"other", b""):
        await publisher.publish(desk.topic("a"), payload)
        await publisher.publish(desk.topic("b"), payload)
    subscriber = await desk.client("sub", version)
    await subscriber.subscribe(desk.topic("#"))
    got = await subscriber.receive()
    assert (got.topic, got.payload) == (desk.topic("a"), b"kept")
    await subscriber.nothing_more()


@shows(v5="3.3.1-9 3.3.1-10 3.3.1-11 3.8.4-4")
@pytest.mark.parametrize(("handling", "sent"), [(0, [True, True]), (1, [True, False]), (2, [False, False])])
async def test_retain_handling(desk: Desk, version: ProtocolVersion, handling: int, sent: list[bool]) -> None:
    await (await desk.client("pub")).publish(desk.topic("a"), b"1", retain=True)
    subscriber = await desk.client("sub", version)
    for expected in sent:
        await subscriber.subscribe(SubscriptionRequest(desk.topic("a"), 1, retain_handling=handling))
        if expected:
            assert (await subscriber.receive()).retain
        await subscriber.nothing_more()


@pytest.mark.parametrize("version", [pytest.param(V5, id="5:4.8.2"), pytest.param(V311, id="3.1.1")])
async def test_a_shared_subscription_gets_no_retained_messages(desk: Desk, version: ProtocolVersion) -> None:
    await (await desk.client("pub")).publish(desk.topic("a"), b"1", retain=True)
    subscriber = await desk.client("sub", version)
    await subscriber.subscribe(f"$share/g/{desk.topic('a')}")
    await subscriber.nothing_more()
