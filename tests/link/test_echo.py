"""What we published and what comes back is never delivered again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gapless.eventlog import Retention
from gapless.eventlog.memory import MemoryLog
from gapless.eventlog.sqlite import SqliteLog
from gapless.testing import BrokerConfig, run_broker
from tests.link.support import Side, options, side, stock

pytestmark = pytest.mark.needs_mosquitto

KEEPING = BrokerConfig(max_queued_messages=0, save_every_change=True)
END = "crm/leads/end/updated"


async def heard_until_end(gateway: Side, broker_port: int) -> list[str]:
    """Topics of what was delivered, after a foreign message that came behind everything else."""
    before = len(gateway.heard.records)
    async with stock(broker_port) as client:
        await client.publish(END, b"{}")
    await gateway.heard.wait(before + 1)
    while gateway.heard.records[-1].event.topic != END:
        await gateway.heard.wait(len(gateway.heard.records) + 1)
    return [record.event.topic for record in gateway.heard.records if record.event.topic != END]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_own_events_do_not_come_back(version: str) -> None:
    async with run_broker() as broker, side(options(broker.url, protocol=version)) as gateway:
        for qos in (1, 2):
            await gateway.submit({"topic": f"crm/leads/{qos}/updated", "data": {}}, qos=qos)
            await gateway.submit_mqtt(f"crm/leads/{qos}/assigned", b"\xff\x00raw", qos=qos)
            await gateway.submit({"topic": f"crm/notes/{qos}/collaboration", "data_base64": "AAEC"}, qos=qos)
        await gateway.settled()
        topics = await heard_until_end(gateway, broker.port)
        assert len(topics) == len(set(topics)) == 6
        if version == "3.1.1":  # no No Local: they came, and the log knew them
            assert gateway.link.stats.received >= 6
            assert gateway.link.stats.duplicates == 6


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_own_ephemeral_events_do_not_come_back(version: str) -> None:
    async with run_broker() as broker, stock(broker.port, "crm/#") as client:
        async with side(options(broker.url, protocol=version)) as gateway:
            await gateway.submit({"topic": "crm/notes/1/collaboration", "data": {"kind": "awareness"}})
            await gateway.submit({"topic": "crm/notes/1/collaboration", "data_base64": "AQID"})
            messages = await client.wait(2)
            assert [m.qos for m in messages] == [0, 0]
            topics = await heard_until_end(gateway, broker.port)
            assert len(topics) == 2
            assert gateway.link.stats.ephemeral == 2


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_retained_messages_repeated_at_each_subscribe_are_not_news(tmp_path: Path, version: str) -> None:
    """Ours and foreign ones, with and without id, over restarts of gateway and broker."""
    presence = "crm/users/{}/presence"

    def make() -> Side:
        return Side(options(broker.url, protocol=version), log=SqliteLog(tmp_path / "log.db"))

    async with run_broker(KEEPING) as broker, stock(broker.port) as client:
        gateway = make()
        await gateway.start()
        await gateway.submit({"topic": presence.format("ours"), "data": {"online": True}})
        await gateway.submit_mqtt(presence.format("phone"), b"online", retain=True)
        await gateway.settled()
        await client.publish(presence.format("bare"), b"online", retain=True)
        await client.publish(presence.format("json"), b'{"online": true}', retain=True)
        await client.publish(presence.format("id"), json.dumps({"id": "x-1", "data": {}}), retain=True)
        topics = await heard_until_end(gateway, broker.port)
        assert sorted(topics) == sorted(presence.format(name) for name in ("ours", "phone", "bare", "json", "id"))

        await client.synced(broker.port)
        await broker.kill()
        await gateway.link.wait_disconnected()
        await broker.start()
        await gateway.connected()
        assert len(await heard_until_end(gateway, broker.port)) == 5
        await gateway.stop()

        gateway = make()  # the gateway anew
        await gateway.start()
        assert await heard_until_end(gateway, broker.port) == []
        await gateway.stop()

        gateway = make()  # under another client id: a new session, for which all retained messages come
        gateway.link.options = options(broker.url, protocol=version, client_id="another")
        await gateway.start()
        assert await heard_until_end(gateway, broker.port) == []
        assert gateway.link.stats.received >= 5
        await gateway.stop()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_own_retained_message_is_known_after_retention_removed_its_event(version: str) -> None:
    log = MemoryLog(retention=Retention(seconds=1, bytes=None), clock=lambda: 0.0)
    async with run_broker() as broker:
        async with side(options(broker.url, protocol=version), log=log) as gateway:
            await gateway.submit({"topic": "crm/users/7/presence", "data": {"online": True}})
            await gateway.submit({"topic": "crm/leads/7/updated", "data": {}}, retain=True)
            await gateway.settled()
            assert await log.trim(now=100.0) == (2, 0)
        changed = options(broker.url, protocol=version, client_id="another")
        async with side(changed, log=log) as gateway:
            gateway.hub.retained._by_topic.pop("crm/leads/7/updated")  # as if it was replaced long ago
            assert await heard_until_end(gateway, broker.port) == []
            assert gateway.link.stats.received >= 3


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_clearing_a_topic_does_not_come_back(version: str) -> None:
    topic = "crm/users/7/presence"
    async with run_broker() as broker, side(options(broker.url, protocol=version)) as gateway:
        await gateway.submit_mqtt(topic, b"online", retain=True)
        await gateway.submit_mqtt(topic, b"", retain=True)
        await gateway.settled()
        assert await heard_until_end(gateway, broker.port) == [topic, topic]
        async with stock(broker.port) as client:  # nothing is retained any more
            await client.subscribe("crm/users/+/presence")
            await client.publish("crm/users/8/presence", b"1")
            assert [m.topic for m in await client.wait(1)] == ["crm/users/8/presence"]
            # and a foreign clearing of the same topic is heard
            await client.publish(topic, b"", retain=True)
        topics = await heard_until_end(gateway, broker.port)
        assert topics == [topic, topic, "crm/users/8/presence", topic]


async def test_old_retained_value_does_not_replace_a_newer_one_that_is_on_its_way() -> None:
    """Made here while the broker was away: the broker repeats its old value before it hears of it."""
    topic = "crm/users/7/presence"
    log = MemoryLog()
    async with run_broker(KEEPING) as broker, stock(broker.port) as client:
        async with side(options(broker.url), log=log) as gateway:
            await client.publish(topic, b'{"old":1}', retain=True)
            await gateway.heard.wait(1)
        away = Side(options("mqtt://127.0.0.1:9"), log=log)
        await away.start(connected=False)
        await away.submit({"topic": topic, "data": {"new": 1}})
        await away.stop()
        async with side(options(broker.url, client_id="another"), log=log) as gateway:
            assert await heard_until_end(gateway, broker.port) == []
            held = gateway.hub.retained.get(topic)
            assert held is not None
            assert held.event.data == b'{"new":1}'


async def test_events_of_the_broker_are_not_published_to_it_again() -> None:
    async with run_broker() as broker, stock(broker.port, "crm/#") as client:
        async with side(options(broker.url)) as gateway:
            await client.publish("crm/leads/1/updated", b'{"n":1}')
            await gateway.heard.wait(1)
            await gateway.publish(1, start=2)
            await gateway.settled()
        messages = await client.wait(2)
    assert [m.n for m in messages] == [1, 2]
    assert gateway.link.stats.skipped == 1


async def test_shared_subscription_has_no_no_local_and_needs_none() -> None:
    async with run_broker() as broker, side(options(broker.url, subscribe=("$share/g/crm/#",))) as gateway:
        await gateway.publish(3)
        await gateway.settled()
        assert len(await heard_until_end(gateway, broker.port)) == 3
        assert gateway.link.stats.duplicates == 3
