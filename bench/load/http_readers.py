"""Readers of SSE and long polling, and single requests: as lean as a load generator needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from bench.load.event import ROOM, TOPIC, TYPE
from bench.load.sockets import connect_to
from bench.load.tally import LoadFailed, Tally

_EVENT = f'"type":"{TYPE}"'.encode()
_GET = "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"


async def fetch(port: int, path: str, *, body: bytes | None = None) -> bytes:
    """The answer's body to a GET, or to a POST of JSON, on a connection of its own.

    Raises:
        LoadFailed: the status is not 200 or 201.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        method, size = ("GET", 0) if body is None else ("POST", len(body))
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode() + (body or b""))
        answer = await reader.read()
    finally:
        writer.close()
    headers, _, found = answer.partition(b"\r\n\r\n")
    if not headers.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
        raise LoadFailed(f"{path} was answered with {answer[:200].decode('latin-1')!r}")
    return found


async def publish_all(port: int, events: list[bytes], *, topics: Sequence[str] = (TOPIC,)) -> str:
    """Publish JSON data of the benchmark's type over REST, a thousand at a time, to each topic in turn.

    Returns:
        The last one's position.
    """
    position = ""
    for start in range(0, len(events), 1000):
        part = [
            b'{"type":"%b","topic":"%b","data":%b}' % (TYPE.encode(), topics[number % len(topics)].encode(), data)
            for number, data in enumerate(events[start : start + 1000], start)
        ]
        answer: Any = msgspec.json.decode(await fetch(port, "/api/events", body=b"[" + b",".join(part) + b"]"))
        position = answer["events"][-1]["position"]
    return position


class SseReader(asyncio.Protocol):
    """One stream of the benchmark's room; counts its events by their type.

    Attributes:
        received: events so far.
    """

    def __init__(self, tally: Tally) -> None:
        self.received = 0
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tally = tally
        self._rest = b""
        self._closing = False
        self._transport: asyncio.Transport

    @classmethod
    async def connect(cls, port: int, tally: Tally, *, after: str | None = None) -> SseReader:
        """Open the stream, from a position on where one is given; its events may have come before this returns."""
        client = cls(tally)
        await connect_to(port, lambda: client)
        path = f"/api/stream?rooms={ROOM}" + (f"&after={after}" if after else "")
        client._transport.write(_GET.format(path=path, port=port).encode())
        async with asyncio.timeout(30):
            await client.opened
        return client

    def close(self) -> None:
        """Drop the connection."""
        self._closing = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._tally.fail(f"an SSE stream was lost ({exc or 'closed by the server'})")
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("the server closed an SSE stream"))

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            if not data.startswith(b"HTTP/1.1 200"):
                self.opened.set_exception(ConnectionError(data[:200].decode("latin-1")))
                return
            self.opened.set_result(None)
        data = self._rest + data
        self._rest = data[1 - len(_EVENT) :]
        if count := data.count(_EVENT):
            self.received += count
            self._tally.add(count)


class PollReader(asyncio.Protocol):
    """Polls the benchmark's room on one connection: the next poll as soon as one is answered.

    Attributes:
        received: events so far.
    """

    def __init__(self, tally: Tally, port: int, position: str) -> None:
        self.received = 0
        self._tally = tally
        self._port = port
        self._position = position
        self._rest = b""
        self._closing = False
        self._transport: asyncio.Transport

    @classmethod
    async def connect(cls, port: int, tally: Tally, *, after: str) -> PollReader:
        """Begin to poll after a position: what comes later is not missed, also before the first poll waits."""
        client = cls(tally, port, after)
        await connect_to(port, lambda: client)
        client._poll()
        return client

    def _poll(self) -> None:
        path = f"/api/events?rooms={ROOM}&wait=30&after={self._position}"
        self._transport.write(_GET.format(path=path, port=self._port).encode())

    def close(self) -> None:
        """Drop the connection."""
        self._closing = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._tally.fail(f"a polling connection was lost ({exc or 'closed by the server'})")

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        self._rest = data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        size = int(data[:end].lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(data) < end + size:
            return
        if not data.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"a poll was answered with {data[:200]!r}")
        self._rest = b""
        body = data[end:]
        self._position = body.partition(b'"position":"')[2].partition(b'"')[0].decode()
        self._poll()
        if count := body.count(_EVENT):
            self.received += count
            self._tally.add(count)


async def poll_all(port: int, *, after: str, count: int) -> None:
    """Poll on one connection, 1,000 events at most an answer, until `count` events came.

    Raises:
        LoadFailed: an answer without events came before.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    try:
        while count > 0:
            path = f"/api/events?rooms={ROOM}&limit=1000&after={after}"
            writer.write(_GET.format(path=path, port=port).encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            body = await reader.readexactly(size)
            found = body.count(_EVENT)
            if not found:
                raise LoadFailed(f"{count:,} events did not come: {body[:200]!r}")
            count -= found
            after = body.partition(b'"position":"')[2].partition(b'"')[0].decode()
    finally:
        writer.close()
