"""MQTT over WebSocket, at /mqtt on the HTTP port."""

from __future__ import annotations

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from gapless.mqtt import (
    Connack,
    Connect,
    Decoder,
    Packet,
    Pingreq,
    Pingresp,
    ProtocolVersion,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    encode,
)
from tests.mqtt_conformance.desk import Desk
from tests.mqtt_conformance.tags import shows

pytestmark = pytest.mark.asyncio(loop_scope="module")


def opening(desk: Desk, *offers: str) -> open_websocket:
    url = desk.gateway.http_url.replace("http", "ws", 1) + "/mqtt"
    return open_websocket(url, subprotocols=[Subprotocol(offer) for offer in offers] or None)


async def packets(websocket: ClientConnection, decoder: Decoder, count: int) -> list[Packet]:
    got: list[Packet] = []
    while len(got) < count:
        data = await websocket.recv()
        assert isinstance(data, bytes)
        got += decoder.feed(data)
    return got


@shows("6.0.0-4", "6.0.0-4")
async def test_the_server_selects_mqtt(desk: Desk, version: ProtocolVersion) -> None:
    async with opening(desk, "other", "mqtt") as websocket:
        assert websocket.subprotocol == "mqtt"
        await websocket.send(encode(Connect(desk.id("c"), version), version))
        (connack,) = await packets(websocket, Decoder("client", version=version), 1)
        assert isinstance(connack, Connack)


@shows("6.0.0-3", "6.0.0-3")
@pytest.mark.parametrize("offers", [(), ("other",)])
async def test_without_the_offer_there_is_no_connection(
    desk: Desk, version: ProtocolVersion, offers: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidHandshake):
        async with opening(desk, *offers):
            pass


@shows("6.0.0-1", "6.0.0-1")
@pytest.mark.parametrize("connected", [False, True])
async def test_a_text_frame_closes_the_connection(desk: Desk, version: ProtocolVersion, connected: bool) -> None:
    async with opening(desk, "mqtt") as websocket:
        if connected:
            await websocket.send(encode(Connect(desk.id("c"), version), version))
            await websocket.recv()
        await websocket.send("text")
        with pytest.raises(ConnectionClosed):
            while True:
                await websocket.recv()
    if connected:
        await desk.left()


@shows("6.0.0-2", "6.0.0-2")
async def test_frames_need_not_be_packets(desk: Desk, version: ProtocolVersion) -> None:
    stream = b"".join(
        encode(packet, version)
        for packet in (
            Connect(desk.id("c"), version),
            Subscribe(1, [SubscriptionRequest(desk.topic("a"), 0)]),
            Publish(desk.topic("a"), b"1"),
            Publish(desk.topic("a"), b"2"),
            Pingreq(),
        )
    )
    for size in (1, 7, len(stream)):
        async with opening(desk, "mqtt") as websocket:
            for start in range(0, len(stream), size):
                await websocket.send(stream[start : start + size])
            got = await packets(websocket, Decoder("client", version=version), 5)
            assert sorted(type(packet).__name__ for packet in got) == sorted(
                kind.__name__ for kind in (Connack, Suback, Publish, Publish, Pingresp)
            )
            assert [packet.payload for packet in got if isinstance(packet, Publish)] == [b"1", b"2"]
