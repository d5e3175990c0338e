"""A gateway and a Node process per module; every kind of client, version and transport as a parameter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gapless.config import Settings
from gapless.gateway import Gateway
from gapless.testing import run_node

if TYPE_CHECKING:
    from tests.stock_mqtt.stock import Connect, Kind

SCRIPT = Path(__file__).parent.parent / "js" / "mqtt-client.js"

# Names of clients and what they speak: Debian's mosquitto clients and gmqtt have no WebSocket.
KINDS = {
    "mosquitto": (["tcp"], [pytest.mark.needs_mosquitto_clients]),
    "mqttjs": (["tcp", "ws"], [pytest.mark.needs_node]),
    "paho": (["tcp", "ws"], []),
    "gmqtt": (["tcp"], []),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(Settings(port=0, mqtt_port=0, data=None)) as running:
        yield running
    assert running.mqtt.stats.failures == 0, "a defect was met while serving: see the log"
    assert running.mqtt.stats.protocol_errors == 0, "a stock client was told that it broke the protocol"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" not in metafunc.fixturenames:
        return
    wanted = [
        pytest.param((name, version, transport), marks=marks, id=f"{name}-{version}-{transport}")
        for name, (transports, marks) in KINDS.items()
        for version in ("3.1.1", "5")
        for transport in transports
    ]
    metafunc.parametrize("kind", wanted, indirect=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mqttjs() -> AsyncIterator[Callable[[], Awaitable[Connect]]]:
    """Gives what connects mqtt.js clients; the first call starts the process."""
    # Imported here, as below: while conftest files are loaded, pytest knows `tests` as no package yet.
    from tests.stock_mqtt.with_mqttjs import Node

    nodes: list[Node] = []
    async with AsyncExitStack() as stack:

        async def start() -> Connect:
            if not nodes:
                nodes.append(Node(await stack.enter_async_context(run_node(SCRIPT))))
            return nodes[0].connector()

        yield start
        for node in nodes:
            node.reading.cancel()
            await asyncio.gather(node.reading, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="module")
async def kind(
    request: pytest.FixtureRequest, gateway: Gateway, mqttjs: Callable[[], Awaitable[Connect]]
) -> AsyncIterator[Kind]:
    from tests.stock_mqtt import with_gmqtt, with_mosquitto, with_paho
    from tests.stock_mqtt.stock import Kind

    name, version, transport = request.param
    connectors = {"gmqtt": with_gmqtt.connect, "mosquitto": with_mosquitto.connect, "paho": with_paho.connect}
    connect = await mqttjs() if name == "mqttjs" else connectors[name]
    running = Kind(name, connect, version, transport, gateway)
    yield running
    await running.close()
