"""What is kept in memory of retained messages and of encodings."""

from __future__ import annotations

import asyncio

import pytest

from gapless.event import Record
from gapless.hub import RetainedMessages
from gapless.mqtt import Properties, ReasonCode, Subscribe, SubscriptionRequest
from gapless.transports.mqtt.forms import MOST_FORMS
from tests.mqtt_edge.support import Client, running_edge


@pytest.mark.parametrize("filter_", ["a", "+", "#"])
async def test_an_expired_retained_message_is_forgotten_where_it_is_met(filter_: str) -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port)
        await phone.publish("a", b"short", retain=True, properties=Properties(message_expiry_interval=10))
        await phone.publish("kept/b", b"long", retain=True)
        assert len(node.hub.retained) == 2
        node.clock.ahead = 11
        await phone.subscribe(filter_)
        if filter_ == "#":
            assert (await phone.receive()).payload == b"long"
        await phone.nothing_more()
        assert len(node.hub.retained) == 1


async def test_expired_retained_messages_that_nobody_asks_for_are_dropped_too() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port)
        for n, seconds in enumerate([10, 20, None]):
            await phone.publish(str(n), retain=True, properties=Properties(message_expiry_interval=seconds))
        now = int(node.clock() * 1000)
        retained: RetainedMessages = node.hub.retained
        for ahead, left in [(0, 3), (11_000, 2), (21_000, 1)]:
            retained.drop_expired(now + ahead)
            assert len(retained) == left


async def test_an_event_keeps_few_encodings_however_many_identifiers_there_are() -> None:
    async with running_edge() as node:
        phones = [(await Client.connect(node.port, f"c{n}"))[0] for n in range(3 * MOST_FORMS)]
        await asyncio.gather(*(phone.subscribe("a", identifier=n + 1) for n, phone in enumerate(phones)))
        await node.publish("a", "x", retain=True)
        for n, phone in enumerate(phones):
            packet = await phone.receive()
            assert packet.properties is not None
            assert packet.properties.subscription_identifiers == [n + 1]
        record = node.hub.retained.get("a")
        assert record is not None
        assert len(record.forms) <= MOST_FORMS


async def test_a_filter_that_one_subscribe_names_often_brings_its_retained_messages_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_edge() as node:
        for n in range(3):
            await node.publish(f"a/{n}", n, retain=True)
        looked: list[str] = []
        matching = RetainedMessages.matching

        def count(self: RetainedMessages, pattern: str, *, now: int) -> list[Record]:
            looked.append(pattern)
            return matching(self, pattern, now=now)

        monkeypatch.setattr(RetainedMessages, "matching", count)
        phone, _ = await Client.connect(node.port)
        suback = await phone.subscribe(*["a/+"] * 500, "a/1", *["a/+"] * 499)
        assert len(suback.reason_codes) == 1000
        assert looked == ["a/+", "a/1"]
        topics = [(await phone.receive()).topic for _ in range(4)]
        assert sorted(topics) == ["a/0", "a/1", "a/1", "a/2"]
        await phone.nothing_more()


async def test_a_subscribe_that_names_more_filters_than_a_session_may_have_is_refused() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port)
        phone.send(Subscribe(1, [SubscriptionRequest(f"a/{n}") for n in range(1001)]))
        await phone.expect_closed(ReasonCode.QUOTA_EXCEEDED)
