"""Readers of SSE and long polling, and single requests: as lean as a load generator needs them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec

from bench.load.event import ROOM, TYPE
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


async def publish_all(port: int, events: list[bytes]) -> str:
    """Publish JSON data of the benchmark's type over REST, a thousand at a time; the last one's position."""
    position = ""
    for start in range(0, len(events), 1000):
        part = [
            b'{"type":"%b","topic":"crm/leads/123/updated","data":%b}' % (TYPE.encode(), data)
            for data in events[start : start + 1000]
        ]
        answer: Any = msgspec.json.decode(await fetch(port, "/api/events", body=b"[" + b",".join(part) + b"]"))
        position = answer["events"][-1]["position"]
    return position


class SseReader(asyncio.Protocol):
    """One stream of the benchmark's room; counts its events by their type."""

    def __init__(self, tally: Tally, after: str) -> None:
        self._tally = tally
        self._after = after
        self._rest = b""
        self._closing = False
        self._transport: asyncio.Transport

    @classmethod
    async def connect(cls, port: int, tally: Tally, *, after: str) -> SseReader:
        """Ask for the stream from a position on; its events may have come before this returns."""
        client = cls(tally, after)
        await connect_to(port, lambda: client)
        path = f"/api/stream?rooms={ROOM}&after={after}"
        client._transport.write(_GET.format(path=path, port=port).encode())
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

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        self._rest = data[1 - len(_EVENT) :]
        if count := data.count(_EVENT):
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
