"""The heap of a client that hears a million events, after a collection of garbage, in Node and in Chromium."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import httpx

from bench.load.tally import LoadFailed
from gapless.testing import NodeScript, run_gateway, run_node
from tests.http.browser import Tab, browser
from tests.sdk.pages import bundle, served

MARKS = (10_000, 100_000, 500_000, 1_000_000)
"""Events handled when the heap is looked at; the first is what a client weighs that has warmed up."""
TRANSPORT = "socketio"
_BATCH = 500
_AHEAD = 10_000
"""Events that are published before the client is waited for."""
_PATIENCE = 120.0


class Reader(Protocol):
    """A client that counts."""

    async def handled(self, count: int) -> None:
        """Wait until it has handled so many events, each once and in order."""

    async def heap(self) -> int:
        """Bytes in use after a collection of garbage."""


class NodeReader:
    """In Node."""

    def __init__(self, node: NodeScript) -> None:
        self._node = node

    async def handled(self, count: int) -> None:
        await self._node.send({"until": count})
        answer = await self._node.next(within=_PATIENCE)
        if answer != {"count": count}:
            raise LoadFailed(f"wanted {count:,} events handled: {answer}")

    async def heap(self) -> int:
        await self._node.send({"heap": True})
        return int((await self._node.next(within=_PATIENCE))["heap"])


class PageReader:
    """In a page of Chromium."""

    def __init__(self, tab: Tab) -> None:
        self._tab = tab

    async def handled(self, count: int) -> None:
        await self._tab.until(f"clients.reader.count >= {count} || clients.reader.wrong")
        counted, wrong = await self._tab.run("[clients.reader.count, clients.reader.wrong]")
        if counted != count or wrong:
            raise LoadFailed(f"wanted {count:,} events handled: {counted:,}, {wrong}")

    async def heap(self) -> int:
        for _ in range(2):  # what finalisers let go is collected the second time
            await self._tab.call("HeapProfiler.collectGarbage")
        return int((await self._tab.call("Runtime.getHeapUsage"))["usedSize"])


@asynccontextmanager
async def in_node(url: str) -> AsyncIterator[Reader]:
    async with run_node(Path(__file__).parent / "reader.mjs", url, TRANSPORT) as node:
        assert await node.next(within=_PATIENCE) == {"ready": True}
        yield NodeReader(node)


@asynccontextmanager
async def in_page(url: str, origin: str, folder: Path) -> AsyncIterator[Reader]:
    async with browser(folder / "heap-profile") as first:
        tab = first.another()
        await tab.open(f"{origin}/many.html")
        await tab.until("begin")
        await tab.run(f"begin('reader', {json.dumps({'url': url, 'transports': [TRANSPORT], 'keep': False})})")
        await tab.until("clients.reader.over")
        yield PageReader(tab)


async def measure(folder: Path, *, progress: Callable[[str], None]) -> dict[str, dict[int, int]]:
    """Heaps in bytes by mark, by where the client ran. Both hear the same events at the same time."""
    await bundle(folder)
    config = folder / "heap.toml"
    with served(folder) as origin:
        config.write_text(f'[http]\norigins = ["{origin}"]\n')
        async with (
            run_gateway("--config", str(config)) as gateway,
            in_node(gateway.http) as node,
            in_page(gateway.http, origin, folder) as page,
        ):
            return await _feed(gateway.http, {"Node": node, "Chromium": page}, progress)


async def _feed(url: str, readers: dict[str, Reader], progress: Callable[[str], None]) -> dict[str, dict[int, int]]:
    """Publish to each mark, and look at the heaps there."""
    heaps: dict[str, dict[int, int]] = {place: {} for place in readers}
    async with httpx.AsyncClient(timeout=60) as http:
        for before, mark in itertools.pairwise((0, *MARKS)):
            for begin in range(before, mark, _AHEAD):
                published = min(mark, begin + _AHEAD)
                await _publish(http, url, begin, published)
                await asyncio.gather(*(reader.handled(published) for reader in readers.values()))
                progress(f"{published:,} events")
            for place, reader in readers.items():
                heaps[place][mark] = await reader.heap()
    return heaps


async def _publish(http: httpx.AsyncClient, url: str, begin: int, end: int) -> None:
    for first in range(begin, end, _BATCH):
        numbers = range(first, min(end, first + _BATCH))
        events = [{"type": "lead:updated", "data": {"leadId": "1", "n": n, "name": "Ada Lovelace"}} for n in numbers]
        answer = await http.post(f"{url}/api/events", json=events)
        answer.raise_for_status()
