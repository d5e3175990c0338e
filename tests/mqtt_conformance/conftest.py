"""A gateway per module, on free ports, with its log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio

from gapless.config import Settings
from gapless.gateway import Gateway

if TYPE_CHECKING:
    from tests.mqtt_conformance.desk import Desk


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(Settings(port=0, mqtt_port=0, data=None)) as running:
        yield running
    assert running.mqtt.stats.failures == 0, "a defect was met while serving: see the log"


@pytest_asyncio.fixture(loop_scope="module")
async def desk(gateway: Gateway) -> AsyncIterator[Desk]:
    # Imported here: while conftest files are loaded, pytest knows `tests` as no package yet.
    from tests.mqtt_conformance.desk import Desk
    from tests.mqtt_edge import support

    yield Desk(gateway)
    writers, support._opened[:] = list(support._opened), []
    for writer in writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
