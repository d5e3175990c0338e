"""`$room/…`: every event of a room by one subscription, whatever its topic."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gapless.eventlog import MemoryLog
from gapless.mqtt import Properties, Puback, Publish, ReasonCode, SubscriptionRequest
from gapless.topicmap import Row, TopicMap
from gapless.transports.mqtt import EdgeOptions
from tests.mqtt_edge.support import V5, V311, Client, Node, properties_of, running_edge, until
from tests.mqtt_edge.test_kill import killed_at, snapshot

LEAD = "$room/lead:1"
CREATED, UPDATED = "crm/activities/{}/created", "crm/leads/1/updated"


async def happen(node: Node, first: int, last: int) -> None:
    """Events of lead 1, by turns by its topic and by the payload of an activity's; others of lead 2 between them."""
    for number in range(first, last + 1):
        topic = UPDATED if number % 2 else CREATED.format(number)
        await node.publish(topic, {"n": number, "leadId": "1"})
        await node.publish(CREATED.format(-number), {"n": -number, "leadId": "2"})


def number_of(packet: Publish) -> int:
    number: int = json.loads(packet.payload)["data"]["n"]
    return number


async def numbers(phone: Client, count: int) -> list[int]:
    return [number_of(await phone.receive()) for _ in range(count)]


@pytest.mark.parametrize("version", [V311, V5])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_room_brings_all_its_events_in_order_on_their_own_topics(version: Any, qos: int) -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port, version=version)
        assert (await phone.subscribe(LEAD, qos=qos)).reason_codes == [ReasonCode(qos)]
        await happen(node, 1, 4)
        got = [await phone.receive() for _ in range(4)]
        assert [number_of(packet) for packet in got] == [1, 2, 3, 4]
        assert [packet.topic for packet in got] == [UPDATED, CREATED.format(2), UPDATED, CREATED.format(4)]
        assert [packet.qos for packet in got] == [min(qos, 1)] * 4
        if version is V5:
            assert [properties_of(packet)["position"] for packet in got] == [
                node.hub.position(offset) for offset in (1, 3, 5, 7)
            ]
        await phone.nothing_more()


async def test_events_that_mqtt_clients_publish_are_in_the_room_too() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port)
        await phone.subscribe(LEAD, qos=2)
        sender, _ = await Client.connect(node.port, "s", V311)
        payload = b'{"type":"activity:created","data":{"leadId":1}}'
        await sender.publish(CREATED.format(5), payload, qos=2)
        got = await phone.receive()
        assert (got.topic, got.payload, got.qos) == (CREATED.format(5), payload, 2)


async def test_a_room_and_filters_that_overlap_bring_an_event_once_as_the_standard_says() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port)
        await phone.subscribe(LEAD, qos=0, identifier=7)
        await phone.subscribe("crm/activities/+/created", qos=1, identifier=3)
        await phone.subscribe("$room/org:global", qos=0, identifier=9)
        await node.publish(CREATED.format(2), {"leadId": "1"})
        await node.publish(CREATED.format(3), {"leadId": "2"})
        await node.publish(UPDATED, {})
        for identifiers, qos in (([3, 7, 9], 1), ([3, 9], 1), ([7, 9], 0)):
            got = await phone.receive()
            assert got.properties is not None
            assert (got.properties.subscription_identifiers, got.qos) == (identifiers, qos)
        await phone.nothing_more()


@pytest.mark.parametrize(
    ("filter_", "code"),
    [
        ("$room/+", ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED),
        ("$room/#", ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED),
        ("$room/topic:a/+/b", ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED),
        ("$share/g/$room/lead:1", ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED),
        ("$room", ReasonCode.TOPIC_FILTER_INVALID),
        ("$room/", ReasonCode.TOPIC_FILTER_INVALID),
        ("$room/lead:%31", ReasonCode.TOPIC_FILTER_INVALID),
        ("$room/no such room", ReasonCode.TOPIC_FILTER_INVALID),
        ("$room/nothing:1", ReasonCode.TOPIC_FILTER_INVALID),
    ],
)
async def test_what_is_refused_and_how(filter_: str, code: ReasonCode) -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port)
        suback = await phone.subscribe(filter_, LEAD)
        assert suback.reason_codes == [code, ReasonCode.GRANTED_QOS_1]
        assert suback.properties is not None
        if filter_ not in ("$room", "$room/", "$room/lead:%31"):
            assert suback.properties.reason_string
        older, _ = await Client.connect(node.port, "old", V311)
        assert (await older.subscribe(filter_)).reason_codes == [ReasonCode.UNSPECIFIED_ERROR]
        await node.publish(UPDATED, {"n": 1})
        assert number_of(await phone.receive()) == 1  # the granted one holds
        await older.nothing_more()


