"""Publications made without a gateway outlive the process or the page that made them: each is sent once, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gapless.config import Settings
from gapless.gateway import Gateway
from gapless.testing import Link
from tests.sdk.hybrid import run_hybrids
from tests.sdk.stage import Stage

pytestmark = [pytest.mark.needs_sdk, pytest.mark.asyncio(loop_scope="module")]

IDS = [f"p{n}" for n in range(5)]


@pytest_asyncio.fixture(loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(Settings(port=0, mqtt_port=None, data=None)) as gateway:
        yield gateway


async def test_a_node_process_killed_between_publish_and_sending(
    gateway: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = str(tmp_path_factory.mktemp("client"))
    async with Link.to(gateway.http_url) as link:
        async with run_hybrids() as first:
            client = await first.create(link.url("http"), "org:global", folder=folder, user="ana")
            await client.first("ready")
            link.blackhole()  # requests leave, and no answer comes
            for n, name in enumerate(IDS[:3]):
                await client.do(
                    "publish", publication={"type": "lead:updated", "data": {"leadId": "1", "n": n}, "id": name}
                )
            await client.do("status")
            assert (await client.first("snapshot"))["queueLength"] == 3
            await first.kill()
        link.restore()  # what the killed process had sent arrives now: the answers went to nobody
        async with run_hybrids() as second:
            client = await second.create(link.url("http"), "org:global", folder=folder, user="ana")
            for n, name in enumerate(IDS[3:], 3):
                await client.do(
                    "publish", publication={"type": "lead:updated", "data": {"leadId": "1", "n": n}, "id": name}
                )
            await client.first("published", id=IDS[-1])
            await client.until(lambda: len(client.heard) == 5)
            assert [m["id"] for m in client.messages if m["is"] == "sent"] == IDS[:3]
            assert [m["id"] for m in client.heard] == IDS
            assert client.numbers == list(range(5)), "in the order of their publishing"
            await client.do("status")
            assert (await client.first("snapshot"))["queueLength"] == 0
        async with run_hybrids() as third:
            client = await third.create(link.url("http"), "org:global", folder=folder, user="ana")
            await client.first("ready")
            assert not [m for m in client.messages if m["is"] == "sent"], "nothing is sent again"


@pytest.mark.needs_chromium
async def test_a_page_closed_between_publish_and_sending(stage: Stage) -> None:
    tab = stage.tab
    address = stage.url(user="outbox")
    await tab.open(address)
    await tab.until("isWhole")
    stage.link.blackhole()
    await tab.run("for (let n = 0; n < 3; n++) void rt.publish('lead:updated', { leadId: '1', n }).catch(() => {})")
    await tab.until("rt.status.getSnapshot().queueLength === 3")
    await tab.run("untilKept(3)")
    await tab.close()
    await stage.link.cut()
    stage.link.restore()
    await tab.open(address)
    await tab.until("rt")
    await tab.run("rt.publish('lead:updated', { leadId: '1', n: 3 })")
    await tab.until("shown.length >= 4 && rt.status.getSnapshot().queueLength === 0")
    assert await tab.run("shown") == [0, 1, 2, 3]
    await tab.run("untilKept(0)")
