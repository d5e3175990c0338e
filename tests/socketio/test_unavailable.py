"""A log that takes no writes while clients connect: they come again until it does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from gapless.errors import LogUnavailable
from gapless.eventlog import MemoryLog, StateWrite
from gapless.gateway import Gateway
from gapless.testing import Link
from tests.socketio.conftest import SETTINGS, js_client

pytestmark = pytest.mark.needs_node


class FullLog(MemoryLog):
    """A log in memory whose disk can be full."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False
        self.refused = asyncio.Event()

    def write_state(self, writes: Sequence[StateWrite], *, durable: bool) -> asyncio.Future[None]:
        if not self.is_full:
            return super().write_state(writes, durable=durable)
        self.refused.set()
        refusal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refusal.set_exception(LogUnavailable("the disk is full"))
        return refusal


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]], ids="-".join)
async def test_a_client_that_comes_back_is_recovered_also_while_the_disk_is_full(
    js: Path, transports: list[str]
) -> None:
    """Its session is stored already."""
    log = FullLog()
    async with Gateway(SETTINGS, log=log) as gateway, Link.to(gateway.http_url) as link, js_client(js) as client:
        await client.connect(link.url("http"), transports=transports)
        assert (await client.request("subscribe", {"rooms": ["lead:1"]}))["ok"]
        log.is_full = True
        link.refuse()
        await link.cut()
        await client.next("disconnect")
        await gateway.publish(type="lead:updated", data={"leadId": "1", "n": 1})
        link.restore()
        assert (await client.next("connect"))["recovered"]
        assert (await client.next("event"))["args"][0] == {"leadId": "1", "n": 1}


async def test_a_new_client_that_comes_while_the_disk_is_full_connects_after_it(js: Path) -> None:
    log = FullLog()
    async with Gateway(SETTINGS, log=log) as gateway, js_client(js) as client:
        log.is_full = True
        await client.script.send({"do": "connect", "url": gateway.http_url, "options": {}})
        await log.refused.wait()
        log.is_full = False
        await client.next("connect")
        assert gateway.socketio.connections == 1
