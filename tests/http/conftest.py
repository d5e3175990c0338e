"""A real uvicorn with the HTTP doors over a log in memory, on a free port of the loopback."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gapless.auth import DevelopmentGate, Gate
from gapless.envelope import read_envelope
from gapless.event import Origin
from gapless.eventlog.memory import MemoryLog
from gapless.gateway.http_server import HttpServer
from gapless.hub import Hub
from gapless.ingress import Accepted, Ingress, Publication
from gapless.limits import Limiter, Limits, Networks
from gapless.topicmap import TopicMap, crm_map
from gapless.transports.http import Front, HttpDoors, HttpOptions, Paths

OPTIONS = HttpOptions()
LIMITS = Limits()


class Site:
    """The doors, what they stand on, and a client."""

    def __init__(
        self,
        *,
        options: HttpOptions = OPTIONS,
        limits: Limits = LIMITS,
        gate: Gate | None = None,
        log: MemoryLog | None = None,
        topic_map: TopicMap | None = None,
        recent_events: int = 100_000,
        **doors: Any,
    ) -> None:
        self.log = log or MemoryLog()
        self.hub = Hub(self.log, recent_events=recent_events)
        self.topic_map = topic_map or crm_map()
        self.now: float | None = None
        self.ingress = Ingress(self.log, self.hub, self.topic_map, limits=limits)
        self.doors = HttpDoors(
            ingress=self.ingress,
            hub=self.hub,
            log=self.log,
            gate=gate or DevelopmentGate(),
            topic_map=self.topic_map,
            options=options,
            **doors,
        )
        self.limiter = Limiter(limits)
        self.app = Front(Paths(self.doors.paths), options=options, limiter=self.limiter)
        self.url = ""
        self.port = 0

    async def publish(self, kind: str = "lead:updated", **fields: Any) -> Accepted:
        """An event from the side, of lead 1 where nothing is said."""
        document = {"type": kind, "data": {"leadId": "1"}, **fields}
        if "topic" in document:
            del document["type"]
        publication = Publication(
            envelope=read_envelope(document), origin=Origin("test"), user_id=document.get("userId")
        )
        return await self.ingress.submit(publication)


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[Site]:
    """Open the log, start the doors and the server; stop them in the right order."""
    await site.log.open(site.hub.deliver)
    await site.hub.start()
    await site.doors.start()
    listener = socket.create_server(("127.0.0.1", 0))
    site.port = listener.getsockname()[1]
    site.url = f"http://127.0.0.1:{site.port}"
    server = HttpServer(site.app, largest_message=1 << 20, limiter=site.limiter, proxies=Networks(()))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    await server.listening.wait()
    try:
        yield site
    finally:
        if site.doors.health.started:
            await site.doors.stop()
        server.should_exit = True
        await serving
        await site.log.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running(Site()) as site:
        yield site


@pytest.fixture
async def http(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with client(site) as http:
        yield http


def client(site: Site, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=site.url, timeout=20, trust_env=False, **options)


class SseReader:
    """Server-sent events, read as the standard says (HTML Living Standard §9.2.6).

    Attributes:
        last_id: what an EventSource would send as Last-Event-ID.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id: str | None = None
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[str, Any, str | None]:
        """The next dispatched event: name, decoded data, and its own id (None: no `id:` line)."""
        name = "message"
        data: list[str] = []
        own_id: str | None = None
        async for line in self._lines:
            if line == "":
                if own_id is not None:
                    self.last_id = own_id
                if data:
                    return name, json.loads("\n".join(data)), own_id
                name, own_id = "message", None
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                own_id = value
        raise EOFError

    async def event(self) -> dict[str, Any]:
        """The next application event; control events are passed by."""
        while True:
            name, data, _ = await self.next()
            if not name.startswith("gapless."):
                assert isinstance(data, dict)
                return data


@asynccontextmanager
async def stream(http: httpx.AsyncClient, query: str, **headers: str) -> AsyncIterator[SseReader]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.stream("GET", f"/api/stream?{query}", headers=named) as response:
        assert response.status_code == 200, await response.aread()
        yield SseReader(response)