async def test_wildcards_bring_no_event_twice_and_nobody_publishes_to_a_room() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port)
        await phone.subscribe("#", "+/#")
        answer = await phone.publish(LEAD, b"x")
        assert isinstance(answer, Puback)
        assert answer.reason_code is ReasonCode.NOT_AUTHORIZED
        await phone.nothing_more()


async def test_rooms_whose_names_hold_wildcards() -> None:
    rows = [Row("tags/{tagId}", "tagged", ("tag:{data.tag}",))]
    async with running_edge(topic_map=TopicMap(rows)) as node:
        phone, _ = await Client.connect(node.port)
        await phone.subscribe("$room/tag:c%23", "$room/tag:50%25", "$room/tag:c%2B%2B")
        for number, tag in enumerate(["c#", "c", "c++", "50%", "c%23"]):
            await node.publish(f"tags/{number}", {"n": number, "tag": tag})
        assert await numbers(phone, 3) == [0, 2, 3]
        await phone.nothing_more()


async def test_the_room_of_a_topic_outside_the_map() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port)
        await phone.subscribe("$room/topic:plant/1/heat")
        await node.publish("plant/1/heat", {"n": 1})
        await node.publish("plant/2/heat", {"n": 2})
        assert await numbers(phone, 1) == [1]
        await phone.nothing_more()


async def test_ephemeral_events_of_a_room() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port)
        await phone.subscribe("$room/note:1")
        sender, _ = await Client.connect(node.port, "s")
        await sender.publish(
            "crm/notes/1/collaboration", b'{"type":"note:collaboration","data":{"kind":"awareness"}}', qos=0
        )
        got = await phone.receive()
        assert got.qos == 0
        assert "position" not in properties_of(got)


async def test_unsubscribing_ends_it() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port)
        await phone.subscribe(LEAD, "$room/lead:2")
        assert (await phone.unsubscribe(LEAD, "$room/lead:9")).reason_codes == [
            ReasonCode.SUCCESS,
            ReasonCode.NO_SUBSCRIPTION_EXISTED,
        ]
        await happen(node, 1, 2)
        assert await numbers(phone, 2) == [-1, -2]
        await phone.nothing_more()


async def test_no_local_holds_for_rooms() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port)
        await phone.subscribe(SubscriptionRequest(LEAD, 1, no_local=True))
        await phone.publish(UPDATED, b'{"data":{"n":1}}')
        await node.publish(CREATED.format(2), {"n": 2, "leadId": "1"})
        await node.publish(CREATED.format(3), {"n": 3, "leadId": "2"})
        assert await numbers(phone, 1) == [2]
        await phone.nothing_more()


async def test_retained_messages_are_the_last_values_in_the_room() -> None:
    async with running_edge() as node:
        for user in (1, 2):
            await node.publish(f"crm/users/{user}/presence", {"n": user}, retain=True)
        phone, _ = await Client.connect(node.port)
        await phone.subscribe("$room/user:1")
        got = await phone.receive()
        assert (number_of(got), got.retain) == (1, True)
        await phone.nothing_more()
        for handling, brought in ((1, 0), (2, 0), (0, 1)):
            await phone.subscribe(SubscriptionRequest("$room/user:1", 1, retain_handling=handling))
            assert await numbers(phone, brought) == [1] * brought
            await phone.nothing_more()
        await phone.subscribe(SubscriptionRequest("$room/org:global", 1, retain_handling=1))
        assert sorted(await numbers(phone, 2)) == [1, 2]
        await phone.nothing_more()


async def test_a_retained_message_is_in_the_rooms_of_its_topics_last_event() -> None:
    rows = [Row("desks/{deskId}", "desk", ("floor:{data.floor}",), retain=True)]
    async with running_edge(topic_map=TopicMap(rows)) as node:
        retained = node.hub.retained
        for desk, floor in (("a", "1"), ("b", "1"), ("a", "2")):
            await node.publish(f"desks/{desk}", {"floor": floor}, retain=True)

        def kept(floor: int) -> list[str]:
            return [record.event.topic for record in retained.in_room(f"floor:{floor}", now=0)]

        assert (kept(1), kept(2), kept(3)) == (["desks/b"], ["desks/a"], [])
        phone, _ = await Client.connect(node.port)
        await phone.publish("desks/b", b"", retain=True)
        assert (kept(1), kept(2)) == ([], ["desks/a"])
        expiring = Properties(message_expiry_interval=10)
        await phone.publish("desks/c", b'{"type":"desk","data":{"floor":"2"}}', retain=True, properties=expiring)
        assert kept(2) == ["desks/a", "desks/c"]
        later = int(node.clock() * 1000) + 11_000
        assert [record.event.topic for record in retained.in_room("floor:2", now=later)] == ["desks/a"]
        assert kept(2) == ["desks/a"]
        await node.publish("desks/a", {}, retain=True)
        assert not retained._by_room


