"""A Socket.IO client by hand, over long polling or WebSocket, from any address of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import msgspec

from gapless.gateway import Gateway
from tests.frames import CLOSE, TEXT, frame, split
from tests.security.site import Wire, upgrade, wire

PATH = "/socket.io/?EIO=4&transport="


class Refused(Exception):
    """The handshake's status, or what the CONNECT was answered with."""


class Polling:
    """Engine.IO packets over HTTP."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._url = PATH + "polling"

    async def open(self) -> None:
        answer = await self._http.get(self._url)
        if answer.status_code != 200:
            raise Refused(answer.status_code)
        self._url += "&sid=" + msgspec.json.decode(answer.text[1:])["sid"]

    async def send(self, packet: bytes) -> None:
        answer = await self._http.post(self._url, content=packet)
        if answer.status_code != 200:
            raise Refused(answer.status_code)

    async def receive(self) -> list[str]:
        answer = await self._http.get(self._url)
        if answer.status_code != 200:
            raise Refused(answer.status_code)
        return answer.text.split("\x1e")


class WebSocket:
    """Engine.IO packets as text frames."""

    def __init__(self, connection: Wire) -> None:
        self._wire = connection
        self._rest = b""

    async def open(self) -> None:
        self._wire.send(upgrade(PATH + "websocket"))
        status, _ = await self._wire.head()
        if status != 101:
            raise Refused(status)
        await self.receive()  # OPEN

    async def send(self, packet: bytes) -> None:
        self._wire.send(frame(TEXT, packet))

    async def receive(self) -> list[str]:
        while True:
            frames, self._rest = split(self._rest)
            if any(opcode == CLOSE for opcode, _ in frames):
                raise Refused("closed")
            if frames:
                return [payload.decode() for _, payload in frames]
            data = await self._wire.reader.read(65536)
            if not data:
                raise Refused("ended")
            self._rest += data


class SocketIo:
    """One connected client. What is no acknowledgement is kept in `events`."""

    def __init__(self, transport: Polling | WebSocket) -> None:
        self._transport = transport
        self._next = 0
        self._answers: dict[int, Any] = {}
        self.events: list[list[Any]] = []

    async def connect(self, user: str | None) -> None:
        await self._transport.open()
        await self._transport.send(b"40" + msgspec.json.encode({"userId": user} if user else {}))
        while True:
            for packet in await self._transport.receive():
                if packet.startswith("44"):
                    raise Refused(msgspec.json.decode(packet[2:])["data"]["code"])
                if packet.startswith("40"):
                    return

    async def ask(self, event: str, document: Any) -> int:
        """Send a request; the number of its acknowledgement."""
        self._next += 1
        await self._transport.send(b"42%d%b" % (self._next, msgspec.json.encode([event, document])))
        return self._next

    async def answer(self, number: int) -> Any:
        async with asyncio.timeout(30):
            while number not in self._answers:
                for packet in await self._transport.receive():
                    self._take(packet)
        return self._answers.pop(number)

    async def call(self, event: str, document: Any) -> Any:
        return await self.answer(await self.ask(event, document))

    def _take(self, packet: str) -> None:
        if packet.startswith("43"):
            digits = packet[2 : packet.index("[")]
            self._answers[int(digits)] = msgspec.json.decode(packet[packet.index("[") :])[0]
        elif packet.startswith("42"):
            self.events.append(msgspec.json.decode(packet[2:]))


@asynccontextmanager
async def socketio_client(
    gateway: Gateway, transport: str, user: str | None = None, *, source: str = "127.0.0.1"
) -> AsyncIterator[SocketIo]:
    """A connected client. Over polling each request may take a TCP connection of its own.

    Raises:
        Refused: it was not let in.
    """
    async with AsyncExitStack() as stack:
        if transport == "polling":
            http = httpx.AsyncClient(
                base_url=gateway.http_url, transport=httpx.AsyncHTTPTransport(local_address=source), timeout=30
            )
            client = SocketIo(Polling(await stack.enter_async_context(http)))
        else:
            client = SocketIo(WebSocket(await stack.enter_async_context(wire(gateway.http_url, source=source))))
        await client.connect(user)
        yield client
