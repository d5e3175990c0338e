"""The policy at the Socket.IO door, as the stock JavaScript client meets it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gapless.gateway import Gateway
from tests.gates import Clock, TableGate
from tests.socketio.conftest import SETTINGS, JsClient, js_client

ANA = {"token": "ana"}
TOPIC = "crm/leads/1/updated"


@pytest.fixture
async def gate() -> TableGate:
    gate = TableGate(Clock())
    gate.hears["ana"] |= {"lead:1", "lead:2", "org:global"}
    gate.says["ana"].add(TOPIC)
    return gate


@pytest.fixture
async def gateway(gate: TableGate) -> AsyncIterator[Gateway]:
    async with Gateway(SETTINGS, gate=gate) as gateway:
        yield gateway


@pytest.fixture
async def ana(gateway: Gateway, js: Path) -> AsyncIterator[JsClient]:
    async with js_client(js) as client:
        await client.connect(gateway.http_url, auth=ANA, transports=["websocket"])
        assert (await client.request("subscribe", {"rooms": ["lead:1", "lead:2"]}))["ok"]
        yield client


async def publish(gateway: Gateway, lead: int, n: int) -> None:
    await gateway.publish(type="lead:updated", data={"leadId": str(lead), "n": n})


def code(answer: dict[str, Any]) -> str:
    assert answer["ok"] is False
    found: str = answer["error"]["code"]
    return found


async def test_what_is_not_allowed_is_answered_alike(gateway: Gateway, gate: TableGate, ana: JsClient) -> None:
    assert code(await ana.request("subscribe", {"rooms": ["lead:1", "lead:3"]})) == "forbidden"
    assert code(await ana.request("lead:subscribe", {"leadId": "3"})) == "forbidden"
    assert code(await ana.request("publish", {"topic": "crm/leads/3/updated"})) == "forbidden"
    assert code(await ana.request("publish", {"type": "lead:updated", "data": {"leadId": "3"}})) == "forbidden"
    assert (await ana.request("publish", {"topic": TOPIC, "userId": "boss", "data": {"n": 0}}))["ok"]
    _, _, meta, _ = await ana.event()
    assert meta["userId"] == "ana"
    assert gateway.log.head == 1


async def test_the_applications_decision_keeps_the_order_of_requests(gate: TableGate, ana: JsClient) -> None:
    gate.asks = {"crm/leads/2/updated": True}
    gate.may_answer.clear()
    documents = [{"topic": "crm/leads/2/updated", "data": {"n": 0}}, {"topic": TOPIC, "data": {"n": 1}}]
    for tag, document in enumerate(documents, 100):
        await ana.script.send({"do": "emit", "event": "publish", "args": [document], "tag": tag})
    await gate.asking.wait()
    assert not (await ana.request("nothing", {}))["ok"]  # by now the second publish has come, too
    gate.may_answer.set()
    assert await ana.numbers(2) == [0, 1]


async def test_a_client_is_told_why_its_access_ended_and_goes_on_with_a_fresh_token(
    gateway: Gateway, gate: TableGate, ana: JsClient
) -> None:
    await publish(gateway, 1, 0)
    assert await ana.numbers(1) == [0]
    gate.revoke("ana")
    name, reason = await ana.event()
    assert (name, reason["code"], reason["reason"]) == ("gapless:unauthorized", "unauthorized", "revoked")
    assert (await ana.next("disconnect"))["reason"] == "io server disconnect"
    assert len(gate.leases) == gateway.socketio.connections == 0
    await publish(gateway, 1, 1)
    await ana.script.send({"do": "connect-again", "auth": {"token": "bad"}})
    assert (await ana.next("connect_error"))["data"]["code"] == "unauthorized"
    await ana.script.send({"do": "connect-again", "auth": ANA})
    assert (await ana.next("connect"))["recovered"] is True
    await publish(gateway, 2, 2)
    assert await ana.numbers(2) == [1, 2]


async def test_a_fresh_token_on_a_live_connection_keeps_its_place(
    gateway: Gateway, gate: TableGate, ana: JsClient
) -> None:
    await publish(gateway, 1, 0)
    answer = await ana.request("authenticate", {"token": "ana@2000"})
    assert answer == {"ok": True, "expires": "1970-01-01T00:33:20.000Z"}
    await publish(gateway, 1, 1)
    assert code(await ana.request("authenticate", {"token": "bob"})) == "forbidden"
    assert code(await ana.request("authenticate", {"token": "bad"})) == "unauthorized"
    assert code(await ana.request("authenticate", {})) == "invalid_request"
    await publish(gateway, 2, 2)
    assert await ana.numbers(3) == [0, 1, 2]
    gate.leases._clock.now = 2000.0  # type: ignore[attr-defined]
    gate.leases.expire()
    assert (await ana.event())[1]["reason"] == "expired"


async def test_a_room_is_lost_with_the_right_to_it(gateway: Gateway, gate: TableGate, ana: JsClient) -> None:
    gate.take("ana", "lead:1")
    assert await ana.event() == ["gapless:revoked", {"rooms": ["lead:1"]}]
    await publish(gateway, 1, 0)
    await publish(gateway, 2, 1)
    assert await ana.numbers(1) == [1]
    await ana.do("drop")
    await ana.next("connect")
    await publish(gateway, 1, 2)
    await publish(gateway, 2, 3)
    assert await ana.numbers(1) == [3]


async def test_what_was_missed_in_a_room_that_is_no_longer_allowed_is_not_replayed(
    gateway: Gateway, gate: TableGate, ana: JsClient
) -> None:
    await publish(gateway, 2, 0)
    assert await ana.numbers(1) == [0]
    gate.revoke("ana")
    await ana.next("disconnect")
    await publish(gateway, 1, 1)
    await publish(gateway, 2, 2)
    gate.hears["ana"].remove("lead:1")
    await ana.script.send({"do": "connect-again"})
    assert (await ana.next("connect"))["recovered"] is True
    await ana.event()  # gapless:unauthorized, of before
    assert await ana.event() == ["gapless:revoked", {"rooms": ["lead:1"]}]
    assert await ana.numbers(1) == [2]


async def test_a_client_waits_while_the_application_decides_about_its_rooms_again(
    gateway: Gateway, gate: TableGate, ana: JsClient
) -> None:
    gate.asks = {"lead:1": False, "lead:2": True}
    gate.hears["ana"].clear()
    gate.may_answer.clear()
    gate.leases.change(lambda _: True)
    await gate.asking.wait()
    await publish(gateway, 1, 0)
    await publish(gateway, 2, 1)
    gate.may_answer.set()
    assert await ana.event() == ["gapless:revoked", {"rooms": ["lead:1"]}]
    assert await ana.numbers(1) == [1]


async def test_what_waits_for_a_poll_goes_with_the_right_to_hear_it(
    gateway: Gateway, gate: TableGate, js: Path
) -> None:
    async with js_client(js) as ana:
        await ana.connect(gateway.http_url, auth=ANA, transports=["polling"])
        await ana.request("subscribe", {"rooms": ["lead:1", "lead:2"]})
        (client,) = gateway.socketio._clients.values()

        class TakeAway:
            """In the step in which the event is put before the client's next poll."""

            def flush(self) -> None:
                assert client.queue.held
                gateway.hub._flushes.remove(self.flush)
                gate.take("ana", "lead:1")

        gateway.hub.after_each_batch(TakeAway().flush)
        await publish(gateway, 1, 0)
        assert (await ana.next("connect"))["recovered"] is True
        await publish(gateway, 2, 1)
        assert await ana.event() == ["gapless:revoked", {"rooms": ["lead:1"]}]
        assert await ana.numbers(1) == [1]


async def test_access_that_ends_while_a_client_connects_is_noticed(
    gateway: Gateway, gate: TableGate, ana: JsClient
) -> None:
    gate.asks = {"lead:1": True}
    gate.may_answer.clear()
    await ana.do("drop")
    await ana.next("disconnect")
    await gate.asking.wait()
    gate.revoke("ana")
    gate.may_answer.set()
    assert (await ana.next("connect_error"))["data"]["code"] == "unauthorized"
    assert len(gate.leases) == gateway.socketio.connections == 0
