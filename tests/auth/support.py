"""Tokens, keys and clocks for the tests of the gate."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import jwt

SECRET = "of-thirty-two-bytes-and-a-few-more"
NOW = 1_800_000_000.0


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def claims(**more: Any) -> dict[str, Any]:
    """Those of user 7, for a minute; a value of None leaves a claim out."""
    found = {"sub": "7", "iat": NOW, "exp": NOW + 60, **more}
    return {name: value for name, value in found.items() if value is not None}


def token(key: Any = SECRET, algorithm: str = "HS256", *, headers: dict[str, Any] | None = None, **more: Any) -> str:
    """A signed token."""
    return jwt.encode(claims(**more), key, algorithm, headers=headers)


def forged(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    """A token of any header, with any signature."""
    parts = (json.dumps(header).encode(), json.dumps(body).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class Reply(NamedTuple):
    """What a local server answers."""

    body: bytes = b"{}"
    status: int = 200
    headers: str = ""


class LocalHttp:
    """A real HTTP server on loopback, whose answers a test decides.

    Attributes:
        asked: path and body of each request.
        reply: called for each request.
    """

    def __init__(self, reply: Callable[[bytes], Awaitable[Reply] | Reply]) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.heads: list[str] = []
        self.reply = reply
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: (\d+)", head.lower())
                body = await reader.readexactly(int(length[1])) if length else b""
                self.asked.append((head.split()[1].decode(), body))
                self.heads.append(head.decode())
                answer = self.reply(body)
                found = answer if isinstance(answer, Reply) else await answer
                status, content, headers = found.status, found.body, found.headers
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\n{headers}\r\n".encode() + content
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def local_http(reply: Callable[[bytes], Awaitable[Reply] | Reply]) -> AsyncIterator[LocalHttp]:
    """A `LocalHttp` that listens."""
    server = LocalHttp(reply)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
