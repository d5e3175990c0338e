"""What these tests have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.mqtt_edge.support import close_clients


@pytest.fixture(autouse=True)
async def closed_clients() -> AsyncIterator[None]:
    """Close the raw MQTT clients that a test left open: a later test's loop cannot."""
    yield
    await close_clients()
