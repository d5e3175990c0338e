"""`online`, `offline` and the last will on the broker."""

from __future__ import annotations

import pytest

from gapless.testing import Link, run_broker
from tests.link.support import Stock, options, side, stock

pytestmark = pytest.mark.needs_mosquitto

TOPIC = "crm/system/backend/status"


def statuses(client: Stock) -> list[str]:
    return [message.json["data"]["status"] for message in client.messages]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_online_offline_and_last_will(version: str) -> None:
    async with run_broker() as broker, Link.to(broker.url) as network, stock(broker.port, TOPIC) as client:
        async with side(options(network.url("mqtt"), protocol=version, status_topic=TOPIC)) as gateway:
            await client.wait(1)
            await network.cut()
            await client.wait(3)
            assert statuses(client) == ["online", "offline", "online"]
            assert "reason" in client.messages[1].json["data"]
        await client.wait(4)
        assert statuses(client) == ["online", "offline", "online", "offline"]
        assert "reason" not in client.messages[3].json["data"]
        message = client.messages[0]
        assert message.json["type"] == "system:status"
        assert message.json["topic"] == TOPIC
        assert message.json["data"]["clientId"] == gateway.link.client_id
        assert set(message.json) == {"id", "type", "topic", "data", "time", "userId"}
        async with stock(broker.port, TOPIC) as late:
            assert (await late.wait(1))[0].retain
            assert statuses(late) == ["offline"]
        assert gateway.heard.records == []  # not events of the log


async def test_status_of_another_gateway_is_an_event() -> None:
    async with run_broker() as broker, side(options(broker.url, status_topic=TOPIC)) as gateway:
        async with side(options(broker.url, status_topic=TOPIC, client_id="other")):
            pass
        await gateway.heard.wait(2)
        assert [document["status"] for document in gateway.heard.data] == ["online", "offline"]
        assert {record.event.type for record in gateway.heard.records} == {"system:status"}


async def test_no_status_topic() -> None:
    async with run_broker() as broker, stock(broker.port, "#") as client:
        async with side(options(broker.url, status_topic=None)) as gateway:
            await gateway.publish(1)
            await client.wait(1)
        await client.publish("end", b"")
        assert [m.topic for m in await client.wait(2)] == ["crm/leads/0/updated", "end"]
