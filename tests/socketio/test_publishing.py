"""The short way of a publication on a WebSocket: what takes it, what does not, and that nobody can tell them apart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from gapless.gateway import Gateway
from tests.gates import TableGate
from tests.socketio.conftest import SETTINGS

TOPIC = "crm/leads/1/updated"


@asynccontextmanager
async def client(gateway: Gateway, **auth: str) -> AsyncIterator[ClientConnection]:
    """A WebSocket in the main namespace."""
    address = gateway.http_url.removeprefix("http")
    url = f"ws{address}/socket.io/?EIO=4&transport=websocket"
    async with connect(url, compression=None) as websocket:
        await websocket.recv()
        await websocket.send(f"40{json.dumps(auth)}")
        assert str(await websocket.recv()).startswith("40{")
        yield websocket


@pytest.fixture
def shortened(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The packets that took the short way."""
    taken: list[str] = []
    at_once = gateway.socketio.server.at_once
    assert at_once is not None

    def noted(sid: str, packet: str) -> bool:
        if not at_once(sid, packet):
            return False
        taken.append(packet)
        return True

    monkeypatch.setattr(gateway.socketio.server, "at_once", noted)
    return taken


async def answer(websocket: ClientConnection) -> tuple[str, Any]:
    """The next packet: its head, and its payload."""
    text = str(await websocket.recv())
    start = text.index("[")
    return text[:start], json.loads(text[start:])


SHORT = {
    "plain": ('420["publish",{"topic":"%s","data":{"n":1}}]', {"n": 1}),
    "a large number": ('429999999999["publish",{"topic":"%s","data":{"n":1}}]', {"n": 1}),
    "leading zeros": ('42007["publish",{"topic":"%s","data":1}]', 1),
    "spaces after the name": ('425["publish", {"topic": "%s", "data": 1}]', 1),
    "more arguments": ('425["publish",{"topic":"%s","data":1},2,3]', 1),
}

LONG = {
    "spaces before the name": ('425[ "publish",{"topic":"%s","data":1}]', 1),
    "a number beyond ten digits": ('4212345678901234["publish",{"topic":"%s","data":1}]', 1),
    "half a surrogate": ('425["publish",{"topic":"%s","data":"\\ud83d"}]', None),
    "not a number": ('425["publish",{"topic":"%s","data":NaN}]', None),
    "perhaps too deep": ('425["publish",{"topic":"%s","data":' + "[" * 80 + "]" * 80 + "}]", None),
    "no object": ('425["publish","%s"]', None),
}


@pytest.mark.parametrize(("packet", "data"), SHORT.values(), ids=list(SHORT))
async def test_it_is_stored_and_acknowledged_by_its_number(
    gateway: Gateway, shortened: list[str], packet: str, data: object
) -> None:
    packet %= TOPIC
    number = packet[2 : packet.index("[")]
    async with client(gateway) as websocket:
        await websocket.send(packet)
        head, (said,) = await answer(websocket)
    assert head == f"43{int(number)}"
    assert said == {
        "ok": True,
        "id": said["id"],
        "topic": TOPIC,
        "type": "lead:updated",
        "position": f"{gateway.epoch}:1",
        "duplicate": False,
    }
    assert shortened == [packet[1:]]
    stored = await gateway.log.find(said["id"])
    assert stored is not None
    assert json.loads(stored.event.data) == data


@pytest.mark.parametrize(("packet", "data"), LONG.values(), ids=list(LONG))
async def test_what_is_unusual_takes_the_librarys_way(
    gateway: Gateway, shortened: list[str], packet: str, data: object
) -> None:
    packet %= TOPIC
    async with client(gateway) as websocket:
        await websocket.send(packet)
        head, (said,) = await answer(websocket)
        assert head == "43" + packet[2 : packet.index("[")]
        assert said["ok"] is (gateway.log.head == 1)
        assert gateway.log.head == 1 or said["error"]["code"] in ("invalid_request", "invalid_payload")
        assert not shortened
        await websocket.send('429["publish",{"topic":"crm/leads/2/updated","data":2}]')  # the connection goes on
        assert (await answer(websocket))[1][0]["ok"]
    assert len(shortened) == 1


async def test_a_publication_without_a_number_is_stored_and_not_acknowledged(
    gateway: Gateway, shortened: list[str]
) -> None:
    async with client(gateway) as websocket:
        await websocket.send('42["publish",{"topic":"crm/leads/1/updated","data":1}]')
        await websocket.send('427["publish",{"topic":"crm/leads/1/updated","data":2}]')
        head, (said,) = await answer(websocket)
    assert (head, said["position"], len(shortened)) == ("437", f"{gateway.epoch}:2", 2)


async def test_a_request_before_it_takes_effect_before_it(gateway: Gateway) -> None:
    """Also where both came in one read, and where the first is still to be begun by the library."""
    async with client(gateway) as websocket:
        for turn in range(20):
            room, topic = f"lead:{turn}", f"crm/leads/{turn}/updated"
            await websocket.send(f'421["subscribe",{{"rooms":["{room}"]}}]')
            await websocket.send(f'422["publish",{{"topic":"{topic}","data":{{"n":{turn}}}}}]')
            got = [await answer(websocket) for _ in range(3)]
            events = [payload[1]["n"] for head, payload in got if head == "42"]
            assert events == [turn]


async def test_an_attachment_that_is_due_is_not_passed_by(gateway: Gateway, shortened: list[str]) -> None:
    async with client(gateway) as websocket:
        packet = '451-1["publish",{"topic":"crm/leads/1/updated","data":{"_placeholder":true,"num":0}}]'
        await websocket.send(packet)
        await websocket.send(b"\x00\x01")
        assert (await answer(websocket))[1][0]["ok"]
        await websocket.send(packet)
        await websocket.send('422["publish",{"topic":"crm/leads/1/updated","data":2}]')  # breaks the protocol
        await websocket.wait_closed()
    assert (gateway.log.head, shortened) == (1, [])


async def test_what_is_refused_is_told_and_costs_as_much() -> None:
    gate = TableGate()
    gate.says["ana"] = {TOPIC}
    async with Gateway(SETTINGS, gate=gate) as gateway, client(gateway, token="ana") as websocket:
        connected = next(iter(gateway.socketio._clients.values()))
        spent: list[float] = []
        connected.visit = _Counting(spent)  # type: ignore[assignment]
        await websocket.send('421["publish",{"topic":"crm/leads/2/updated","data":1}]')
        head, (said,) = await answer(websocket)
        assert (head, said["error"]["code"]) == ("431", "forbidden")
        await websocket.send('422["publish",{"topic":"crm/leads/1/updated","data":1}]')
        assert (await answer(websocket))[1][0]["ok"]
        assert spent == [1, 1]
        gate.asks["crm/leads/3/updated"] = True
        await websocket.send('423["publish",{"topic":"crm/leads/3/updated","data":1}]')
        assert (await answer(websocket))[1][0]["ok"]
        assert spent == [1, 1, 1]  # it was tried the short way, and counted once


class _Counting:
    limited = True

    def __init__(self, spent: list[float]) -> None:
        self._spent = spent

    def check(self) -> None: ...

    def spend(self, requests: float, size: float = 0) -> float:
        self._spent.append(requests)
        return 0.0

    def hold(self, subscriptions: int, *, force: bool = False) -> None: ...

    def leave(self) -> None: ...
