"""A whole gateway in this process, and plain sockets to it, for tests that do what no client library would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from gapless.auth import Gate
from gapless.config import Settings
from gapless.gateway import Gateway
from gapless.limits import AddressShares, Limits, Rates, Shares

NOBODY: tuple[str, ...] = ()


def limits(
    *, connection: Rates | None = None, user: Shares | None = None, address: AddressShares | None = None, **more: Any
) -> Limits:
    """Limits that hold on loopback too."""
    return Limits(
        exempt=NOBODY,
        connection=connection or Rates(),
        user=user or Shares(),
        address=address or AddressShares(),
        **more,
    )


@asynccontextmanager
async def running(*, gate: Gate | None = None, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway on free ports, its log in memory."""
    chosen = {"port": 0, "mqtt_port": 0, "mqtts_port": 0, "data": None, **settings}
    async with Gateway(Settings(**chosen), gate=gate) as gateway:
        yield gateway


def port(url: str | None) -> int:
    assert url is not None
    return int(url.rsplit(":", 1)[1])


def http(gateway: Gateway, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.http_url, timeout=20, trust_env=False, **options)


class Wire:
    """A plain connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers of an answer."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        return int(first.split()[1]), {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
        }

    async def error(self) -> tuple[int, dict[str, Any]]:
        """The status of an answer that is an error, and the error."""
        status, headers = await self.head()
        body = await self.reader.readexactly(int(headers["content-length"]))
        return status, msgspec.json.decode(body)["error"]

    async def ended(self) -> bytes:
        """What comes until the other side closes, or resets."""
        received = b""
        try:
            while data := await self.reader.read(65536):
                received += data
        except ConnectionError:
            pass
        return received

    def close(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def wire(url: str | None, *, source: str = "127.0.0.1") -> AsyncIterator[Wire]:
    """A plain connection to a port, from an address of this machine (all of 127.0.0.0/8 on Linux)."""
    opened = Wire(*await asyncio.open_connection("127.0.0.1", port(url), local_addr=(source, 0)))
    try:
        yield opened
    finally:
        opened.close()


async def until(condition: Any) -> None:
    """Let the loop go on until something holds."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


def upgrade(path: str, *, host: str = "127.0.0.1", origin: str | None = None, protocol: str = "") -> bytes:
    """A WebSocket handshake (RFC 6455 §4.1)."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    if origin is not None:
        lines.append(f"Origin: {origin}")
    if protocol:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")
    return "\r\n".join([*lines, "", ""]).encode()
