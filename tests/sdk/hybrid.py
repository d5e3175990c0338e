"""Hybrid TypeScript clients in one Node process, driven from a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from gapless.testing import Link, NodeScript, run_node

DRIVER = Path(__file__).parent / "driver.mjs"
TRANSPORTS = ("socketio", "mqtt", "sse", "poll")

Message = dict[str, Any]


class Hybrid:
    """One client; what it reported, in order.

    Attributes:
        heard: the messages of events that handlers got.
        links: a link for each of its transports.
    """

    def __init__(self, name: str, send: Callable[[Message], Any], links: dict[str, Link]) -> None:
        self.name = name
        self.links = links
        self.messages: list[Message] = []
        self.heard: list[Message] = []
        self._send = send
        self._changed = asyncio.Event()

    @property
    def numbers(self) -> list[int]:
        """The field `n` of what it heard."""
        return [message["data"]["n"] for message in self.heard]

    @property
    def statuses(self) -> list[str]:
        """Its states, each with the transport."""
        return [f"{m['connection']} {m['transport']}" for m in self.messages if m["is"] == "status"]

    def take(self, message: Message) -> None:
        self.messages.append(message)
        if message["is"] == "event":
            self.heard.append(message)
        self._changed.set()

    async def do(self, what: str, **fields: Any) -> None:
        """Send a command of driver.mjs."""
        await self._send({"do": what, "name": self.name, **fields})

    async def until(self, holds: Callable[[], bool], *, within: float = 60.0) -> None:
        """Wait until something holds; looked at after each message."""
        try:
            async with asyncio.timeout(within):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            last = "\n".join(str(message) for message in self.messages[-12:])
            raise AssertionError(f"{self.name}: it did not come to hold; last it said\n{last}") from None

    async def first(self, kind: str, **fields: Any) -> Message:
        """Its first message of a kind with these fields, once there is one."""

        def find() -> Message | None:
            wanted = {"is": kind, **fields}.items()
            return next((m for m in self.messages if wanted <= {k: m[k] for k in m if k in dict(wanted)}.items()), None)

        await self.until(lambda: find() is not None)
        found = find()
        assert found is not None
        return found

    async def connected(self, *transports: str, after: int = 0) -> str:
        """Wait until it is whole over one of the transports, by a status after so many messages; which one."""

        def over() -> str | None:
            told = [m for m in self.messages[after:] if m["is"] == "status"]
            if not told or told[-1]["connection"] not in ("live", "degraded"):
                return None
            name: str = told[-1]["transport"]
            return name if not transports or name in transports else None

        await self.until(lambda: over() is not None)
        name = over()
        assert name is not None
        return name


class Hybrids:
    """The process, and its clients."""

    def __init__(self, node: NodeScript) -> None:
        self._node = node
        self._clients: dict[str, Hybrid] = {}
        self._stack = AsyncExitStack()
        self._reading = asyncio.create_task(self._read(), name="hybrids")

    async def _read(self) -> None:
        async for message in self._node:
            self._clients[message["name"]].take(message)

    async def create(self, url: str, *rooms: str, links: bool = False, **options: Any) -> Hybrid:
        """A client that is in the rooms; `links`: each transport goes through a link of its own."""
        own = {name: await self._stack.enter_async_context(Link.to(url)) for name in TRANSPORTS if links}
        client = Hybrid(f"client{len(self._clients)}", self._node.send, own)
        self._clients[client.name] = client
        through = {name: link.url("http") for name, link in own.items()}
        await client.do("create", options={"url": url, **options}, links=through)
        for room in rooms:
            await client.do("join", room=room)
        return client

    async def kill(self) -> None:
        """End the process with SIGKILL."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._node.kill()

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._stack.aclose()


@asynccontextmanager
async def run_hybrids() -> AsyncIterator[Hybrids]:
    """A process for hybrid clients."""
    async with run_node(DRIVER) as node:
        hybrids = Hybrids(node)
        try:
            yield hybrids
        finally:
            await hybrids.close()
