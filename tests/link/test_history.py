"""Clients of the broker ask for what they missed, and are answered where only they listen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gapless.auth import DevelopmentGate, Gate
from gapless.eventlog import Retention
from gapless.eventlog.memory import MemoryLog
from gapless.mqtt import Properties, Puback, Publish
from gapless.testing import run_broker
from tests.gates import TableGate
from tests.link.scripted import Session, scripted
from tests.link.support import Side, options, side, stock

ASK = "gapless/history"
REPLY = "gapless/replies/phone"


class Asker:
    """A client of the broker, as the link sees it."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def ask(self, payload: bytes, *, reply: str | None = REPLY, **fields: Any) -> None:
        properties = Properties(response_topic=reply, correlation_data=b"7")
        self.session.send(Publish(ASK, payload, properties=properties, **fields))

    async def answer(self) -> dict[str, Any]:
        packet = await self.session.get(Publish, lambda p: p.topic == REPLY)
        assert packet.properties is not None
        assert packet.properties.correlation_data == b"7"
        assert (packet.qos, packet.retain) == (0, False)
        found = json.loads(packet.payload)
        assert isinstance(found, dict)
        return found

    async def __call__(self, **request: Any) -> dict[str, Any]:
        self.ask(json.dumps(request).encode())
        return await self.answer()


@asynccontextmanager
async def asking(
    *, log: MemoryLog | None = None, gate: Gate | None = None, connack: Properties | None = None, **changes: Any
) -> AsyncIterator[tuple[Side, Asker]]:
    changed = {"history_topic": ASK} | changes
    async with scripted(connack=connack or Properties()) as broker:
        async with side(options(broker.url, **changed), log=log, gate=gate) as gateway:
            yield gateway, Asker(broker.sessions[-1])


def ns(answer: dict[str, Any]) -> list[int]:
    return [event["data"]["n"] for event in answer["events"]]


async def test_rooms_and_topics_after_a_position() -> None:
    async with asking() as (gateway, ask):
        now = await ask(rooms=["lead:1"], id=5)
        start = gateway.hub.position(0)
        assert now == {"position": start, "complete": True, "more": False, "events": [], "id": 5}
        await gateway.publish(6, topic="crm/leads/{n}/updated")
        await gateway.submit({"topic": "crm/activities/8/created", "data": {"n": 6, "leadId": 3}})
        head = gateway.hub.position()
        found = await ask(rooms=["lead:3", "lead:5"], after=start)
        assert ns(found) == [3, 5, 6]
        assert (found["position"], found["complete"], found["more"], found["id"]) == (head, True, False, None)
        assert found["events"][0]["rooms"] == ["lead:3", "org:global"]
        assert found["events"][0]["position"] == gateway.hub.position(4)
        assert ns(await ask(topics=["crm/leads/+/updated"], after=gateway.hub.position(4))) == [4, 5]
        assert gateway.link.stats.history_events == 5


async def test_answers_are_bounded_in_events_and_bytes() -> None:
    async with asking() as (gateway, ask):
        start = gateway.hub.position(0)
        for n in range(7):
            await gateway.submit({"topic": "crm/leads/1/updated", "data": {"n": n, "text": "x" * 60_000}})
        first = await ask(rooms=["lead:1"], after=start, limit=1)
        assert (ns(first), first["more"]) == ([0], True)
        found, position, more = [0], first["position"], True
        while more:
            answer = await ask(rooms=["lead:1"], after=position)
            assert len(json.dumps(answer)) < 140_000
            found += ns(answer)
            position, more = answer["position"], answer["more"]
        assert found == list(range(7))
        assert position == gateway.hub.position()


async def test_event_that_the_broker_has_no_room_for_is_a_hole() -> None:
    async with asking(connack=Properties(maximum_packet_size=10_000)) as (gateway, ask):
        start = gateway.hub.position(0)
        for n, size in enumerate((10, 9000, 10)):
            await gateway.submit({"topic": "crm/leads/1/updated", "data": {"n": n, "text": "x" * size}})
        answer = await ask(rooms=["lead:1"], after=start)
        assert (ns(answer), answer["complete"], answer["more"]) == ([0, 2], False, False)


async def test_answer_that_cannot_be_sent_is_not() -> None:
    async with asking(connack=Properties(maximum_packet_size=10_000)) as (gateway, ask):
        ask.ask(json.dumps({"rooms": ["lead:1"], "id": "x" * 10_000}).encode())
        assert (await ask(rooms=["lead:1"]))["id"] is None
        assert gateway.link.stats.history_dropped == 1


async def test_page_that_is_exactly_full_leaves_nothing_out() -> None:
    async with asking() as (gateway, ask):
        start = gateway.hub.position(0)
        await gateway.publish(4, topic="crm/leads/1/updated")
        first = await ask(rooms=["lead:1"], after=start, limit=2)
        assert (ns(first), first["more"]) == ([0, 1], True)
        second = await ask(rooms=["lead:1"], after=first["position"], limit=2)
        assert (ns(second), second["more"], second["position"]) == ([2, 3], False, gateway.hub.position())


