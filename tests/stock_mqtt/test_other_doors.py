"""What stock MQTT clients publish reaches Socket.IO and Server-Sent Events, once each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import socketio

from gapless.gateway import Gateway
from tests.stock_mqtt.stock import WAIT, Kind, Message

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def socketio_events(gateway: Gateway, kind: Kind) -> AsyncIterator[asyncio.Queue[Any]]:
    """The data of what a Socket.IO client of the room gets."""
    events: asyncio.Queue[Any] = asyncio.Queue()
    client = socketio.AsyncClient()
    client.on("lead:updated", lambda data, *_: events.put_nowait(data))
    await client.connect(gateway.http_url)
    answer = await client.call("subscribe", {"rooms": [f"lead:stock{kind.number}"]})
    assert answer["ok"], answer
    yield events
    await client.disconnect()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_socketio(kind: Kind, socketio_events: asyncio.Queue[Any], qos: int) -> None:
    publisher = await kind.connect("pub")
    topic = f"crm/leads/stock{kind.number}/updated"
    await publisher.publish([Message(topic, json.dumps({"n": n}).encode(), qos) for n in range(5)])
    async with asyncio.timeout(WAIT):
        got = [(await socketio_events.get())["n"] for _ in range(5)]
    assert got == [0, 1, 2, 3, 4]
    assert socketio_events.empty()


async def test_server_sent_events(gateway: Gateway, kind: Kind) -> None:
    publisher = await kind.connect("pub")
    topic = f"crm/leads/stock{kind.number}/updated"
    got: list[int] = []
    async with asyncio.timeout(WAIT), httpx.AsyncClient(base_url=gateway.http_url) as http:
        async with http.stream("GET", "/api/stream", params={"rooms": f"lead:stock{kind.number}"}) as stream:
            assert stream.status_code == 200
            await publisher.publish([Message(topic, json.dumps({"n": n}).encode(), 1) for n in range(5)])
            async for line in stream.aiter_lines():
                if line.startswith("data:") and '"n"' in line:
                    got.append(json.loads(line.removeprefix("data:"))["data"]["n"])
                if len(got) == 5:
                    break
    assert got == [0, 1, 2, 3, 4]
