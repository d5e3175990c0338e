"""A page before a gateway that is linked to a Mosquitto: the broker restarts in the middle of both streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count

import pytest
import pytest_asyncio

from gapless.testing import Broker, BrokerConfig, run_broker
from tests.link.support import stock
from tests.sdk.stage import Stage, staged

pytestmark = [
    pytest.mark.needs_sdk,
    pytest.mark.needs_chromium,
    pytest.mark.needs_mosquitto,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker() -> AsyncIterator[Broker]:
    async with run_broker(BrokerConfig(max_queued_messages=0, save_every_change=True)) as broker:
        yield broker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theatre(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("browser"), "--broker", broker.url) as stage:
        yield stage


async def test_broker_and_gateway_restarted(stage: Stage, broker: Broker) -> None:
    tab = stage.tab
    await tab.open(stage.url())
    await tab.until("isWhole")
    sent = 0

    async def device() -> None:
        nonlocal sent
        async with stock(broker.port, client_id="device", clean=False) as client:
            for n in count():
                await client.publish("crm/leads/2/updated", json.dumps({"id": f"device{n}", "data": {"n": n}}))
                sent = n + 1

    async def devices_shown(more: int) -> None:
        shown = await tab.run("ofDevices.length")
        await tab.until(f"ofDevices.length >= {shown + more}")

    task = asyncio.create_task(device(), name="device")
    async with stage.streaming():
        await devices_shown(5)
        await broker.stop()
        await stage.more()  # the other way in does not mind
        await broker.start()
        await devices_shown(5)
        await stage.gateway.kill()
        await stage.gateway.start()
        await devices_shown(5)
        await stage.more()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await stage.all_shown()
    await tab.until(f"ofDevices.length >= {sent}")
    shown = await tab.run("ofDevices")
    assert shown == list(range(len(shown)))
