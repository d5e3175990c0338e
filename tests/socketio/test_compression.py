"""WebSocket compression (RFC 7692): an event compressed once for all who negotiated it."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from gapless.gateway import Gateway
from gapless.transports.raw_websocket import BINARY, TEXT, deflate, frame
from gapless.transports.socketio.outgoing import WORTH_DEFLATING, EncodedMessage
from tests.socketio.conftest import SETTINGS, js_client

COMPRESSING = msgspec.structs.replace(SETTINGS, http=msgspec.structs.replace(SETTINGS.http, compression=True))
LONG = "the same words again, " * 40


@asynccontextmanager
async def client(gateway: Gateway, *, offer: bool = True, **parameters: Any) -> AsyncIterator[ClientConnection]:
    """A WebSocket that hears `lead:1`."""
    url = f"ws{gateway.http_url.removeprefix('http')}/socket.io/?EIO=4&transport=websocket"
    extensions = [ClientPerMessageDeflateFactory(**parameters)] if offer else None
    async with connect(url, compression=None, extensions=extensions) as websocket:
        await websocket.recv()
        for packet in ("40", '421["subscribe",{"rooms":["lead:1"]}]'):
            await websocket.send(packet)
            await websocket.recv()
        yield websocket


def only(gateway: Gateway) -> Any:
    """The one client that is connected."""
    (connected,) = gateway.socketio._clients.values()
    return connected


async def heard(websocket: ClientConnection) -> Any:
    """The data of the next event."""
    return json.loads(str(await websocket.recv())[2:])[1]


async def test_an_event_is_compressed_for_who_offers_it() -> None:
    async with Gateway(COMPRESSING) as gateway, client(gateway) as websocket:
        assert only(gateway).queue._deflates
        assert [extension.name for extension in websocket.protocol.extensions] == ["permessage-deflate"]
        await gateway.publish(type="lead:updated", data={"leadId": "1", "note": LONG})
        assert (await heard(websocket))["note"] == LONG
        for n in range(3):  # short ones, and one in between that is long
            await gateway.publish(type="lead:updated", data={"leadId": "1", "n": n, "note": LONG * (n % 2)})
        assert [(await heard(websocket))["n"] for _ in range(3)] == [0, 1, 2]
        await websocket.send('422["publish",{"topic":"crm/leads/1/updated","data":{"n":3,"note":"' + LONG + '"}}]')
        packets = [str(await websocket.recv()) for _ in range(2)]
        assert sorted(packet[:3] for packet in packets) == ["42[", "432"]
        assert gateway.log.head == 5


@pytest.mark.parametrize("parameters", [{"server_max_window_bits": 10}, {"offer": False}], ids=str)
async def test_who_cannot_take_it_gets_the_event_as_it_is(parameters: dict[str, Any]) -> None:
    async with Gateway(COMPRESSING) as gateway, client(gateway, **parameters) as websocket:
        assert not only(gateway).queue._deflates
        await gateway.publish(type="lead:updated", data={"leadId": "1", "note": LONG})
        assert (await heard(websocket))["note"] == LONG


async def test_it_is_off_unless_it_is_asked_for(gateway: Gateway) -> None:
    async with client(gateway) as websocket:
        assert not websocket.protocol.extensions
        assert not only(gateway).queue._deflates


@pytest.mark.needs_node
async def test_the_stock_client_understands_it(js: Path) -> None:
    async with Gateway(COMPRESSING) as gateway, js_client(js) as stock:
        await stock.connect(gateway.http_url, transports=["websocket"], perMessageDeflate={})
        await stock.request("subscribe", {"rooms": ["lead:1"]})
        assert only(gateway).queue._deflates
        for n in range(3):
            await gateway.publish(type="lead:updated", data={"leadId": "1", "n": n, "note": LONG})
        assert await stock.numbers(3) == [0, 1, 2]


def test_the_compressed_frames() -> None:
    text, attachment = b'42["note","' + LONG.encode() + b'"]', b"\x00" * 300
    tiny = b"42[1]"
    long, short = EncodedMessage.of(text, attachment), EncodedMessage.of(tiny)
    assert len(tiny) < WORTH_DEFLATING
    assert short.deflated == short.frames
    compressed = deflate(text)
    assert long.deflated == frame(compressed, TEXT | 0x40) + frame(attachment, BINARY)
    assert zlib.decompressobj(wbits=-15).decompress(compressed + b"\x00\x00\xff\xff") == text
    assert len(compressed) < len(text) / 5
    joined = EncodedMessage.joined([long, short, long])
    assert joined.deflated == long.deflated + short.frames + long.deflated
    assert joined.frames == long.frames + short.frames + long.frames
