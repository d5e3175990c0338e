"""A gateway, a Mosquitto on its link, and two Node processes of stock clients, per worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_asyncio

from gapless.testing import run_broker, run_gateway, run_node

if TYPE_CHECKING:
    from tests.resume.clients import Site

JS = Path(__file__).parent.parent / "js"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    # Imported here: while conftest files are loaded, pytest knows `tests` as no package yet.
    from tests.resume.clients import Site
    from tests.stock_mqtt.with_mqttjs import Node

    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(run_broker())
        env = {"GAPLESS_HTTP__STREAM_RETRY": "0.02"}  # else an EventSource waits two seconds
        gateway = await stack.enter_async_context(run_gateway("--broker", broker.url, env=env))
        nodes = [
            Node(await stack.enter_async_context(run_node(JS / script)))
            for script in ("web-clients.js", "mqtt-client.js")
        ]
        yield Site(gateway, broker, web=nodes[0], mqttjs=nodes[1])
        for node in nodes:
            node.reading.cancel()
        await asyncio.gather(*(node.reading for node in nodes), return_exceptions=True)