async def test_what_the_log_no_longer_keeps_is_said() -> None:
    log = MemoryLog(retention=Retention(seconds=None, bytes=2000))
    async with asking(log=log) as (gateway, ask):
        start = gateway.hub.position(0)
        gateway.hub._recent._max_events = 1  # memory does not help
        await gateway.publish(30, topic="crm/leads/1/updated")
        removed, _ = await log.trim(now=0)
        answer = await ask(rooms=["lead:1"], after=start)
        assert (ns(answer), answer["complete"]) == (list(range(removed, 30)), False)
        assert ns(await ask(rooms=["lead:1"], after="start")) == list(range(removed, 30))
        other = await ask(rooms=["lead:1"], after="another:3")
        assert (other["events"], other["complete"], other["position"]) == ([], False, gateway.hub.position())


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"{", "invalid_payload"),
        (b'{"rooms":"lead:1"}', "invalid_payload"),
        (b'{"rooms":["' + b"x" * 70_000 + b'"]}', "payload_too_large"),
        (b"{}", "invalid_request"),
        (b'{"rooms":["lead:1"],"limit":0}', "invalid_request"),
        (b'{"rooms":["nonsense"]}', "unknown_room"),
        (b'{"topics":["a/#/b"]}', "invalid_topic"),
        (b'{"rooms":["lead:1"],"after":"x"}', "invalid_position"),
        (b'{"rooms":["lead:1"],"after":"EPOCH:99"}', "invalid_position"),
    ],
)
async def test_wrong_requests_are_answered_with_the_reason(request_: bytes, code: str) -> None:
    async with asking() as (gateway, ask):
        ask.ask(request_.replace(b"EPOCH", gateway.hub.epoch.encode()))
        assert (await ask.answer())["error"]["code"] == code
        assert gateway.link.stats.history_refused == 1
        assert (await ask(rooms=["lead:1"]))["complete"]


async def test_the_gate_is_asked() -> None:
    async with asking(gate=DevelopmentGate("secret")) as (_, ask):
        assert (await ask(rooms=["lead:1"]))["error"]["code"] == "unauthorized"
        assert (await ask(rooms=["lead:1"], token="secret"))["complete"]


async def test_who_is_shut_out_while_the_application_is_asked_gets_nothing() -> None:
    gate = TableGate()
    gate.asks = {"lead:1": True}
    gate.may_answer.clear()
    async with asking(gate=gate) as (_, ask):
        ask.ask(b'{"rooms": ["lead:1"], "token": "ana"}')
        await gate.asking.wait()
        gate.barred.add("ana")
        gate.may_answer.set()
        assert (await ask.answer())["error"]["code"] == "unauthorized"


@pytest.mark.parametrize(
    "topic", ["crm/leads/1/updated", ASK, "gapless/heartbeat", "gapless/replies/+", "$x", "", None]
)
async def test_nothing_is_published_but_where_answers_belong(topic: str | None) -> None:
    async with asking() as (gateway, ask):
        ask.ask(json.dumps({"rooms": ["lead:1"], "replyTo": topic}).encode(), reply=None)
        await ask(rooms=["lead:1"])
        assert gateway.link.stats.history_dropped == 1
        assert [p.topic for p in ask.session.packets if isinstance(p, Publish)] == [REPLY]


async def test_request_is_acknowledged_and_is_no_event() -> None:
    async with asking() as (gateway, ask):
        ask.ask(b'{"rooms":["lead:1"]}', qos=1, packet_id=9)
        await ask.answer()
        assert Puback(9) in ask.session.packets
        ask.ask(b'{"rooms":["lead:1"]}', retain=True)
        await ask(rooms=["lead:1"])
        assert gateway.link.stats.history_requests == 2
        assert gateway.hub.head == 0
        assert gateway.heard.records == []


async def test_too_many_requests_at_once_leave_the_oldest_unanswered() -> None:
    async with asking(history_rate=100_000) as (gateway, ask):
        for n in range(1500):
            ask.ask(b'{"rooms":["lead:1"],"id":%d}' % n)
        answered = -1
        while answered < 1499:
            answered = (await ask.answer())["id"]
        stats = gateway.link.stats
        assert stats.history_dropped + sum(isinstance(p, Publish) for p in ask.session.packets) == 1500


@pytest.mark.needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_stock_client_of_311_over_a_real_broker(version: str) -> None:
    async with run_broker() as broker, stock(broker.port, "gapless/replies/me/#", version=4) as client:
        async with side(options(broker.url, protocol=version, history_topic=ASK, subscribe=("#",))) as gateway:
            await gateway.publish(3, topic="crm/leads/1/updated")
            request = {
                "rooms": ["lead:1"],
                "after": gateway.hub.position(1),
                "replyTo": "gapless/replies/me/1",
                "id": "x",
            }
            await client.publish(ASK, json.dumps(request))
            (message,) = await client.wait(1)
            assert ns(message.json) == [1, 2]
            assert message.json["id"] == "x"
            await gateway.settled()
            assert gateway.hub.head == 3


@pytest.mark.needs_mosquitto
async def test_requests_that_came_while_the_gateway_was_away_are_answered() -> None:
    log = MemoryLog()
    async with run_broker() as broker, stock(broker.port, "gapless/replies/#") as client:
        async with side(options(broker.url, history_topic=ASK), log=log) as gateway:
            await gateway.publish(2, topic="crm/leads/1/updated")
        await client.publish(ASK, '{"rooms":["lead:1"],"after":"start","replyTo":"gapless/replies/1"}')
        async with side(options(broker.url, history_topic=ASK), log=log):
            async with asyncio.timeout(10):
                assert ns((await client.wait(1))[0].json) == [0, 1]
