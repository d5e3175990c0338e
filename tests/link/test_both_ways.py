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
