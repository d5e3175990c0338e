"""Readers that stall while thousands of events are published: bounded here, whole once they read again."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket

from gapless.config import Settings
from gapless.gateway import Gateway

EVENTS, TEXT = 2000, "x" * 4000  # 8 MB: more than the buffers of a socket hold
READERS = 4

SLACK = 10_000
"""Bytes of one event more than a bound, and of headers."""

BOUND = 2 * (64 << 10) + SLACK
"""Bytes in a connection's transport: its high-water mark, and one write; in a stream: a write, and what follows."""


SETTINGS = Settings(port=0, mqtt_port=None, data=None, recent_events=200)
"""Few events are remembered, so that who is behind is fed from the log."""


@asynccontextmanager
async def running() -> AsyncIterator[Gateway]:
    async with Gateway(SETTINGS) as gateway:
        yield gateway


async def publish(gateway: Gateway, count: int, start: int = 0) -> None:
    for first in range(start, start + count, 50):
        await asyncio.gather(
            *(
                gateway.publish(type="lead:updated", data={"leadId": "1", "n": number, "text": TEXT})
                for number in range(first, min(first + 50, start + count))
            )
        )


async def connect(gateway: Gateway, request: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request, and read nothing."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Small, but with room for a whole segment of the loopback: else TCP waits for its timers when we read again.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
    sock.setblocking(False)
    port = int(gateway.http_url.rpartition(":")[2])
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    writer.write(f"GET {request} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return reader, writer


def buffered(gateway: Gateway) -> list[int]:
    """Bytes that wait in each connection's transport."""
    assert gateway._server is not None
    return [each.transport.get_write_buffer_size() for each in gateway._server.server_state.connections]


async def metric(gateway: Gateway, name: str) -> float:
    async with httpx.AsyncClient(base_url=gateway.http_url, trust_env=False) as http:
        for line in (await http.get("/metrics")).text.splitlines():
            if line.startswith(name):
                return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


class Stream:
    """The numbers of a stream's events."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._text = b""

    async def until(self, last: int) -> list[int]:
        """The next numbers, up to one."""
        numbers: list[int] = []
        while not numbers or numbers[-1] < last:
            line = await self.line()
            if line.startswith(b"data: ") and b'"n":' in line:
                numbers.append(json.loads(line[6:])["data"]["n"])
        return numbers

    async def line(self) -> bytes:
        while b"\n" not in self._text:
            self._text += await self._chunk()
        line, _, self._text = self._text.partition(b"\n")
        return line

    async def _chunk(self) -> bytes:
        while True:  # chunked coding (RFC 9112 §7.1), after the headers
            head = (await self.reader.readline()).strip()
            if head and all(byte in b"0123456789abcdef" for byte in head):
                chunk = await self.reader.readexactly(int(head, 16))
                await self.reader.readexactly(2)
                return chunk


async def test_stalled_streams_are_bounded_metered_and_fed_when_they_drain() -> None:
    async with running() as gateway:
        streams = [Stream(*await connect(gateway, "/api/stream?rooms=lead:1")) for _ in range(READERS)]
        while gateway.http.sse.open_streams < READERS:
            await asyncio.sleep(0)
        await publish(gateway, EVENTS)
        assert await metric(gateway, 'gapless_readers_behind{transport="sse"}') == READERS
        assert await metric(gateway, 'gapless_fell_behind_total{transport="sse"}') >= READERS
        held = await metric(gateway, 'gapless_held_bytes{transport="sse"}')
        assert 0 < held <= READERS * BOUND
        assert max(buffered(gateway)) <= BOUND
        reading = [asyncio.create_task(stream.until(EVENTS + 49)) for stream in streams]
        await publish(gateway, 50, start=EVENTS)
        for numbers in await asyncio.gather(*reading):
            assert numbers == list(range(EVENTS + 50))
        assert await metric(gateway, 'gapless_held_bytes{transport="sse"}') == 0
        for stream in streams:
            stream.writer.close()


async def test_a_poll_that_is_not_read_holds_little_of_its_answer() -> None:
    async with running() as gateway:
        await publish(gateway, 1000)
        query = "/api/events?rooms=lead:1&after=start&limit=1000"
        polls = [await connect(gateway, query) for _ in range(READERS)]
        async with httpx.AsyncClient(base_url=gateway.http_url, trust_env=False) as http:
            expected = (await http.get(query)).json()  # comes after them: they have been answered, too
        assert len(expected["events"]) > 200
        assert max(buffered(gateway)) <= BOUND
        for reader, writer in polls:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            size = 0
            while (line := await reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    size = int(line.partition(b":")[2])
            assert json.loads(await reader.readexactly(size)) == expected
            writer.close()


class PollingSocketIo:
    """Engine.IO 4 on long polling, by hand: it polls when it is told to."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._query = {"EIO": "4", "transport": "polling"}

    async def open(self) -> None:
        (opened,) = await self.poll()
        self._query["sid"] = json.loads(opened[1:])["sid"]
        await self.post("40")
        while not (await self.poll())[-1].startswith("40"):
            pass
        await self.post('420["subscribe",{"rooms":["lead:1"]}]')
        while not (await self.poll())[-1].startswith("430"):
            pass

    async def poll(self) -> list[str]:
        answer = await self._http.get("/socket.io/", params=self._query)
        return answer.raise_for_status().text.split("\x1e")

    async def post(self, packet: str) -> None:
        (await self._http.post("/socket.io/", params=self._query, content=packet)).raise_for_status()

    async def until(self, last: int) -> list[int]:
        """The numbers of the next events, up to one."""
        numbers: list[int] = []
        while not numbers or numbers[-1] < last:
            for packet in await self.poll():
                if packet == "2":
                    await self.post("3")
                elif packet.startswith("42"):
                    event: list[Any] = json.loads(packet[2:])
                    numbers.append(event[1]["n"])
        return numbers


async def test_a_socketio_client_that_does_not_poll_is_bounded_metered_and_fed_when_it_does() -> None:
    async with running() as gateway, httpx.AsyncClient(base_url=gateway.http_url, trust_env=False) as http:
        client = PollingSocketIo(http)
        await client.open()
        await publish(gateway, EVENTS)
        assert await metric(gateway, 'gapless_readers_behind{transport="socketio"}') == 1
        (held,) = (session.queue.qsize() for session in gateway.socketio.server.eio.sockets.values())
        assert held <= gateway.settings.socketio.max_waiting_messages
        reading = asyncio.create_task(client.until(EVENTS + 49))
        await publish(gateway, 50, start=EVENTS)
        assert await reading == list(range(EVENTS + 50))


@asynccontextmanager
async def websocket_socketio(gateway: Gateway) -> AsyncIterator[ClientConnection]:
    """Socket.IO on a WebSocket, by hand, in room lead:1; it reads a few frames ahead, then no more."""
    url = gateway.http_url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket"
    async with connect_websocket(url, max_queue=4, close_timeout=0.1) as client:
        await client.recv()
        await client.send("40")
        await client.recv()
        await client.send('420["subscribe",{"rooms":["lead:1"]}]')
        while not str(await client.recv()).startswith("430"):
            pass
        yield client


async def test_a_stalled_socketio_websocket_is_bounded_and_fed_when_it_drains() -> None:
    async with running() as gateway, websocket_socketio(gateway) as client:
        await publish(gateway, EVENTS)
        assert await metric(gateway, 'gapless_readers_behind{transport="socketio"}') == 1
        assert max(buffered(gateway)) <= (256 << 10) + 200 * (len(TEXT) + 500)  # its high-water mark, and one page
        numbers: list[int] = []
        while len(numbers) < EVENTS:
            packet = str(await client.recv())
            if packet.startswith("42"):
                numbers.append(json.loads(packet[2:])[1]["n"])
        assert numbers == list(range(EVENTS))


async def test_the_gateway_stops_beside_a_stalled_socketio_websocket() -> None:
    gateway = Gateway(SETTINGS)
    await gateway.start()
    async with websocket_socketio(gateway):
        await publish(gateway, EVENTS)
        await gateway.stop()