@pytest.mark.parametrize("recent", [100_000, 1])
@pytest.mark.parametrize("version", [V311, V5])
async def test_a_session_gets_what_happened_in_its_rooms_while_it_was_away(version: Any, recent: int) -> None:
    async with running_edge(recent_events=recent) as node:
        phone, _ = await Client.connect(node.port, "phone", version, clean=False, expiry=3600)
        await phone.subscribe(LEAD)
        await phone.subscribe("crm/system/backend/status")
        await happen(node, 1, 2)
        assert await numbers(phone, 2) == [1, 2]
        await phone.nothing_more()
        await phone.disconnect()
        await happen(node, 3, 6)
        phone, connack = await Client.connect(node.port, "phone", version, clean=False, expiry=3600)
        assert connack.session_present
        assert await numbers(phone, 4) == [3, 4, 5, 6]
        await happen(node, 7, 8)
        assert await numbers(phone, 2) == [7, 8]
        await phone.nothing_more()


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_session_with_a_room_goes_on_after_a_kill(qos: int) -> None:
    log = MemoryLog()
    rows = [Row("activities/{activityId}", "activity", ("lead:{data.leadId}",), qos=2)]
    async with running_edge(log=log, topic_map=TopicMap(rows)) as node:
        phone, _ = await Client.connect(node.port, "phone", clean=False, expiry=3600)
        await phone.subscribe(LEAD, qos=qos)
        for number in (1, 2, 3):
            await node.publish(f"activities/{number}", {"n": number, "leadId": "1"}, qos=2)
        first = await phone.receive(acknowledge=False)
        assert number_of(first) == 1
        assert [number_of(await phone.receive(acknowledge=False)) for _ in range(2)] == [2, 3]
        await phone.nothing_more()
        await node.edge.sessions.store(node.edge.connected["phone"].reader, durable=False)
        then = snapshot(log)
    killed_at(log, then)
    async with running_edge(log=log, topic_map=TopicMap(rows)) as node:
        await node.publish("activities/4", {"n": 4, "leadId": "1"}, qos=2)
        await node.publish("activities/5", {"n": 5, "leadId": "2"}, qos=2)
        phone, connack = await Client.connect(node.port, "phone", clean=False, expiry=3600)
        assert connack.session_present
        got = [await phone.receive(acknowledge=False) for _ in range(4)]
        assert [(number_of(packet), packet.dup) for packet in got] == [(1, True), (2, True), (3, True), (4, False)]
        await phone.nothing_more()


async def test_history_first_and_what_came_by_another_subscription_not_again() -> None:
    async with running_edge() as node:
        await happen(node, 1, 4)
        phone, _ = await Client.connect(node.port)
        start = [("gapless-start", node.hub.position(2))]  # after the first event of each lead
        await phone.subscribe(LEAD, user_properties=start)
        assert await numbers(phone, 3) == [2, 3, 4]
        await phone.subscribe("$room/org:global", user_properties=start)
        assert await numbers(phone, 3) == [-2, -3, -4]
        await happen(node, 5, 5)
        assert await numbers(phone, 2) == [5, -5]
        await phone.nothing_more()


async def test_a_slow_reader_of_a_room_is_fed_from_the_log() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port, receive_maximum=2)
        await phone.subscribe(LEAD)
        await happen(node, 1, 6)
        assert await numbers(phone, 6) == [1, 2, 3, 4, 5, 6]
        await until(lambda: node.edge.behind == 0)
        await phone.nothing_more()


async def test_a_room_is_one_subscription_and_makes_its_client_present() -> None:
    async with running_edge(options=EdgeOptions(max_subscriptions=2)) as node:
        phone, _ = await Client.connect(node.port, username="ann")
        await phone.subscribe(LEAD, "$room/activity:2")
        connection = node.edge.connected[phone_of(node)]
        assert connection.rooms == {"lead:1", "activity:2"}
        assert node.edge.fanout.rooms == 2
        assert (await phone.subscribe("$room/lead:3")).reason_codes == [ReasonCode.QUOTA_EXCEEDED]
        await phone.unsubscribe(LEAD)
        assert connection.rooms == {"activity:2"}
        await phone.disconnect()
        await until(lambda: node.edge.fanout.rooms == 0)


def phone_of(node: Node) -> str:
    (name,) = node.edge.connected
    return name
