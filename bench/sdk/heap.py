"""The heap of a client that hears a million events, after a collection of garbage, in Node and in Chromium."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
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

    async def heap(self, count: int) -> int:
        """Bytes in use once it has handled so many events."""


class NodeReader:
    """In Node."""

    def __init__(self, node: NodeScript) -> None:
        self._node = node

    async def heap(self, count: int) -> int:
        await self._node.send(count)
        answer = await self._node.next(within=_PATIENCE)
        if answer.get("count") != count:
            raise LoadFailed(f"wanted {count:,} events handled: {answer}")
        return int(answer["heap"])


class PageReader:
    """In a page of Chromium."""

    def __init__(self, tab: Tab) -> None:
        self._tab = tab

    async def heap(self, count: int) -> int:
        await self._tab.until(f"clients.reader.count >= {count} || clients.reader.wrong")
        counted, wrong = await self._tab.run("[clients.reader.count, clients.reader.wrong]")
        if counted != count or wrong:
            raise LoadFailed(f"wanted {count:,} events handled: {counted:,}, {wrong}")
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


async def measure(folder: Path) -> dict[str, dict[int, int]]:
    """Heaps in bytes by mark, by where the client ran."""
    await bundle(folder)
    heaps: dict[str, dict[int, int]] = {}
    with served(folder) as origin:
        config = folder / "heap.toml"
        config.write_text(f'[http]\norigins = ["{origin}"]\n')
        for place in ("Node", "Chromium"):
            async with run_gateway("--config", str(config)) as gateway:
                reading = in_node(gateway.http) if place == "Node" else in_page(gateway.http, origin, folder)
                async with reading as reader:
                    heaps[place] = await _feed(gateway.http, reader)
    return heaps


async def _feed(url: str, reader: Reader) -> dict[int, int]:
    """Publish to each mark, and look at the heap there."""
    heaps: dict[int, int] = {}
    published = 0
    async with httpx.AsyncClient(timeout=60) as http:
        for mark in MARKS:
            while published < mark:
                until = min(mark, published + _AHEAD)
                for begin in range(published, until, _BATCH):
                    events = [
                        {
                            "type": "lead:updated",
                            "data": {"leadId": "1", "n": n, "name": "Ada Lovelace", "stage": "won"},
                        }
                        for n in range(begin, min(until, begin + _BATCH))
                    ]
                    answer = await http.post(f"{url}/api/events", json=events)
                    answer.raise_for_status()
                published = until
                heap = await reader.heap(published)
            heaps[mark] = heap
    return heaps
