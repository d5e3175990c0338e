"""Each transport killed or blacked out in the middle of a stream, in every order: each event once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count, permutations
from typing import Literal

import pytest

from gapless.gateway import Gateway
from tests.sdk.hybrid import TRANSPORTS, Hybrid, Hybrids

pytestmark = [pytest.mark.needs_sdk, pytest.mark.asyncio(loop_scope="module")]

Fault = Literal["kill", "blackhole"]
RATE = 50
"""Events a second."""
ROOM = "lead:1"
"""A room into which the topic places some events, and the payload others."""
BOUNDS = {"open": 1500, "silence": 800, "check": 1000}
"""Milliseconds: short, so that a dead transport is found soon, and above what a busy machine takes for an answer."""


class Stream:
    """Numbered events, `RATE` a second, until it is ended."""

    def __init__(self, gateway: Gateway) -> None:
        self.published = 0
        self._gateway = gateway
        self._ending = asyncio.Event()

    async def run(self) -> None:
        for n in count():
            topic = f"crm/activities/{n}/created" if n % 2 else "crm/leads/1/updated"
            await self._gateway.publish(topic=topic, data={"leadId": "1", "n": n})
            self.published = n + 1
            try:
                await asyncio.wait_for(self._ending.wait(), 1 / RATE)
            except TimeoutError:
                continue
            return

    def end(self) -> None:
        self._ending.set()


@asynccontextmanager
async def stream(gateway: Gateway) -> AsyncIterator[Stream]:
    events = Stream(gateway)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(events.run())
        try:
            yield events
        finally:
            events.end()


async def lose_all_in_turn(client: Hybrid, ladder: tuple[str, ...], fault: Fault) -> None:
    """Take one transport after the other away while it is in use, the last one too; then give all back."""
    for name in ladder:
        await client.connected(name)
        heard = len(client.heard)
        await client.until(lambda heard=heard: len(client.heard) >= heard + 5)  # type: ignore[misc]
        if fault == "kill":
            client.links[name].refuse()
            await client.links[name].cut()
        else:
            client.links[name].blackhole()
    said = len(client.messages) - 1  # a cut may have been told already
    await client.until(lambda: any(m["is"] == "status" and m["transport"] is None for m in client.messages[said:]))
    said = len(client.messages)  # the first way that is back may be taken before the last one is
    for link in client.links.values():
        await link.cut()  # a network that has forgotten its connections meanwhile
        link.restore()
    await client.connected(after=said)
    heard = len(client.heard)
    await client.until(lambda: len(client.heard) >= heard + 5)


async def check(gateway: Gateway, hybrids: Hybrids, ladders: list[tuple[str, ...]], fault: Fault) -> None:
    create = partial(hybrids.create, gateway.http_url, ROOM, links=True, bounds=BOUNDS)
    clients = [await create(transports=list(ladder)) for ladder in ladders]
    await asyncio.gather(*(client.first("ready") for client in clients))
    async with stream(gateway) as events:
        await asyncio.gather(*map(lose_all_in_turn, clients, ladders, [fault] * len(clients)))
    await gateway.publish(type="lead:updated", data={"leadId": "1", "n": events.published})
    for client in clients:
        await client.until(lambda client=client: client.numbers[-1] == events.published)  # type: ignore[misc]
        assert client.numbers == list(range(events.published + 1)), client.statuses
        assert not [m for m in client.messages if m["is"] in ("gap", "error")]
        await client.do("close")


async def test_killed_in_every_order(gateway: Gateway, hybrids: Hybrids) -> None:
    await check(gateway, hybrids, list(permutations(TRANSPORTS)), "kill")


async def test_blacked_out_in_every_order(gateway: Gateway, hybrids: Hybrids) -> None:
    await check(gateway, hybrids, list(permutations(TRANSPORTS)), "blackhole")
