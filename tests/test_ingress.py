from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gapless.envelope import read_envelope, read_payload
from gapless.errors import Forbidden, InvalidPayload, InvalidRequest, LogUnavailable, PayloadTooLarge, QuotaExceeded
from gapless.event import MqttMessage, Origin, Record
from gapless.eventlog import EVERYTHING, MemoryLog, StateKind, StateWrite
from gapless.hub import Hub
from gapless.ingress import Accepted, Ingress, Publication
from gapless.limits import Limits
from gapless.topicmap import crm_map


class Door:
    """A transport that remembers what it was handed, and when relative to the answers."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def deliver(self, record: Record) -> None:
        self.records.append(record)


class World:
    def __init__(self, log: MemoryLog, hub: Hub, ingress: Ingress, door: Door) -> None:
        self.log, self.hub, self.ingress, self.door = log, hub, ingress, door


@pytest.fixture
async def world() -> AsyncIterator[World]:
    log = MemoryLog()
    hub = Hub(log)
    await log.open(hub.deliver)
    await hub.start()
    door = Door()
    hub.add(door)
    ingress = Ingress(log, hub, crm_map(), limits=Limits(payload_bytes=1000), clock=lambda: 1_767_225_600.0)
    yield World(log, hub, ingress, door)
    await log.close()


def rest(**document: Any) -> Publication:
    return Publication(envelope=read_envelope(document), origin=Origin("rest"))


def mqtt(topic: str, payload: bytes, **fields: Any) -> Publication:
    return Publication(
        envelope=read_payload(payload), origin=Origin("mqtt", "c1"), topic=topic, mqtt=MqttMessage(payload), **fields
    )


async def test_a_durable_event_is_in_the_log_and_handed_out_before_the_answer(world: World) -> None:
    accepted = await world.ingress.submit(rest(type="lead:created", data={"leadId": "5"}))
    assert accepted.position == f"{world.log.epoch}:1"
    (record,) = world.door.records
    assert (record.event.id, record.offset) == (accepted.id, 1)
    page = await world.log.read(EVERYTHING, 0)
    assert [record.event.id for record in page.records] == [accepted.id]


async def test_the_same_id_again_is_the_same_answer_and_no_second_event(world: World) -> None:
    first = await world.ingress.submit(rest(type="lead:created", data={"leadId": "5"}, id="e1"))
    second = await world.ingress.submit(rest(type="lead:created", data={"leadId": "5"}, id="e1"))
    assert (second.position, second.duplicate) == (first.position, True)
    assert len(world.door.records) == 1
    assert (world.ingress.accepted_durable, world.ingress.duplicates) == (1, 1)


async def test_an_ephemeral_event_is_handed_out_and_not_logged(world: World) -> None:
    accepted = await world.ingress.submit(mqtt("sensors/1", b"20", qos=0))
    assert accepted.position is None
    assert [record.offset for record in world.door.records] == [0]
    assert world.log.head == 0


async def test_order_of_calls_is_order_of_events(world: World) -> None:
    answers = [world.ingress.submit(rest(topic="a", data=n)) for n in range(200)]
    await asyncio.gather(*answers)
    assert [json.loads(record.event.data) for record in world.door.records] == list(range(200))


async def test_state_is_stored_with_the_event_also_with_an_ephemeral_one(world: World) -> None:
    for key, publication in (("a", rest(topic="t", data=1)), ("b", mqtt("t", b"1", qos=0))):
        await world.ingress.submit(publication, state=[StateWrite(StateKind.MQTT_SESSION, key, b"x")])
        assert await world.log.read_state(StateKind.MQTT_SESSION, key) == b"x"


async def test_a_batch_is_taken_whole_or_not_at_all(world: World) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await world.ingress.submit_many([rest(topic="a", data=1), rest(data=2), rest(topic="a", data=3)])
    assert caught.value.details["index"] == 1
    assert world.log.head == 0
    assert world.door.records == []
    accepted = await world.ingress.submit_many([rest(topic="a", data=n) for n in range(3)])
    assert [answer.position for answer in accepted] == [f"{world.log.epoch}:{n}" for n in (1, 2, 3)]


async def test_what_a_door_forbids_is_not_accepted(world: World) -> None:
    def allow(topic: str) -> None:
        raise Forbidden(f"not {topic}")

    publication = rest(type="lead:created", data={"leadId": "5"})
    publication.allow = allow
    with pytest.raises(Forbidden, match="crm/leads/5/created"):
        world.ingress.submit(publication)
    assert world.log.head == 0


async def test_a_message_that_tells_its_time_has_the_same_id_on_every_way(world: World) -> None:
    payload = b'{"temperature":20,"timestamp":1767225600000}'
    edge = await world.ingress.submit(mqtt("sensors/1", payload))
    link = Publication(
        envelope=read_payload(payload), origin=Origin("link", "broker"), topic="sensors/1", mqtt=MqttMessage(payload)
    )
    assert (await world.ingress.submit(link)).id == edge.id
    assert world.log.head == 1


async def test_messages_with_neither_id_nor_time_are_all_kept(world: World) -> None:
    for _ in range(2):
        await world.ingress.submit(mqtt("sensors/1", b'{"on":true}'))
    assert world.log.head == 2


async def test_the_type_must_fit_the_topic_but_the_map_rules_over_mqtt(world: World) -> None:
    with pytest.raises(InvalidPayload):
        world.ingress.submit(rest(topic="crm/leads/1/created", type="lead:updated", data={}))
    accepted = await world.ingress.submit(mqtt("crm/leads/1/created", b'{"type":"other","data":{}}'))
    assert accepted.type == "lead:created"


async def test_the_limit_counts_the_payload_as_it_came(world: World) -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        world.ingress.submit(mqtt("t", b'{"type":"t","data":1,"padding":"' + b"x" * 1000 + b'"}'))
    assert caught.value.details["limit"] == 1000
    await world.ingress.submit(rest(topic="t", data="x" * 998))


async def test_a_closed_log_refuses(world: World) -> None:
    await world.log.close()
    with pytest.raises(LogUnavailable):
        await world.ingress.submit(rest(topic="t", data=1))


async def test_the_time_is_the_publishers_else_the_gateways(world: World) -> None:
    await world.ingress.submit(rest(topic="t", data=1))
    await world.ingress.submit(rest(topic="t", data=1, time="2020-01-01T00:00:00Z"))
    assert [record.event.time for record in world.door.records] == [1_767_225_600_000, 1_577_836_800_000]


async def test_a_retained_ephemeral_event_is_kept_for_new_subscribers(world: World) -> None:
    await world.ingress.submit(mqtt("sensors/1", b"20", qos=0, retain=True))
    assert world.hub.retained.get("sensors/1") is not None
    assert [record.event.topic for record in await world.log.all_retained()] == ["sensors/1"]
    await world.ingress.submit(mqtt("sensors/1", b"", qos=0, retain=True))
    assert world.hub.retained.get("sensors/1") is None
    assert await world.log.all_retained() == []


async def test_retained_messages_fill_a_bound(world: World) -> None:
    def publish(topic: str, size: int) -> asyncio.Future[Accepted]:
        return world.ingress.submit(mqtt(topic, b"x" * size, qos=0, retain=True))

    await publish("a", 400)
    limit = 2 * world.hub.retained.size
    world.ingress.limits = msgspec.structs.replace(world.ingress.limits, retained_bytes=limit)
    await publish("b", 400)
    with pytest.raises(QuotaExceeded) as caught:
        publish("c", 400)
    assert caught.value.details == {"limit": limit, "size": 3 * limit // 2}
    await publish("a", 300)  # takes the place of another
    await publish("b", 0)
    await publish("c", 400)
    assert sorted(record.event.topic for record in world.hub.retained.matching("#", now=0)) == ["a", "c"]
    assert world.hub.retained.size == sum(record.event.size for record in world.hub.retained.matching("#", now=0))
    await world.ingress.submit(mqtt("d", b"x" * 900, qos=0))  # what is not retained goes on


async def test_the_id_of_an_event_elsewhere_tells_nothing_about_it(world: World) -> None:
    await world.ingress.submit(rest(topic="crm/leads/1/updated", id="x"))
    answer = await world.ingress.submit(rest(topic="crm/leads/2/updated", id="x"))
    assert (answer.topic, answer.position, answer.duplicate) == ("crm/leads/2/updated", None, True)


@pytest.mark.parametrize(
    "name", ["gapless:revoked", "gapless:unauthorized", "gapless.position", "connect", "disconnect", "connect_error"]
)
async def test_nobody_speaks_as_the_gateway(world: World, name: str) -> None:
    """Outside the map the publisher says the type, by which Socket.IO and server-sent events name the event."""
    payload = json.dumps({"type": name, "data": {"rooms": ["lead:1"]}}).encode()
    for publication in (rest(type=name, topic="other/1", data=1), mqtt("other/1", payload, qos=1)):
        assert (await world.ingress.submit(publication)).type == "message"
    assert (await world.ingress.submit(rest(type="my:" + name, topic="other/1"))).type == "my:" + name
