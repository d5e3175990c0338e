"""Raw HTTP and raw WebSocket: an Engine.IO session packet by packet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gapless.transports.socketio.connection import EngineSocket
from gapless.transports.socketio.engine import Engine
from gapless.transports.socketio.server import Server
from tests.socketio_protocol.servers import serving


class Wire:
    """A running server, and requests to it.

    Attributes:
        ended: Engine.IO session ids and reasons, in the order in which the sessions ended.
    """

    def __init__(self, server: Engine | Server, address: str, http: httpx.AsyncClient) -> None:
        self.engine: Engine = server if isinstance(server, Engine) else server.eio
        self.address = address
        self.path = "/engine.io/" if isinstance(server, Engine) else "/socket.io/"
        self.ended: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._http = http
        if isinstance(server, Engine):
            self.engine.on("disconnect", self._note_end)

    async def _note_end(self, sid: str, reason: str) -> None:
        self.ended.put_nowait((sid, reason))

    async def request(
        self, method: str, query: dict[str, str], body: Any = None, *, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """One HTTP request with exactly this query."""
        return await self._http.request(method, self.path, params=query, content=body, headers=headers)

    async def open(self) -> Poll:
        """A new session on HTTP long-polling."""
        response = await self.request("GET", {"EIO": "4", "transport": "polling"})
        assert response.status_code == 200
        assert response.text[0] == "0"
        return Poll(self, json.loads(response.text[1:]))

    def websocket(self, **query: str) -> connect:
        """A WebSocket with this query."""
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        return connect(f"ws://{self.address}{self.path}?{asked}", ping_interval=None, compression=None)

    @asynccontextmanager
    async def open_websocket(self) -> AsyncIterator[ClientConnection]:
        """A new session on WebSocket, after its OPEN packet."""
        async with self.websocket(EIO="4", transport="websocket") as websocket:
            opened = await websocket.recv()
            assert isinstance(opened, str)
            assert opened[0] == "0"
            yield websocket

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[ClientConnection]:
        """A WebSocket in the main namespace of an echo server, after its `auth` event."""
        async with self.open_websocket() as websocket:
            await websocket.send("40")
            for start in ("40{", '42["auth",'):
                assert str(await websocket.recv()).startswith(start)
            yield websocket


class Poll:
    """A session on HTTP long-polling."""

    def __init__(self, wire: Wire, handshake: dict[str, Any]) -> None:
        self.wire = wire
        self.handshake = handshake
        self.sid: str = handshake["sid"]
        self.query = {"EIO": "4", "transport": "polling", "sid": self.sid}

    async def get(self, **headers: str) -> httpx.Response:
        return await self.wire.request("GET", self.query, headers=headers)

    async def post(self, body: Any) -> httpx.Response:
        return await self.wire.request("POST", self.query, body)

    async def packets(self, count: int) -> list[str]:
        """The next packets, over as many polls as it takes."""
        got: list[str] = []
        while len(got) < count:
            response = await self.get()
            assert response.status_code == 200
            got += response.text.split("\x1e")
        return got

    def websocket(self) -> connect:
        return self.wire.websocket(EIO="4", transport="websocket", sid=self.sid)

    @property
    def socket(self) -> EngineSocket:
        """The server's side."""
        return self.wire.engine.sockets[self.sid]

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[asyncio.Task[httpx.Response]]:
        """A GET that the server holds."""
        task = asyncio.create_task(self.get())
        while not self.socket.polled:
            await asyncio.sleep(0)
        yield task
        await task

    async def is_over(self) -> bool:
        """Whether the session is unknown now."""
        return (await self.get()).status_code == 400


async def until_closed(websocket: ClientConnection) -> list[str | bytes]:
    """What still comes until the server closes the connection."""
    got: list[str | bytes] = []
    try:
        while True:
            got.append(await websocket.recv())
    except ConnectionClosed:
        return got


@asynccontextmanager
async def wire(server: Engine | Server) -> AsyncIterator[Wire]:
    """The server, served."""
    async with (
        serving(server) as address,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=None, trust_env=False) as http,
    ):
        yield Wire(server, address, http)
