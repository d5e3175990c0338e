"""A gateway and a Node process of hybrid clients for each module's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio

from gapless.config import Settings
from gapless.gateway import Gateway

if TYPE_CHECKING:
    from tests.sdk.hybrid import Hybrids


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(Settings(port=0, mqtt_port=None, data=None)) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hybrids() -> AsyncIterator[Hybrids]:
    # Imported here: while conftest files are loaded, pytest knows `tests` as no package yet.
    from tests.sdk.hybrid import run_hybrids

    async with run_hybrids() as hybrids:
        yield hybrids
