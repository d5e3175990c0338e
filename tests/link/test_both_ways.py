"""Events to and from a real Mosquitto, at every QoS, in both versions of MQTT."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from gapless.testing import Broker, BrokerConfig, run_broker
from tests.link.support import options, side, stock

pytestmark = pytest.mark.needs_mosquitto


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with run_broker(BrokerConfig(max_queued_messages=0, websocket=True)) as running:
        yield running


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_message_of_a_foreign_publisher_becomes_an_event(broker: Broker, version: str, qos: int) -> None:
    async with side(options(broker.url, protocol=version)) as gateway, stock(broker.port) as client:
        await client.publish("crm/leads/123/updated", '{"status":"won"}', qos=qos)
        (record,) = await gateway.heard.wait(1)
    event = record.event
    assert (event.type, event.topic, event.data) == ("lead:updated", "crm/leads/123/updated", b'{"status":"won"}')
    assert event.rooms == ("lead:123", "org:global")
    assert (event.origin.door, event.origin.client, event.qos) == ("link", "broker", qos)
    assert record.offset == 1


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [1, 2])
async def test_event_reaches_a_stock_subscriber(broker: Broker, version: str, qos: int) -> None:
    async with side(options(broker.url, protocol=version)) as gateway, stock(broker.port, "crm/#") as client:
        accepted = await gateway.submit({"topic": "crm/leads/9/created", "data": {"name": "Acme"}}, qos=qos)
        (message,) = await client.wait(1)
        await gateway.settled()
    assert (message.topic, message.qos, message.dup) == ("crm/leads/9/created", qos, False)
    assert message.json["id"] == accepted.id
    assert message.json["data"] == {"name": "Acme"}
    assert message.json["leadId"] == "9"
    assert message.json["position"] == accepted.position
    if version == "5":
        assert message.user["id"] == accepted.id
        assert message.user["type"] == "lead:created"
        assert message.user["position"] == accepted.position
        assert message.user["time"] == message.json["time"]
        assert message.content_type == "application/json"
    assert gateway.link.stats.acknowledged == 1


async def test_many_events_arrive_in_log_order(broker: Broker) -> None:
    # at QoS 1, as a subscriber too gets QoS 2 messages later than it is sent them
    async with side(options(broker.url)) as gateway, stock(broker.port, "crm/#", qos=1) as client:
        for n in range(500):
            await gateway.submit({"topic": f"crm/leads/{n % 7}/updated", "data": {"n": n}}, qos=1 + n % 2)
        messages = await client.wait(500)
    assert [m.n for m in messages] == list(range(500))
    assert json.loads(messages[0].payload)["type"] == "lead:updated"


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_retained_events_are_retained_on_the_broker(broker: Broker, version: str) -> None:
    async with side(options(broker.url, protocol=version)) as gateway:
        await gateway.submit({"topic": "crm/users/7/presence", "data": {"online": False}})
        await gateway.submit({"topic": "crm/users/7/presence", "data": {"online": True}})
        await gateway.submit({"topic": "crm/leads/7/updated", "data": {}})
        await gateway.settled()
        async with stock(broker.port, "crm/#") as late:
            await late.publish("crm/end", b"{}")
            messages = await late.wait(2)
    assert [(m.topic, m.retain) for m in messages] == [("crm/users/7/presence", True), ("crm/end", False)]
    assert messages[0].json["data"] == {"online": True}


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_retained_messages_of_the_broker_are_retained_here(broker: Broker, version: str) -> None:
    async with stock(broker.port) as client:
        await client.publish("crm/users/7/presence", b'{"online":true}', retain=True)
        async with side(options(broker.url, protocol=version)) as gateway:
            await gateway.heard.wait(1)
            held = gateway.hub.retained.get("crm/users/7/presence")
            assert held is not None
            assert held.event.data == b'{"online":true}'
            await client.publish("crm/users/7/presence", b"", retain=True)
            await gateway.heard.wait(2)
            assert gateway.hub.retained.get("crm/users/7/presence") is None


async def test_wildcards_of_our_own_filters(broker: Broker) -> None:
    async with side(options(broker.url, subscribe=("plant/+/temperature", "plant/1/#"))) as gateway:
        async with stock(broker.port) as client:
            for topic in ("plant/2/temperature", "plant/2/pressure", "plant/1/pressure/high", "plant/1"):
                await client.publish(topic, b"1")
        await gateway.heard.wait(3)
        topics = [record.event.topic for record in gateway.heard.records]
    assert topics == ["plant/2/temperature", "plant/1/pressure/high", "plant/1"]


async def test_overlapping_filters_give_one_event(broker: Broker) -> None:
    """Mosquitto sends one copy; for brokers that send one each, an id makes them one event."""
    async with side(options(broker.url, subscribe=("crm/#", "crm/leads/+/updated"))) as gateway:
        async with stock(broker.port) as client:
            await client.publish("crm/leads/1/updated", b'{"id":"a","data":1}')
            await client.publish("crm/leads/2/updated", b'{"id":"b","data":2}')
        await gateway.heard.wait(2)
    assert [record.event.id for record in gateway.heard.records] == ["a", "b"]
