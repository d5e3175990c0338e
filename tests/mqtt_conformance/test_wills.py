"""Wills: when they are published, when not, and as what."""

from __future__ import annotations

import pytest

from gapless.mqtt import Disconnect, Properties, ProtocolVersion, Publish, ReasonCode, Will
from tests.mqtt_conformance.desk import Desk
from tests.mqtt_conformance.tags import V5, shows
from tests.mqtt_edge.support import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def watching(desk: Desk, version: ProtocolVersion = V5) -> Client:
    watcher = await desk.client("watcher", version)
    await watcher.subscribe(desk.topic("#"), qos=2)
    return watcher


def delayed(desk: Desk, name: str, seconds: int) -> Will:
    return Will(desk.topic(name), b"gone", qos=1, properties=Properties(will_delay_interval=seconds))


async def nothing_before(desk: Desk, watcher: Client, name: str = "c") -> None:
    """The next thing that the watcher gets is a marker published now, after the client has left."""
    await desk.left(name)
    marker = await desk.client("marker")
    await marker.publish(desk.topic("marker"))
    assert (await watcher.receive()).topic == desk.topic("marker")


@shows("3.1.2-8 3.1.2-9 3.1.2-16", "3.1.2-7 3.1.2-8 3.1.2-14")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_broken_connection_publishes_the_will(desk: Desk, version: ProtocolVersion, qos: int) -> None:
    watcher = await watching(desk, version)
    client = await desk.client("c", version, will=Will(desk.topic("will"), b"gone", qos=qos))
    await watcher.nothing_more()
    await client.drop()
    got = await watcher.receive()
    assert (got.topic, got.payload, got.qos) == (desk.topic("will"), b"gone", qos)
    late = await desk.client("late", version)
    await late.subscribe(desk.topic("#"))
    await late.nothing_more()


@shows("3.1.2-17", "3.1.2-15")
async def test_a_retained_will_is_retained(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk, version)
    client = await desk.client("c", version, will=Will(desk.topic("will"), b"gone", qos=1, retain=True))
    await client.drop()
    assert not (await watcher.receive()).retain
    late = await desk.client("late", version)
    await late.subscribe(desk.topic("#"))
    got = await late.receive()
    assert (got.topic, got.payload, got.retain) == (desk.topic("will"), b"gone", True)


@shows("3.1.2-8 3.1.2-10 3.14.4-3", "3.1.2-8 3.1.2-10 3.14.4-3")
@pytest.mark.parametrize("clean", [True, False])
async def test_a_disconnect_discards_the_will(desk: Desk, version: ProtocolVersion, clean: bool) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version, clean=clean, expiry=60, will=Will(desk.topic("will"), b"gone"))
    await client.disconnect()
    await nothing_before(desk, watcher)
    client = await desk.client("c", version, clean=clean, expiry=60)
    await client.drop()
    await nothing_before(desk, watcher)


@shows("3.1.2-12")
async def test_without_a_will_nothing_is_published(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version)
    await client.drop()
    await nothing_before(desk, watcher)


