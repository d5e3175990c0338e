"""A gateway and a Node process of hybrid clients for each module's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gapless.config import Settings
from gapless.gateway import Gateway

if TYPE_CHECKING:
    from tests.sdk.hybrid import Hybrids
    from tests.sdk.stage import Stage


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theatre(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """What the tests of a module share in Chromium."""
    from tests.sdk.stage import staged

    async with staged(tmp_path_factory.mktemp("browser")) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def stage(theatre: Stage) -> AsyncIterator[Stage]:
    """For one test: its events begin here, in a tab of its own."""
    theatre.first = theatre.published
    theatre.tab = theatre.tab.another()
    yield theatre
    await theatre.tab.close()
