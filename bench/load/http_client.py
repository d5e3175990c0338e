"""An HTTP/1.1 client that posts on a keep-alive connection and times the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from bench.load.event import now_us
from bench.load.tally import Tally

_HEAD = "POST /api/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {type}\r\nContent-Length: {size}\r\n\r\n"


def post(port: int, body: bytes, *, content_type: str = "application/json") -> bytes:
    """A whole request to publish."""
    return _HEAD.format(port=port, type=content_type, size=len(body)).encode() + body


class HttpClient(asyncio.Protocol):
    """One connection, one request at a time.

    Args:
        tally: told of a lost connection.
        answered: called after each answer with the microseconds from when the request was due.
    """

    __slots__ = ("_answered", "_closing", "_due", "_left", "_rest", "_tally", "_transport", "busy")

    def __init__(self, tally: Tally, answered: Callable[[HttpClient, int], None]) -> None:
        self._tally = tally
        self.busy = False
        self._closing = False
        self._answered = answered
        self._due = 0
        self._left = 0
        self._rest = b""
        self._transport: asyncio.Transport

    @classmethod
    async def connect(cls, port: int, tally: Tally, answered: Callable[[HttpClient, int], None]) -> HttpClient:
        """Open a connection.

        Raises:
            OSError: nobody listens.
        """
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: cls(tally, answered), "127.0.0.1", port)
        return client

    def send(self, request: bytes, *, due_us: int | None = None) -> None:
        """Send a request; its time counts from `due_us`, or from now."""
        assert not self.busy
        self.busy = True
        self._due = now_us() if due_us is None else due_us
        self._transport.write(request)

    def close(self) -> None:
        """Drop the connection."""
        self._closing = True
        self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._tally.fail(f"an HTTP connection was lost ({exc or 'closed by the server'})")

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            data = self._rest + data
            head = data.find(b"\r\n\r\n")
            if head < 0:
                self._rest = data
                return
            self._rest = b""
            if not data.startswith(b"HTTP/1.1 201"):
                self._transport.abort()
                raise ValueError(f"a publish was answered with {data[:400].decode('latin-1')!r}")
            self._left = _content_length(data[:head]) - (len(data) - head - 4)
        if self._left <= 0:
            self._left = 0
            self.busy = False
            self._answered(self, now_us() - self._due)


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.index(b"content-length:") + 15
    end = lower.find(b"\r\n", at)
    return int(lower[at : end if end >= 0 else len(lower)])