@shows("3.1.2-10", "3.1.2-10")
async def test_a_will_is_published_once(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.returning("c", version, will=Will(desk.topic("will"), b"gone"))
    await client.drop()
    assert (await watcher.receive()).topic == desk.topic("will")
    client = await desk.returning("c", version)
    await client.drop()
    await nothing_before(desk, watcher)


@shows("3.1.2-8", "3.1.2-8")
async def test_a_violation_publishes_the_will(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version, will=Will(desk.topic("will"), b"gone"))
    client.send_bytes(b"\x36\x00")
    await client.expect_closed(ReasonCode.MALFORMED_PACKET if version is V5 else None)
    assert (await watcher.receive()).topic == desk.topic("will")


@shows("3.1.2-8", "3.1.2-8")
async def test_a_take_over_publishes_the_will(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    await desk.client("c", version, will=Will(desk.topic("will"), b"gone"))
    await desk.client("c", version)
    assert (await watcher.receive()).topic == desk.topic("will")
    await nothing_before(desk, watcher, "nobody")


@pytest.mark.parametrize("version", [pytest.param(V5, id="5:3.14.2.1")])
async def test_disconnect_with_will_message(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version, will=Will(desk.topic("will"), b"gone"))
    client.send(Disconnect(ReasonCode.DISCONNECT_WITH_WILL_MESSAGE))
    await client.expect_closed()
    assert (await watcher.receive()).topic == desk.topic("will")


@shows(v5="3.1.2-8")
async def test_a_delayed_will_comes_after_its_delay(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.returning("c", version, will=delayed(desk, "will", 1))
    await client.drop()
    await nothing_before(desk, watcher)
    assert (await watcher.receive()).topic == desk.topic("will")


@shows(v5="3.1.2-8")
async def test_a_delayed_will_comes_when_the_session_ends(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version, clean=False, expiry=1, will=delayed(desk, "expired", 3600))
    await client.drop()
    assert (await watcher.receive()).topic == desk.topic("expired")

    client = await desk.client("c", version, will=delayed(desk, "with its connection", 3600))
    await client.drop()
    assert (await watcher.receive()).topic == desk.topic("with its connection")

    client = await desk.returning("c", version, will=delayed(desk, "by clean start", 3600))
    await desk.gone(client)
    await desk.client("c", version, clean=True)
    assert (await watcher.receive()).topic == desk.topic("by clean start")


@shows(v5="3.1.2-8 3.1.3-9")
async def test_a_return_within_the_delay_stops_the_will(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.returning("c", version, will=delayed(desk, "first", 1))
    await desk.gone(client)
    client = await desk.returning("c", version)
    other = await desk.returning("other", version, will=delayed(desk, "second", 1))
    await desk.gone(other, "other")
    assert (await watcher.receive()).topic == desk.topic("second")  # the first would have come before
    await client.nothing_more()


@shows(v5="3.1.3-9")
async def test_a_take_over_within_the_delay_stops_the_will(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    await desk.returning("c", version, will=delayed(desk, "first", 1))
    client = await desk.returning("c", version)
    other = await desk.returning("other", version, will=delayed(desk, "second", 1))
    await desk.gone(other, "other")
    assert (await watcher.receive()).topic == desk.topic("second")
    await client.nothing_more()


@shows(v5="3.1.3-10 3.1.2-9 3.3.2-4 3.3.2-15 3.3.2-16 3.3.2-18 3.3.2-20")
async def test_the_wills_properties_come_with_it(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    pairs = [("b", "1"), ("a", "2"), ("b", "1")]
    properties = Properties(
        payload_format_indicator=1,
        message_expiry_interval=600,
        content_type="text/plain",
        response_topic="answer",
        correlation_data=b"\x00\xff",
        user_properties=pairs,
    )
    client = await desk.client("c", version, will=Will(desk.topic("will"), b"gone", properties=properties))
    await client.drop()
    got = (await watcher.receive()).properties
    assert got is not None
    assert got.user_properties[:3] == pairs
    assert (got.payload_format_indicator, got.content_type) == (1, "text/plain")
    assert (got.response_topic, got.correlation_data) == ("answer", b"\x00\xff")
    assert got.message_expiry_interval is not None
    assert 0 < got.message_expiry_interval <= 600


@shows("3.1.2-8", "3.1.2-8")
async def test_what_was_published_before_comes_before_the_will(desk: Desk, version: ProtocolVersion) -> None:
    watcher = await watching(desk)
    client = await desk.client("c", version, will=Will(desk.topic("will"), b"gone", qos=1))
    client.send(*(Publish(desk.topic("a"), b"%d" % n, qos=1, packet_id=n) for n in range(1, 21)))
    client.send_bytes(b"\x36\x00")
    got = [(await watcher.receive()).payload for _ in range(21)]
    assert got == [*(b"%d" % n for n in range(1, 21)), b"gone"]
