"""A gateway behind a link, a browser, and a stream of numbered events: what the tests in Chromium share."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from gapless.testing import SERVE_COMMAND, Gateway, Link, run_gateway
from tests.http.browser import Tab, browser
from tests.sdk.pages import bundle, served

SETTINGS = """
[http]
origins = ["{origin}", "{localhost}", "null"]
"""


class Stage:
    """A gateway behind a link, a browser, and a stream of numbered events.

    Attributes:
        publish_to: the gateway's address for what is published.
        origin: where the pages come from.
        published: how many events there are.
        first: how many there were when the test began.
    """

    def __init__(self, origin: str, gateway: Gateway, link: Link, tab: Tab) -> None:
        self.gateway = gateway
        self.link = link
        self.tab = tab
        self.published = 0
        self.first = 0
        self.origin = origin
        self._http = httpx.AsyncClient()
        self._turn = asyncio.Lock()
        self.publish_to = gateway.http
        self._published = asyncio.Event()
        self._users = itertools.count()

    def url(self, **query: str) -> str:
        """The page's address; without a `user` it is one whom no browser has seen."""
        given = {"gateway": self.link.url("http"), "user": f"user{next(self._users)}", **query}
        return f"{self.origin}/page.html?{httpx.QueryParams(given)}"

    async def publish(self) -> None:
        """The next event, through no link; tried until it is acknowledged."""
        async with self._turn:
            await self._publish()

    async def _publish(self) -> None:
        event = {"id": f"e{self.published}", "type": "lead:updated", "data": {"leadId": "1", "n": self.published}}
        while True:
            try:
                answer = await self._http.post(f"{self.publish_to}/api/events", json=event, timeout=5)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code == 201, answer.text
            self.published += 1
            self._published.set()
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

    async def all_show_more(self, count: int = 5) -> None:
        """Wait until each client of many.html has shown so many more."""
        await self.tab.run("for (const client of all()) client.mark = client.shown.length")
        await self.tab.until(f"all().every(({{ mark, shown }}) => shown.length >= mark + {count})")

    async def reach(self, published: int) -> None:
        """Wait until the stream has published so many."""
        while self.published < published:
            self._published.clear()
            await self._published.wait()

    async def all_shown(self, tab: Tab | None = None, *, errors: Sequence[str] = ()) -> None:
        """Wait for the last event; then each was shown once and in order, and the client told of these errors."""
        tab = tab or self.tab
        await self.publish()
        await tab.until(f"shown.at(-1) === {self.published - 1}")
        assert await tab.run("shown") == list(range(self.first, self.published)), await tab.run("statuses")
        assert await tab.run("gaps") == []
        assert await tab.run("errors") == list(errors)

    async def close(self) -> None:
        await self._http.aclose()


@asynccontextmanager
async def staged(folder: Path, *options: str, command: Sequence[str] = SERVE_COMMAND) -> AsyncIterator[Stage]:
    """Set it up in a folder; `options` are more ones of `gapless serve`, `command` is how that is run."""
    await bundle(folder)
    config = folder / "gateway.toml"
    with served(folder) as origin:
        config.write_text(SETTINGS.format(origin=origin, localhost=origin.replace("127.0.0.1", "localhost")))
        async with (
            run_gateway("--config", str(config), *options, command=command) as gateway,
            Link.to(gateway.http) as link,
            browser(folder / "profile") as tab,
        ):
            stage = Stage(origin, gateway, link, tab)
            try:
                yield stage
            finally:
                await stage.close()
