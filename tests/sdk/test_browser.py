"""The TypeScript client in a real Chromium, against a real gateway behind a link that fails: each event once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.sdk.stage import Stage

pytestmark = [
    pytest.mark.needs_sdk,
    pytest.mark.needs_chromium,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]


FILL_LOCAL_STORAGE = """
for (let size = 1 << 22, n = 0; size > 0; size >>= 1) {
  try { for (;;) localStorage.setItem(`filler${n++}`, "x".repeat(size)); } catch {}
}
"""


async def lose_gateway(stage: Stage) -> None:
    await stage.gateway.kill()
    await stage.gateway.start()


async def lose_network(stage: Stage) -> None:
    await stage.tab.network(offline=True)
    await stage.link.cut()
    await stage.tab.until("!isWhole")
    await stage.tab.network(offline=False)


async def change_network(stage: Stage) -> None:
    """Connections are dead and nobody says so, until the device does."""
    stage.link.blackhole()
    await stage.publish()
    await stage.tab.run("dispatchEvent(new Event('offline'))")
    await stage.tab.until("!isWhole")
    await stage.link.cut()
    stage.link.restore()
    await stage.tab.run("dispatchEvent(new Event('online'))")


async def reload(stage: Stage) -> None:
    await stage.tab.reload()


FAULTS: list[Any] = [lose_gateway, lose_network, change_network, reload]


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_event_is_shown_once(stage: Stage, fault: Any) -> None:
    tab = stage.tab
    await tab.open(stage.url())
    await tab.until("state === 'live socketio'")
    async with stage.streaming():
        await stage.more()
        for _ in range(2):
            await fault(stage)
            await tab.until("isWhole")
            await stage.more()
    await stage.all_shown()


async def test_each_transport_works_in_a_browser(stage: Stage) -> None:
    tab = stage.tab
    for transport in ("socketio", "mqtt", "sse", "poll"):
        await tab.open(stage.url(transports=transport))
        await tab.until(f"state === 'live {transport}'")
        async with stage.streaming():
            await stage.more()
            await stage.link.cut()
            await stage.more()
        await stage.all_shown()
        answer = await tab.run("rt.publish({ topic: 'other/topic', data: { by: 'a page' } })")
        assert answer["position"]
        await tab.run("rt.close()")
        stage.first = stage.published
    assert "TypeError" not in str(tab.complaints)


async def test_a_hidden_page_goes_on(stage: Stage) -> None:
    tab = stage.tab
    await tab.open(stage.url())
    await tab.until("isWhole")
    async with stage.streaming():
        await stage.more()
        await tab.minimise()
        assert await tab.run("document.visibilityState") == "hidden"
        await stage.more()
        stage.link.blackhole()  # the network drops while nobody looks
        await stage.publish()
        await tab.restore()
        await tab.until("!isWhole")
        await stage.link.cut()
        stage.link.restore()
        await tab.until("isWhole")
    await stage.all_shown()


@pytest.mark.parametrize("transport", ["socketio", "mqtt", "sse", "poll"])
async def test_a_frozen_page_comes_back_whole(stage: Stage, transport: str) -> None:
    tab = stage.tab
    await tab.open(stage.url(transports=transport))
    await tab.until("isWhole")
    async with stage.streaming():
        await stage.more()
        await tab.freeze()
        published = stage.published
        stage.link.blackhole()
        await stage.reach(published + 10)
        await stage.link.cut("fin")
        stage.link.restore()
        await stage.reach(published + 20)
        await tab.thaw()
        await stage.more(count=25)
        await tab.until("isWhole")
    await stage.all_shown()


async def test_a_page_that_may_keep_nothing(stage: Stage) -> None:
    """Local storage, IndexedDB and locks are forbidden, as in some private windows and in sandboxed frames."""
    tab = stage.tab
    await tab.open(stage.url(tabs="1") + "&sandboxed")
    await tab.until("isWhole")
    assert await tab.run("(() => { try { return typeof localStorage; } catch (error) { return error.name; } })()") == (
        "SecurityError"
    )
    async with stage.streaming():
        await stage.more()
        await stage.link.cut()
        await stage.more()
    published = await tab.run("rt.publish({ topic: 'other/topic', data: 1 })")
    assert published["position"]
    await stage.all_shown(errors=["storage_failed"])
    assert tab.complaints == [], "nothing that nobody caught"


async def test_a_page_whose_storage_is_full(stage: Stage) -> None:
    tab = stage.tab
    # An origin of its own: Chromium remembers for a while how much room the others had.
    origin = stage.origin.replace("127.0.0.1", "localhost")
    await tab.open("about:blank")
    await tab.call("Storage.overrideQuotaForOrigin", origin=origin, quotaSize=1)
    await tab.call("Page.navigate", url=stage.url().replace(stage.origin, origin))
    await tab.until("isWhole")
    published = await tab.run("rt.publish({ topic: 'other/topic', data: 'x'.repeat(100000) })")
    assert published["position"]
    await tab.until("errors.length")
    await tab.run(FILL_LOCAL_STORAGE)
    async with stage.streaming():
        await stage.more()
        await stage.link.cut()
        await stage.more()
    await stage.all_shown(errors=["storage_failed"])


async def connections(stage: Stage) -> int:
    """Socket.IO connections at the gateway now."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{stage.gateway.http}/metrics")).text
    return sum(
        int(float(line.split()[-1]))
        for line in text.splitlines()
        if line.startswith("gapless_connections{") and 'transport="socketio"' in line
    )


async def test_tabs_share_a_connection_and_outlive_each_other(stage: Stage) -> None:
    while await connections(stage):  # of tabs that were closed
        await asyncio.sleep(0.02)
    address = stage.url(tabs="1", user="shared")
    leader, follower = stage.tab.another(), stage.tab.another()
    await leader.open(address)
    await leader.until("isWhole")
    await follower.open(address)
    await follower.until("isWhole")
    assert await connections(stage) == 1
    async with stage.streaming():
        for tab in (leader, follower):
            await stage.more(tab)
        await stage.link.cut()
        for tab in (leader, follower):
            await stage.more(tab)
        await stage.publish()
    await stage.all_shown(leader)
    await stage.all_shown(follower)
    async with stage.streaming():
        await stage.more(follower)
        await leader.close()
        await stage.more(follower)
        await follower.reload()
        await follower.until("shown.length > 0 && isWhole")
        await stage.more(follower)
    await stage.all_shown(follower)
    assert await connections(stage) == 1
    await follower.close()
