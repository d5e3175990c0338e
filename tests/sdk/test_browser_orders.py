"""Each transport killed or blacked out in the middle of a stream, in all 24 orders, in one page of a real Chromium."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import permutations
from typing import Literal

import pytest

from gapless.testing import Link
from tests.sdk.hybrid import TRANSPORTS
from tests.sdk.stage import Stage

pytestmark = [
    pytest.mark.needs_sdk,
    pytest.mark.needs_chromium,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

Links = dict[str, Link]
ORDERS = list(permutations(TRANSPORTS))
BOUNDS = {"open": 1500, "silence": 800, "check": 1000}
"""Milliseconds: short, so that a dead transport is found soon, and above what a busy machine takes for an answer."""


@asynccontextmanager
async def clients_of_all_orders(stage: Stage) -> AsyncIterator[list[Links]]:
    """A client for each order, and a link for each of its transports."""
    async with AsyncExitStack() as stack:
        of_each: list[Links] = []
        for order in ORDERS:
            links = {name: await stack.enter_async_context(Link.to(stage.gateway.http)) for name in order}
            of_each.append(links)
            urls = {name: link.url("http") for name, link in links.items()}
            options = {"url": stage.gateway.http, "transports": order, "links": urls, "bounds": BOUNDS}
            await stage.tab.run(f"begin({json.dumps('-'.join(order))}, {json.dumps(options)})")
        yield of_each
        await stage.tab.run("end()")


async def take_away(link: Link, fault: Literal["killed", "blacked out"]) -> None:
    if fault == "blacked out":
        return link.blackhole()
    link.refuse()
    await link.cut()


@pytest.mark.parametrize("fault", ["killed", "blacked out"])
async def test_transports_fail_in_every_order(stage: Stage, fault: Literal["killed", "blacked out"]) -> None:
    tab = stage.tab
    await tab.open(f"{stage.origin}/many.html")
    await tab.until("begin")
    async with clients_of_all_orders(stage) as of_each:
        await tab.until("all().every(({ over }) => over)")
        async with stage.streaming():
            for place in range(len(TRANSPORTS)):
                names = [order[place] for order in ORDERS]
                await tab.until(f"all().every(({{ over }}, index) => over === {json.dumps(names)}[index])")
                await stage.all_show_more()
                for links, name in zip(of_each, names, strict=True):
                    await take_away(links[name], fault)
            await tab.until("all().every(({ over }) => !over)")
            for links in of_each:
                for link in links.values():
                    await link.cut()  # a network that has forgotten its connections meanwhile
                    link.restore()
            await tab.until("all().every(({ over }) => over)")
            await stage.all_show_more()
        await stage.publish()
        last = stage.published - 1
        await tab.until(f"all().every(({{ shown }}) => shown.at(-1) === {last})")
        wrong = await tab.run(f"wrong({stage.first}, {last})")
        assert wrong == {}
        assert await tab.run("all().length") == len(ORDERS) == 24
