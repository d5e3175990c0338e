"""What subscribers receive: payloads, properties, retained, overlaps, No Local, expiry, wills."""

from __future__ import annotations

import json

import pytest

from gapless.envelope import read_envelope
from gapless.event import Origin
from gapless.ingress import Publication
from gapless.mqtt import Disconnect, Properties, ProtocolVersion, ReasonCode, SubscriptionRequest, Will
from gapless.topicmap import Row, TopicMap
from tests.mqtt_edge.support import V5, V311, Client, Node, properties_of, running_edge, until

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


async def pair(node: Node, version: ProtocolVersion = V5) -> tuple[Client, Client]:
    subscriber, _ = await Client.connect(node.port, "sub", version)
    publisher, _ = await Client.connect(node.port, "pub", version)
    return subscriber, publisher


# Payload and properties


async def test_publisher_properties_come_unaltered_MQTT_3_3_2_17() -> None:
    async with running_edge() as node:
        subscriber, publisher = await pair(node)
        await subscriber.subscribe("a")
        sent = Properties(
            payload_format_indicator=1,
            content_type="text/plain",
            response_topic="answers/1",
            correlation_data=b"\x00\x01",
            user_properties=[("z", "1"), ("a", "2"), ("z", "3")],
        )
        await publisher.publish("a", "grüße".encode(), properties=sent)
        got = (await subscriber.receive()).properties
        assert got is not None
        assert got.payload_format_indicator == 1
        assert (got.content_type, got.response_topic, got.correlation_data) == ("text/plain", "answers/1", b"\x00\x01")
        assert got.user_properties[:3] == sent.user_properties
        assert [name for name, _ in got.user_properties[3:]] == ["id", "type", "time", "position"]


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff\x00", b' {"a":\n 1} ', b'{"type":"x","data":{"b":1},"id":"e-1"}', b"12", b"x" * 70_000],
    ids=["empty", "binary", "loose JSON", "envelope", "number", "70 kB"],
)
@VERSIONS
async def test_the_very_bytes_published_arrive(version: ProtocolVersion, payload: bytes) -> None:
    async with running_edge() as node:
        subscriber, publisher = await pair(node, version)
        await subscriber.subscribe("a")
        await publisher.publish("a", payload)
        assert (await subscriber.receive()).payload == payload


async def test_bare_data_on_request_by_subscription_or_connection() -> None:
    async with running_edge() as node:
        by_subscribe, _ = await Client.connect(node.port, "one")
        await by_subscribe.subscribe("a", user_properties=[("gapless-payload", "data")])
        by_connect, _ = await Client.connect(node.port, "two", user_properties=[("gapless-payload", "data")])
        await by_connect.subscribe("a")
        accepted = await node.publish("a", {"k": 1})
        for client in (by_subscribe, by_connect):
            got = await client.receive()
            assert got.payload == b'{"k":1}'
            assert got.properties is not None
            assert got.properties.content_type == "application/json"
            assert properties_of(got)["id"] == accepted.id
            assert properties_of(got)["position"] == accepted.position
        await by_connect.publish("a", b'{"type":"message","id":"e-7","data":[1]}')
        got = await by_subscribe.receive()
        assert (got.payload, properties_of(got)["id"]) == (b"[1]", "e-7")


