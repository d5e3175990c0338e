"""A Centrifugo client on a WebSocket (its JSON protocol), as lean as a load generator needs it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec

from bench.load.event import now_us, sent_us
from bench.load.sockets import connect_to
from bench.load.tally import Tally
from bench.load.websocket import masked_text
from bench.peers.programs import CHANNEL

_HANDSHAKE = (
    "GET /connection/websocket HTTP/1.1\r\n"
    "Host: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# The same meta and position as Gapless sends, so that both write nearly the same bytes.
_TAIL = (
    b',"meta":{"id":"019b76da-a800-7000-8000-000000000001","topic":"crm/leads/123/updated",'
    b'"time":"2026-01-01T00:00:00.125Z","userId":null},"position":"k3x9a2bq:1000000"}'
)


class CentrifugoClient(asyncio.Protocol):
    """One connection, subscribed to the benchmark's channel or to others.

    Attributes:
        received: publications so far.
        acknowledged, published: of its own publishing.
        sampling: whether it times events while the tally does.
    """

    __slots__ = (
        "_answers",
        "_closing",
        "_ids",
        "_opened",
        "_rest",
        "_tally",
        "_transport",
        "_upgraded",
        "acknowledged",
        "published",
        "received",
        "sampling",
    )

    def __init__(self, tally: Tally) -> None:
        self.received = 0
        self.acknowledged = 0
        self.published = 0
        self.sampling = False
        self._tally = tally
        self._closing = False
        self._upgraded = False
        self._rest = b""
        self._ids = 0
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    @classmethod
    async def connect(cls, port: int, tally: Tally, *, channels: tuple[str, ...] = (CHANNEL,)) -> CentrifugoClient:
        """Open a connection, and subscribe.

        Raises:
            OSError, TimeoutError: the server refused, or did not answer within 30 seconds.
        """
        async with asyncio.timeout(30):
            client = cls(tally)
            await connect_to(port, lambda: client)
            client._transport.write(_HANDSHAKE.format(port=port).encode())
            await client._opened
            await client._ask({"connect": {}})
            for channel in channels:
                await client._ask({"subscribe": {"channel": channel}})
        return client

    def _ask(self, command: dict[str, Any]) -> asyncio.Future[None]:
        self._ids += 1
        self._transport.write(masked_text(msgspec.json.encode({"id": self._ids, **command})))
        answer = self._answers[self._ids] = asyncio.get_running_loop().create_future()
        return answer

    def publish_all(self, *events: bytes) -> None:
        """Publish events, all in one write; `acknowledged` counts the answers."""
        self.publish_to(CHANNEL, *events)

    def publish_to(self, channel: str, *events: bytes) -> None:
        """As `publish_all`, to any channel."""
        parts = []
        for data in events:
            self._ids += 1
            head = b'{"id":%d,"publish":{"channel":"%b","data":{"data":' % (self._ids, channel.encode())
            parts.append(masked_text(head + data + _TAIL + b"}}"))
        self.published += len(events)
        self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Drop the connection."""
        self._closing = True
        self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._tally.fail(f"a Centrifugo connection was lost ({exc or 'closed by the server'})")
        error = ConnectionError("the server closed a Centrifugo connection")
        for waiter in (self._opened, *self._answers.values()):
            if not waiter.done():
                waiter.set_exception(error)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        self._rest = b""
        at = 0
        if not self._upgraded:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                self._rest = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self._opened.set_exception(ConnectionError(data[:head].decode("latin-1")))
                self._transport.abort()
                return
            self._upgraded = True
            self._opened.set_result(None)
            at = head + 4
        events = acknowledged = 0
        end = len(data)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                if end - at < 10:
                    break
                size, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            stop = start + size
            if stop > end:
                break
            # A frame holds one message a line; what was published comes as a push.
            for line in data[start:stop].split(b"\n"):
                if line.startswith(b'{"push":'):
                    events += 1
                    if self.sampling and self._tally.sampling:
                        self._tally.latencies.append(now_us() - sent_us(line, 0, len(line)))
                elif line:
                    acknowledged += self._answered(line)
            at = stop
        self._rest = data[at:]
        if acknowledged:
            self.acknowledged += acknowledged
            if self._tally.on_progress is not None:
                self._tally.on_progress()
        if events:
            self.received += events
            self._tally.add(events)

    def _answered(self, line: bytes) -> bool:
        """Take an answer; whether it was one to a publish that nobody waits for."""
        if line == b"{}":  # a ping, answered with the same
            self._transport.write(masked_text(b"{}"))
            return False
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise ValueError(f"refused: {line!r}")
        waiter = self._answers.pop(answer["id"], None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        return waiter is None
