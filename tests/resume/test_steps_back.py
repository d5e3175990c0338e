"""A Socket.IO client asks for history, and loses its connection with everything still on its way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gapless.config import Settings
from gapless.gateway import Gateway
from gapless.testing import Link
from tests.socketio.conftest import JsClient, js_client

pytestmark = pytest.mark.needs_node


async def publish(gateway: Gateway, lead: str, *numbers: int) -> None:
    for number in numbers:
        await gateway.publish(type="lead:updated", data={"leadId": lead, "n": number})


async def subscribe_unheard(gateway: Gateway, client: JsClient, room: str, after: str) -> None:
    """Subscribe where the answer, and what it brings, does not arrive."""
    request = {"rooms": [room], "after": after}
    await client.script.send({"do": "emit", "event": "subscribe", "args": [request], "tag": "unheard"})
    (session,) = gateway.socketio._clients.values()
    while room not in session.subscriptions.since or not session.live:
        await asyncio.sleep(0)


@pytest.mark.parametrize("heard", [0, 5, 10])
async def test_history_that_got_lost_comes_again_and_nothing_else_does(js: Path, heard: int) -> None:
    async with (
        Gateway(Settings(port=0, mqtt_port=None, data=None)) as gateway,
        Link.to(gateway.http_url) as link,
        js_client(js) as client,
    ):
        await publish(gateway, "2", *range(10))
        await client.connect(link.url("http"), transports=["websocket"])
        await client.request("subscribe", {"rooms": ["lead:1"]})
        await publish(gateway, "1", *range(10, 10 + heard))
        assert await client.numbers(heard) == list(range(10, 10 + heard))
        link.blackhole("to_client")
        await publish(gateway, "1", *range(10 + heard, 25))
        await subscribe_unheard(gateway, client, "lead:2", f"{gateway.epoch}:3")
        link.refuse()
        await link.cut()
        await client.next("disconnect")
        link.restore()
        assert (await client.next("connect"))["recovered"] is True
        await publish(gateway, "2", 25)
        expected = [*range(3, 10), *range(10 + heard, 26)]
        assert await client.numbers(len(expected)) == expected