@VERSIONS
async def test_binary_data_of_another_door_comes_as_bytes(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        subscriber, _ = await Client.connect(node.port, "sub", version)
        await subscriber.subscribe("a")
        envelope = read_envelope({"data_base64": "AAH/"})
        await node.ingress.submit(Publication(envelope=envelope, origin=Origin("rest"), topic="a"))
        assert (await subscriber.receive()).payload == b"\x00\x01\xff"


# QoS and overlaps


@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
async def test_delivery_is_at_the_lower_qos_MQTT_3_8_4_8(granted: int, published: int) -> None:
    async with running_edge() as node:
        subscriber, publisher = await pair(node)
        await subscriber.subscribe("a", qos=granted)
        await publisher.publish("a", qos=published)
        assert (await subscriber.receive()).qos == min(granted, published)


@VERSIONS
async def test_overlapping_subscriptions_are_one_delivery_at_the_highest_qos_MQTT_3_3_4_2(
    version: ProtocolVersion,
) -> None:
    async with running_edge() as node:
        subscriber, publisher = await pair(node, version)
        v5 = version is V5
        await subscriber.subscribe("a/#", qos=0, identifier=7 if v5 else None)
        await subscriber.subscribe("a/+", qos=2, identifier=3 if v5 else None)
        await subscriber.subscribe("b", qos=1, identifier=9 if v5 else None)
        await publisher.publish("a/b", qos=2)
        got = await subscriber.receive()
        assert got.qos == 2
        if v5:
            assert got.properties is not None
            assert got.properties.subscription_identifiers == [3, 7]
        await subscriber.nothing_more()


@VERSIONS
async def test_a_resubscription_replaces_its_options_MQTT_3_8_4_3(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        subscriber, publisher = await pair(node, version)
        await subscriber.subscribe("a", qos=2)
        await subscriber.subscribe("a", qos=0)
        await publisher.publish("a", qos=2)
        assert (await subscriber.receive()).qos == 0
        await subscriber.nothing_more()


async def test_no_local_keeps_ones_own_publishes_away_MQTT_3_8_3_3() -> None:
    async with running_edge() as node:
        client, other = await pair(node)
        await client.subscribe(SubscriptionRequest("a", 1, no_local=True))
        await client.publish("a", b"own")
        await other.publish("a", b"other")
        assert (await client.receive()).payload == b"other"
        await client.subscribe("#", qos=1)  # one without No Local brings it
        await client.publish("a", b"own")
        assert (await client.receive()).payload == b"own"
        await client.nothing_more()


async def test_without_no_local_one_hears_oneself() -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "c", V311)
        await client.subscribe("a", qos=0)
        await client.publish("a", b"own", qos=0)
        assert (await client.receive()).payload == b"own"


async def test_no_local_holds_for_what_is_fed_from_the_log() -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "c", clean=False, expiry=100)
        await client.subscribe(SubscriptionRequest("a", 1, no_local=True))
        await client.disconnect()
        await node.publish("a", "while away")
        client, _ = await Client.connect(node.port, "c", clean=False, expiry=100, receive_maximum=1)
        got = await client.receive(acknowledge=False)
        await client.publish("a", b"own", packet_id=50)
        await node.publish("a", "after")
        await client.acknowledge(got)
        assert b"after" in (await client.receive()).payload
        await client.nothing_more()


@VERSIONS
@pytest.mark.parametrize(
    ("pattern", "topic", "heard"),
    [
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/+/c", "a//c", True),
        ("/+", "/a", True),
        ("+", "/a", False),
        ("a/#", "a", True),
        ("A", "a", False),
    ],
)
async def test_wildcards_MQTT_4_7_2_1(version: ProtocolVersion, pattern: str, topic: str, heard: bool) -> None:
    async with running_edge() as node:
        subscriber, _ = await Client.connect(node.port, "sub", version)
        await subscriber.subscribe(pattern, "last", qos=1)
        await node.publish(topic, 1)
        await node.publish("last", 1)
        assert [(await subscriber.receive()).topic for _ in range(1 + heard)] == ([topic] if heard else []) + ["last"]


# Retained


