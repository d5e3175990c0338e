"""A door for brokers over the real gate of the reference domain."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.brokers.desk import Desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with Desk() as opened:
        yield opened
