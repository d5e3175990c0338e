"""An application that counts, a stream of numbers, and a link of its own for each transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import pytest

from gapless.client import Bounds, Client, ClientEvent, Status, Subscription, TransportName
from gapless.client.hybrid import client as client_module
from gapless.client.hybrid.doors import ListeningDoor
from gapless.client.hybrid.shell import Shell
from gapless.client.hybrid.world import Listener, Offer
from gapless.testing import Link

NOTE = "note:collaboration"
ROOM = "note:1"
RATE = 50
"""Events a second."""

LADDER: tuple[TransportName, ...] = ("socketio", "mqtt", "sse", "poll")
BOUNDS = Bounds(open=3.0, silence=0.8, check=1.5)
"""Short, so that a dead transport is found soon, and above what a busy machine takes for an answer."""


def number(n: int) -> dict[str, Any]:
    return {"noteId": "1", "n": n}


class Application:
    """Hears a stream of numbers, and waits for what comes to hold."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.items: list[Any] = []
        self.statuses: list[Status] = []
        self.links: dict[TransportName, Link] = {}
        self._changed = asyncio.Event()

    @property
    def numbers(self) -> list[Any]:
        return [item.data["n"] if isinstance(item, ClientEvent) else item for item in self.items]

    async def hear(self, events: Subscription) -> None:
        async for item in events:
            self.items.append(item)
            self._changed.set()

    async def watch(self) -> None:
        async for status in self.client.changes():
            self.statuses.append(status)
            self._changed.set()

    async def until(self, holds: Callable[[], bool], *, within: float = 45.0) -> None:
        """Looked at whenever something was heard, or the status changed."""
        try:
            async with asyncio.timeout(within):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"it did not come to hold: {self.numbers[-3:]}, {self.statuses[-3:]}") from None

    async def connected(self, transport: TransportName | None = None) -> None:
        def holds() -> bool:
            status = self.client.status
            return status.is_whole and transport in (None, status.transport)

        await self.until(holds)

    async def hears_more(self, more: int = 5) -> None:
        goal = len(self.items) + more
        await self.until(lambda: len(self.items) >= goal)


@asynccontextmanager
async def application(client: Client, *rooms: str) -> AsyncIterator[Application]:
    """A client that is open, heard and watched."""
    async with client:
        app = Application(client)
        tasks = [asyncio.create_task(app.hear(client.subscribe(*(rooms or (ROOM,)))), name="hear")]
        tasks.append(asyncio.create_task(app.watch(), name="watch"))
        try:
            yield app
        finally:
            await client.close()
            await asyncio.gather(*tasks)


class Numbers:
    """A stream of numbers, `RATE` a second, until it is ended."""

    def __init__(self, publish: Callable[[int], Any]) -> None:
        self.published = 0
        self._publish = publish
        self._ending = asyncio.Event()

    async def run(self) -> None:
        for n in count():
            await self._publish(n)
            self.published = n + 1
            try:
                await asyncio.wait_for(self._ending.wait(), 1 / RATE)
            except TimeoutError:
                continue
            return

    def end(self) -> None:
        self._ending.set()


@asynccontextmanager
async def numbers(publish: Callable[[int], Any]) -> AsyncIterator[Numbers]:
    stream = Numbers(publish)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stream.run(), name="numbers")
        try:
            yield stream
        finally:
            stream.end()


@asynccontextmanager
async def links(gateway: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[Client], Any]]:
    """Clients that are opened inside have each transport on a link of its own; gives what finds those of a client."""
    found: dict[int, dict[TransportName, Link]] = {}
    async with AsyncExitStack() as stack:

        class LinkedShell(Shell):
            def connection(
                self, transport: TransportName, offers: Sequence[Offer], token: str | None, listener: Listener
            ) -> ListeningDoor:
                door = super().connection(transport, offers, token, listener)
                link = found[id(self.told.__self__)][transport]  # type: ignore[attr-defined]
                door._url, door._mqtt_url = link.url("http"), link.url("ws", "/mqtt")
                return door

        async def make(client: Client) -> dict[TransportName, Link]:
            mine = found[id(client)] = {name: await stack.enter_async_context(Link.to(gateway)) for name in LADDER}
            return mine

        monkeypatch.setattr(client_module, "Shell", LinkedShell)
        yield make
