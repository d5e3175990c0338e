"""Malformed WebSocket frames, Engine.IO and Socket.IO packets, on real connections to a whole gateway.

300 cases of frames at each of the two WebSocket doors and 300 of packets over each transport, the same in every run.
Each ends in an answer or a close; nothing is kept of it; and a healthy client gets every event meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gapless.gateway import Gateway
from gapless.mqtt import Connect, ProtocolVersion, Subscribe, SubscriptionRequest, encode
from gapless.transports.raw_websocket import LendingWebSocket
from tests.frames import BINARY, CLOSE, PING, PONG, TEXT, frame, split
from tests.security.rawsocketio import socketio_client
from tests.security.site import Wire, http, running, until, upgrade, wire

CASES = 300
drawn = settings(
    max_examples=CASES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
SOCKETIO, MQTT = ("/socket.io/?EIO=4&transport=websocket", ""), ("/mqtt", "mqtt")
V5 = ProtocolVersion.V5
CONNECT = encode(Connect("fuzz", V5), V5)
SUBSCRIBE = encode(Subscribe(1, [SubscriptionRequest("crm/leads/1/updated", 1)]), V5)

# --- what is sent

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)
NAMES = st.sampled_from(
    ["subscribe", "unsubscribe", "publish", "presence", "authenticate", "connect", "disconnect", "lead:subscribe", "x"]
)
FIELDS = st.sampled_from(
    ["rooms", "room", "after", "token", "topic", "type", "data", "id", "qos", "retain", "live", "leadId"]
)
REQUESTS = st.tuples(NAMES, st.dictionaries(FIELDS, JSON, max_size=4) | JSON).map(json.dumps)
"""Arguments of events, right and wrong."""
PACKETS = st.one_of(
    st.text(alphabet='0123456[]{}"-,:/\\a\x1e', max_size=40),
    st.builds("4{}{}{}{}".format, st.integers(0, 7), st.sampled_from(["", "/", "/x,", "1-", "99999-"]),
              st.sampled_from(["", "0", "7", "99999999999999999999"]), REQUESTS),
    st.builds("42{}{}".format, st.integers(0, 99), REQUESTS),
    st.builds("45{}-{}".format, st.integers(0, 12), REQUESTS),
    st.sampled_from(["2", "3", "5", "6", "1", "2probe", "b", "bAAAA", "41", "40"]),
    st.sampled_from(['40{"pid":1,"offset":{}}', '40{"token":[]}', "4" + "[" * 5000, "42" + "[" * 5000]),
)  # fmt: skip


def texts(door: tuple[str, str]) -> st.SearchStrategy[bytes]:
    return (
        PACKETS.map(str.encode) if door is SOCKETIO else st.sampled_from([CONNECT, SUBSCRIBE]) | st.binary(max_size=60)
    )


def frames(door: tuple[str, str]) -> st.SearchStrategy[bytes]:
    """Frames of any kind: reserved bits and opcodes, unmasked, in pieces, with lengths that lie, cut short."""
    any_frame = st.builds(
        frame,
        st.sampled_from([0, TEXT, BINARY, 3, 7, CLOSE, PING, PONG, 11, 15]),
        texts(door) | st.binary(max_size=130),
        fin=st.booleans(),
        reserved=st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
        masked=st.sampled_from([True, True, True, False]),
        length=st.sampled_from([-1, -1, -1, 0, 1, 125, 126, 65536, 2**31, 2**62]),
    )
    # A length that is told in more bytes than it needs, and one with the highest bit set.
    odd = st.sampled_from([b"\x82\xfe\x00\x01" + bytes(5), b"\x82\xff" + b"\xff" * 8, b"\x88\x81" + bytes(5)])
    return st.lists(any_frame | odd | st.binary(max_size=20), min_size=1, max_size=5).map(b"".join)


def cases(strategy: st.SearchStrategy[bytes]) -> list[bytes]:
    found: list[bytes] = []

    @drawn
    @given(strategy)
    def draw(data: bytes) -> None:
        found.append(data)

    draw()
    assert len(found) >= CASES * 0.9
    return found


# --- to whom


@asynccontextmanager
async def attacked(caplog: pytest.LogCaptureFixture) -> AsyncIterator[tuple[Gateway, Callable[[], Awaitable[None]]]]:
    """A gateway, and what lets its healthy client have one event more. No defect may be logged."""
    caplog.set_level(logging.ERROR)
    async with running() as gateway, socketio_client(gateway, "websocket", "ann") as healthy:
        await healthy.call("subscribe", {"rooms": ["note:healthy"]})
        sent = 0

        async def event() -> None:
            nonlocal sent
            await gateway.publish(topic="crm/notes/healthy/collaboration", data={"n": sent})
            sent += 1

        yield gateway, event
        await healthy.call("unsubscribe", {"rooms": ["nothing"]})
        assert [arguments[1]["n"] for arguments in healthy.events] == list(range(sent))
    assert not caplog.records, caplog.records[0].getMessage()


async def ends(connection: Wire) -> bytes:
    """What it is answered until it ends; it gets no more than what it sent, and its end."""
    connection.writer.write_eof()
    async with asyncio.timeout(20):
        return await connection.ended()


async def handshake(connection: Wire, door: tuple[str, str]) -> None:
    connection.send(upgrade(door[0], protocol=door[1]))
    status, _ = await connection.head()
    assert status == 101


@pytest.mark.parametrize("door", [SOCKETIO, MQTT], ids=["socketio", "mqtt"])
async def test_frames(door: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    found = cases(frames(door))
    async with attacked(caplog) as (gateway, event):
        for number, data in enumerate(found):
            async with wire(gateway.http_url) as connection:
                await handshake(connection, door)
                if number % 2:  # in the middle of a conversation
                    connection.send(frame(TEXT, b"40") if door is SOCKETIO else frame(BINARY, CONNECT))
                connection.send(data)
                await ends(connection)
            if number % 50 == 0:
                await event()
        await until(lambda: gateway.socketio.connections == 1 and not gateway.mqtt.connected)


REFUSED = [
    ("a reserved bit", frame(TEXT, b"3", reserved=1), 1002),
    ("a reserved opcode", frame(3, b""), 1002),
    ("no mask", frame(TEXT, b"3", masked=False), 1002),
    ("a control frame in pieces", frame(PING, b"", fin=False), 1002),
    ("a long control frame", frame(PING, b"x" * 126), 1002),
    ("a continuation of nothing", frame(0, b"3"), 1002),
    ("a message in the middle of another", frame(TEXT, b"3", fin=False) + frame(TEXT, b"3"), 1002),
    ("text that is not UTF-8", frame(TEXT, b"4\xff"), 1007),
    ("a giant frame, by its length", frame(BINARY, b"", length=2**40), 1009),
    (
        "a giant message, in pieces",
        frame(BINARY, bytes(60_000), fin=False) + frame(0, bytes(60_000), fin=False) * 400,
        1009,
    ),
    ("a close with a reserved code", frame(CLOSE, (1005).to_bytes(2, "big")), 1002),
]


@pytest.mark.parametrize("door", [SOCKETIO, MQTT], ids=["socketio", "mqtt"])
@pytest.mark.parametrize(("data", "code"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
async def test_each_is_told_why_it_is_closed(door: tuple[str, str], data: bytes, code: int) -> None:
    """RFC 6455 §7.4.1."""
    async with running() as gateway, wire(gateway.http_url) as connection:
        await handshake(connection, door)
        if door is SOCKETIO:
            await connection.reader.read(4096)  # OPEN
        connection.send(data)
        async with asyncio.timeout(20):
            answered, _ = split(await connection.ended())
        closes = [payload for opcode, payload in answered if opcode == CLOSE]
        assert [int.from_bytes(payload[:2], "big") for payload in closes] == [code]


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_packets(transport: str, caplog: pytest.LogCaptureFixture) -> None:
    found = cases(PACKETS.map(str.encode))
    async with attacked(caplog) as (gateway, event), http(gateway) as client:
        for number, data in enumerate(found):
            if transport == "websocket":
                async with wire(gateway.http_url) as connection:
                    await handshake(connection, SOCKETIO)
                    connection.send((frame(TEXT, b"40") if number % 2 else b"") + frame(TEXT, data))
                    await ends(connection)
            else:
                path = SOCKETIO[0].replace("websocket", "polling")
                sid = json.loads((await client.get(path)).text[1:])["sid"]
                if number % 2:
                    assert (await client.post(f"{path}&sid={sid}", content=b"40")).status_code == 200
                answer = await client.post(f"{path}&sid={sid}", content=data)
                assert answer.status_code in (200, 400), (data, answer.text)
                gone = await client.post(f"{path}&sid={sid}", content=b"1")  # CLOSE
                assert gone.status_code in (200, 400)
            if number % 50 == 0:
                await event()
        await until(lambda: gateway.socketio.connections == 1 and len(gateway.socketio.server.eio.sockets) == 1)


def server_side() -> LendingWebSocket:
    """The gateway's end of the one WebSocket that there is."""
    (found,) = [one for one in gc.get_objects() if isinstance(one, LendingWebSocket) and not one.transport.is_closing()]
    return found


@pytest.mark.parametrize("door", [SOCKETIO, MQTT], ids=["socketio", "mqtt"])
async def test_pieces_without_end_are_one_buffer(door: tuple[str, str]) -> None:
    """A message may have any number of pieces, and those may be empty."""
    async with running() as gateway, wire(gateway.http_url) as connection:
        await handshake(connection, door)
        connection.send(frame(BINARY, b"x", fin=False) + frame(0, b"", fin=False) * 2000 + frame(PING, b"there"))
        async with asyncio.timeout(30):
            await connection.reader.readuntil(b"there")
        frames = server_side().frames
        assert [bytes(piece) for piece in frames] == [b"x"]


@pytest.mark.parametrize("door", [SOCKETIO, MQTT], ids=["socketio", "mqtt"])
async def test_pongs_that_nobody_reads_are_bounded(door: tuple[str, str]) -> None:
    async with running() as gateway, wire(gateway.http_url) as connection:
        await handshake(connection, door)
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        server = server_side()
        server.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for _ in range(40):
            connection.send(frame(PING, b"x" * 125) * 1000)
            await connection.writer.drain()
        assert server.transport.get_write_buffer_size() < 512 << 10  # of 5 MB: the bound, and one read's worth