@VERSIONS
async def test_a_retained_message_greets_a_new_subscriber_MQTT_3_3_1_5(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        publisher, _ = await Client.connect(node.port, "pub", version)
        await publisher.publish("r/1", b"old", retain=True)
        await publisher.publish("r/1", b"new", retain=True)
        await publisher.publish("r/2", b"two", qos=2, retain=True)
        await publisher.publish("r/3", b"zero", qos=0, retain=True)
        subscriber, _ = await Client.connect(node.port, "sub", version)
        await subscriber.subscribe("r/+", qos=1)
        got = [await subscriber.receive() for _ in range(3)]
        assert {(p.topic, p.payload, p.qos, p.retain) for p in got} == {
            ("r/1", b"new", 1, True),
            ("r/2", b"two", 1, True),
            ("r/3", b"zero", 0, True),
        }
        await publisher.publish("r/1", b"live", retain=True)
        live = await subscriber.receive()
        assert (live.payload, live.retain) == (b"live", False)
        await publisher.publish("r/1", b"", retain=True)
        assert (await subscriber.receive()).payload == b""
        late, _ = await Client.connect(node.port, "late", version)
        await late.subscribe("r/1")
        await late.nothing_more()


async def test_retain_as_published_and_retain_handling_MQTT_3_3_1_13() -> None:
    async with running_edge() as node:
        client, publisher = await pair(node)
        await publisher.publish("r", b"kept", retain=True)
        await client.subscribe(SubscriptionRequest("r", 1, retain_as_published=True, retain_handling=2))
        await publisher.publish("r", b"live", retain=True)
        got = await client.receive()
        assert (got.payload, got.retain) == (b"live", True)
        await client.subscribe(SubscriptionRequest("r", 1, retain_handling=1))
        await client.nothing_more()
        await client.subscribe(SubscriptionRequest("r", 1, retain_handling=0))
        assert (await client.receive()).retain
        await client.unsubscribe("r")
        await client.subscribe(SubscriptionRequest("r", 1, retain_handling=1))
        assert (await client.receive()).retain


async def test_many_retained_messages_within_a_small_window() -> None:
    async with running_edge() as node:
        for n in range(50):
            await node.publish(f"r/{n}", n, retain=True)
        client, _ = await Client.connect(node.port, "c", receive_maximum=4)
        await client.subscribe("r/#")
        await node.publish("r/5", "live", retain=True)
        got = [await client.receive() for _ in range(51)]
        assert {packet.topic for packet in got[:50]} == {f"r/{n}" for n in range(50)}
        assert all(packet.retain for packet in got[:50])
        assert (got[50].retain, b"live" in got[50].payload) == (False, True)
        await client.nothing_more()


async def test_retained_messages_cut_off_midway_come_at_the_resume() -> None:
    async with running_edge() as node:
        for n in range(20):
            await node.publish(f"r/{n}", n, retain=True)
        client, _ = await Client.connect(node.port, "c", clean=False, expiry=100, receive_maximum=5)
        await client.subscribe("r/#")
        seen = {(await client.receive(acknowledge=False)).topic for _ in range(5)}
        await client.drop()
        client, connack = await Client.connect(node.port, "c", clean=False, expiry=100)
        assert connack.session_present
        while len(seen) < 20:
            seen.add((await client.receive()).topic)


async def test_a_resubscription_while_behind_keeps_the_order() -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "c", clean=False, expiry=100)
        await client.subscribe("r")
        await client.disconnect()
        for n in range(10):
            await node.publish("r", n, retain=True)
        client, _ = await Client.connect(node.port, "c", clean=False, expiry=100, receive_maximum=2)
        early = [await client.receive(acknowledge=False) for _ in range(2)]
        await client.subscribe("r")
        for packet in early:
            await client.acknowledge(packet)
        rest = [await client.receive() for _ in range(9)]
        values = [json.loads(packet.payload)["data"] for packet in [*early, *rest]]
        assert values == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
        assert rest[-1].retain
        await client.nothing_more()


# Expiry


async def test_message_expiry_MQTT_3_3_2_5_and_6() -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "c", clean=False, expiry=1000)
        await client.subscribe("a")
        await client.disconnect()
        publisher, _ = await Client.connect(node.port, "pub")
        await publisher.publish("a", b"short", properties=Properties(message_expiry_interval=10))
        await publisher.publish("a", b"long", properties=Properties(message_expiry_interval=100))
        await publisher.publish("a", b"for ever")
        node.clock.ahead = 40
        client, _ = await Client.connect(node.port, "c", clean=False, expiry=1000)
        got = await client.receive()
        assert got.payload == b"long"
        assert got.properties is not None
        assert 58 <= (got.properties.message_expiry_interval or 0) <= 60
        got = await client.receive()
        assert got.payload == b"for ever"
        assert got.properties is not None
        assert got.properties.message_expiry_interval is None


async def test_maximum_packet_size_of_a_client_MQTT_3_1_2_24() -> None:
    async with running_edge() as node:
        small, _ = await Client.connect(node.port, "small", maximum_packet_size=300)
        other, publisher = await pair(node)
        for client in (small, other):
            await client.subscribe("a")
        await publisher.publish("a", b"x" * 1000)
        await publisher.publish("a", b"y")
        assert (await small.receive()).payload == b"y"
        assert [len((await other.receive()).payload) for _ in range(2)] == [1000, 1]
        assert node.edge.stats.too_large == 1


# Ephemeral events


async def test_ephemeral_events_go_to_those_present_at_qos_0() -> None:
    rows = [Row("typing/{who}", "typing", ("org:global",), durable=False)]
    async with running_edge(topic_map=TopicMap(rows)) as node:
        client, publisher = await pair(node)
        await client.subscribe("typing/#", qos=2)
        await publisher.publish("typing/1", qos=2)
        got = await client.receive()
        assert got.qos == 0
        assert "position" not in properties_of(got)
        assert node.hub.head == 0


