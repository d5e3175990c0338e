"""A real network between Chromium and the gateway, unplugged and swallowed in the middle of a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gapless.testing import SERVE_COMMAND
from tests.sdk.hybrid import TRANSPORTS
from tests.sdk.netns import Namespace, Wire, namespace, why_not
from tests.sdk.stage import Stage, staged

pytestmark = [
    pytest.mark.needs_sdk,
    pytest.mark.needs_chromium,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

BOUNDS = {"open": 1500, "silence": 800, "check": 1000}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network() -> AsyncIterator[Namespace]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    async with namespace(wires=2) as network:
        yield network


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theatre(network: Namespace, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """The gateway is in the namespace; what publishes has a wire of its own, that never fails."""
    command = (*network.command, *SERVE_COMMAND)
    options = ("--host", "0.0.0.0", "--insecure")
    async with staged(tmp_path_factory.mktemp("browser"), *options, command=command) as stage:
        stage.publish_to = f"http://{network.wires[1].address}:{stage.gateway.http_port}"
        yield stage


async def unplugged(wire: Wire, stage: Stage) -> None:
    await wire.unplug()
    await stage.tab.until("all().every(({ over }) => !over)")
    await wire.plug()


async def swallowed(wire: Wire, stage: Stage) -> None:
    await wire.swallow()
    await stage.tab.until("all().every(({ over }) => !over)")
    await wire.deliver()


@pytest.mark.parametrize("fault", [unplugged, swallowed])
async def test_each_transport_comes_back_whole(stage: Stage, network: Namespace, fault: object) -> None:
    wire = network.wires[0]
    tab = stage.tab
    await tab.open(f"{stage.origin}/many.html")
    await tab.until("begin")
    url = f"http://{wire.address}:{stage.gateway.http_port}"
    for name in TRANSPORTS:
        await tab.run(f"begin({json.dumps(name)}, {json.dumps({'url': url, 'transports': [name], 'bounds': BOUNDS})})")
    await tab.until("all().every(({ over }) => over)")
    async with stage.streaming():
        for _ in range(2):
            await stage.all_show_more()
            await fault(wire, stage)  # type: ignore[operator]
            await tab.until("all().every(({ over }) => over)")
        await stage.all_show_more()
    await stage.publish()
    last = stage.published - 1
    await tab.until(f"all().every(({{ shown }}) => shown.at(-1) === {last})")
    assert await tab.run(f"wrong({stage.first}, {last})") == {}
    await tab.run("end()")
