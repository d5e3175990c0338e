"""The TypeScript client in a real Chromium, against a real gateway behind a link that fails: each event once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gapless.testing import Gateway, Link, run_gateway
from tests.http.browser import Tab, browser
from tests.sdk.pages import bundle, served

pytestmark = [
    pytest.mark.needs_sdk,
    pytest.mark.needs_chromium,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

SETTINGS = """
[http]
origins = ["{origin}"]
"""


class Stage:
    """A gateway behind a link, a browser, and a stream of numbered events.

    Attributes:
        published: how many events there are.
        first: how many there were when the test began.
    """

    def __init__(self, origin: str, gateway: Gateway, link: Link, tab: Tab) -> None:
        self.gateway = gateway
        self.link = link
        self.tab = tab
        self.published = 0
        self.first = 0
        self._origin = origin
        self._http = httpx.AsyncClient()
        self._turn = asyncio.Lock()
        self._users = itertools.count()

    def url(self, **query: str) -> str:
        """The page's address; without a `user` it is one whom no browser has seen."""
        given = {"gateway": self.link.url("http"), "user": f"user{next(self._users)}", **query}
        return f"{self._origin}/page.html?{httpx.QueryParams(given)}"

    async def publish(self) -> None:
        """The next event, through no link; tried until it is acknowledged."""
        async with self._turn:
            await self._publish()

    async def _publish(self) -> None:
        event = {"id": f"e{self.published}", "type": "lead:updated", "data": {"leadId": "1", "n": self.published}}
        while True:
            try:
                answer = await self._http.post(f"{self.gateway.http}/api/events", json=event, timeout=5)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code == 201, answer.text
            self.published += 1
            return

    @asynccontextmanager
    async def streaming(self) -> AsyncIterator[None]:
        """50 events a second."""

        async def stream() -> None:
            while True:
                await self.publish()
                await asyncio.sleep(0.02)

        task = asyncio.create_task(stream(), name="stream")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def more(self, tab: Tab | None = None, count: int = 5) -> None:
        """Wait until the page has shown so many more."""
        tab = tab or self.tab
        shown = await tab.run("shown.length")
        await tab.until(f"shown.length >= {shown + count}")

    async def all_shown(self, tab: Tab | None = None) -> None:
        """Wait for the last event; then each was shown once and in order."""
        tab = tab or self.tab
        await self.publish()
        await tab.until(f"shown.at(-1) === {self.published - 1}")
        assert await tab.run("shown") == list(range(self.first, self.published)), await tab.run("statuses")
        assert await tab.run("gaps") == []
        assert await tab.run("errors") == []

    async def close(self) -> None:
        await self._http.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theatre(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """What all tests share."""
    folder = tmp_path_factory.mktemp("browser")
    await bundle(folder)
    config = folder / "gateway.toml"
    with served(folder) as origin:
        config.write_text(SETTINGS.format(origin=origin))
        async with (
            run_gateway("--config", str(config)) as gateway,
            Link.to(gateway.http) as link,
            browser(folder / "profile") as tab,
        ):
            stage = Stage(origin, gateway, link, tab)
            yield stage
            await stage.close()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(theatre: Stage) -> AsyncIterator[Stage]:
    """For one test: its events begin here, in a tab of its own."""
    theatre.first = theatre.published
    theatre.tab = theatre.tab.another()
    yield theatre
    await theatre.tab.close()


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
    await stage.tab.run("location.reload()")
    await stage.tab.until("statuses.length > 0")


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
        await tab.run(
            "Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        await stage.more()
        stage.link.blackhole()  # the network drops while nobody looks
        await stage.publish()
        await tab.run(
            "Object.defineProperty(document, 'visibilityState', { value: 'visible', configurable: true });"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        await tab.until("!isWhole")
        await stage.link.cut()
        stage.link.restore()
        await tab.until("isWhole")
    await stage.all_shown()


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
        await follower.run("location.reload()")
        await follower.until("shown.length > 0 && isWhole")
        await stage.more(follower)
    await stage.all_shown(follower)
    assert await connections(stage) == 1
    await follower.close()