async def test_ephemeral_events_are_dropped_and_counted_for_those_behind() -> None:
    async with running_edge() as node:
        client, publisher = await pair(node)
        await client.subscribe("#")
        slow, _ = await Client.connect(node.port, "slow", receive_maximum=1)
        await slow.subscribe("#")
        await publisher.publish("a", b"1")
        await publisher.publish("a", b"2")
        first = await slow.receive(acknowledge=False)
        await publisher.publish("typing", b"dropped", qos=0)
        await until(lambda: node.edge.stats.dropped_ephemeral == 1)
        await slow.acknowledge(first)
        assert (await slow.receive()).payload == b"2"
        await slow.nothing_more()
        assert [(await client.receive()).payload for _ in range(3)] == [b"1", b"2", b"dropped"]


# Wills


@VERSIONS
async def test_a_will_is_published_when_the_connection_breaks_MQTT_3_1_2_8(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        watcher, _ = await Client.connect(node.port, "watcher", version)
        await watcher.subscribe("wills/#")
        phone, _ = await Client.connect(
            node.port, "phone", version, will=Will("wills/phone", b"gone", qos=1, retain=True)
        )
        await phone.drop()
        got = await watcher.receive()
        assert (got.topic, got.payload, got.retain) == ("wills/phone", b"gone", False)
        late, _ = await Client.connect(node.port, "late", version)
        await late.subscribe("wills/#")
        assert (await late.receive()).retain


@VERSIONS
async def test_a_disconnect_keeps_the_will_back_MQTT_3_14_4_3(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port, "phone", version, will=Will("w", b"gone", qos=1))
        await phone.disconnect()
        await until(lambda: node.edge.stats.connections == 0)
        other, _ = await Client.connect(node.port, "other", version)
        await other.publish("x")
        assert (node.hub.head, node.edge.stats.wills) == (1, 0)


async def test_disconnect_with_will() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port, "phone", will=Will("w", b"gone", qos=1))
        phone.send(Disconnect(ReasonCode.DISCONNECT_WITH_WILL_MESSAGE))
        await until(lambda: node.edge.stats.wills == 1)


async def test_a_will_delay_is_cancelled_by_a_return_MQTT_3_1_3_9() -> None:
    async with running_edge() as node:
        will = Will("w", b"gone", qos=1, properties=Properties(will_delay_interval=30))
        phone, _ = await Client.connect(node.port, "phone", clean=False, expiry=100, will=will)
        await phone.drop()
        await until(lambda: node.edge.stats.sessions_away == 1)
        phone, connack = await Client.connect(node.port, "phone", clean=False, expiry=100, will=will)
        assert connack.session_present
        node.clock.ahead = 40
        node.edge.sessions._on_due()
        await phone.nothing_more()
        assert node.edge.stats.wills == 0
        await phone.drop()
        await until(lambda: node.edge.stats.sessions_away == 1)
        node.clock.ahead = 75
        node.edge.sessions._on_due()
        await until(lambda: node.edge.stats.wills == 1)


async def test_a_will_comes_at_the_end_of_the_session_at_the_latest() -> None:
    async with running_edge() as node:
        will = Will("w", b"gone", qos=1, properties=Properties(will_delay_interval=30))
        phone, _ = await Client.connect(node.port, "phone", clean=False, expiry=100, will=will)
        await phone.drop()
        await until(lambda: node.edge.stats.sessions_away == 1)
        await Client.connect(node.port, "phone", clean=True)
        await until(lambda: node.edge.stats.wills == 1)
        web, _ = await Client.connect(node.port, "web", will=will)
        await web.drop()
        await until(lambda: node.edge.stats.wills == 2)


async def test_a_will_survives_the_process(tmp_path: object) -> None:
    from gapless.eventlog import MemoryLog

    log = MemoryLog()
    will = Will("w", b"gone", qos=1, properties=Properties(user_properties=[("k", "v")]))
    async with running_edge(log=log) as node:
        await Client.connect(node.port, "web", will=will)
        await Client.connect(node.port, "phone", clean=False, expiry=100, will=will)
    async with running_edge(log=log) as node:
        await until(lambda: node.edge.stats.wills == 2)
        assert node.hub.head == 2
    async with running_edge(log=log) as node:
        phone, connack = await Client.connect(node.port, "phone", clean=False, expiry=100)
        assert connack.session_present
        await phone.nothing_more()
        assert (node.hub.head, node.edge.stats.wills) == (2, 0)


async def test_a_takeover_publishes_the_will_of_the_old_connection() -> None:
    async with running_edge() as node:
        await Client.connect(node.port, "phone", V311, will=Will("w", b"gone", qos=1))
        await Client.connect(node.port, "phone", V311)
        await until(lambda: node.edge.stats.wills == 1)
