"""@gapless/react in a real Chromium before a real gateway: StrictMode, presence, and how <ConnectionStatus/> looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from gapless.config import Settings
from gapless.gateway import Gateway
from gapless.presence import PresenceOptions
from gapless.testing import Link
from gapless.transports.http import HttpOptions
from tests.gates import TableGate
from tests.http.browser import Tab, browser
from tests.sdk.pages import bundle, served

pytestmark = [
    pytest.mark.needs_sdk,
    pytest.mark.needs_chromium,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

ROOM, TOPIC = "user:1", "crm/users/1/presence"
SIZES = {"desktop": (1280, 800), "phone": (390, 760)}
TEXT = "document.querySelector('.gapless-status-badge').innerText"
STATE = "document.querySelector('.gapless-status').dataset.state"
INSIDE = """
(() => {
  const panel = document.querySelector(".gapless-status-panel").getBoundingClientRect();
  const wide = document.documentElement.scrollWidth > innerWidth;
  return !wide && panel.left >= 0 && panel.top >= 0 && panel.right <= innerWidth && panel.bottom <= innerHeight;
})()
"""


class Stage:
    """The gateway, a link to it, the pages' server and a browser."""

    def __init__(self, gateway: Gateway, link: Link, origin: str, tab: Tab) -> None:
        self.gateway = gateway
        self.link = link
        self._origin = origin
        self._tab = tab

    async def open(self, user: str, size: str = "desktop", **query: str) -> Tab:
        """A tab of a user, whole."""
        tab = self._tab.another()
        given = {"gateway": self.link.url("http"), "token": user, "room": ROOM, "topic": TOPIC, **query}
        width, height = SIZES[size]
        await tab.open(f"{self._origin}/react.html?{httpx.QueryParams(given)}", width=width, height=height)
        await tab.until("document.querySelector('#room').dataset.state === 'joined'")
        return tab

    async def publish(self, n: int) -> None:
        await self.gateway.publish(topic=TOPIC, data={"n": n})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("react")
    await bundle(folder)
    gate = TableGate()
    for user in ("ana", "bob"):
        gate.hears[user] |= {ROOM, TOPIC, "crm/users/1/notifications/+"}
        gate.says[user] |= {TOPIC}
    presence = PresenceOptions(grace=0.0, interval=0.0, publish="")
    with served(folder) as origin:
        settings = Settings(port=0, mqtt_port=None, data=None, presence=presence, http=HttpOptions(origins=(origin,)))
        async with (
            Gateway(settings, gate=gate) as gateway,
            Link.to(gateway.http_url) as link,
            browser(folder / "profile") as tab,
        ):
            yield Stage(gateway, link, origin, tab)


@pytest.mark.parametrize("transport", ["socketio", "sse"])
async def test_who_is_here_comes_and_goes(stage: Stage, transport: str) -> None:
    ana = await stage.open("ana", transports=transport)
    await ana.until("document.querySelector('#people').innerText === 'ana'")
    bob = await stage.open("bob")
    await bob.until("document.querySelector('#people').innerText === 'ana, bob'")
    if transport == "socketio":  # told at once; the others ask every 15 s
        await ana.until("document.querySelector('#people').innerText === 'ana, bob'")
        await bob.close()
        await ana.until("document.querySelector('#people').innerText === 'ana'")
    else:
        await ana.close()
        await bob.until("document.querySelector('#people').innerText === 'bob'")
        await bob.close()
    await ana.close()


async def test_strict_mode_makes_one_connection_and_handles_each_event_once(stage: Stage) -> None:
    accepted = stage.link.connections
    tab = await stage.open("ana", transports="sse")
    await tab.until("transport === 'sse'")
    # A description, the catch-up that a first visit does not need, and one stream: no second client's.
    assert stage.link.connections - accepted <= 3
    for n in range(3):
        await stage.publish(n)
    await tab.until("document.querySelectorAll('#feed li').length === 3")
    await stage.link.cut()
    await stage.publish(3)
    await tab.until("document.querySelectorAll('#feed li').length === 4")
    assert await tab.run("handled") == [0, 1, 2, 3]
    assert await tab.run("document.querySelector('#feed').innerText.split('\\n')") == [
        f"Update {n}" for n in (3, 2, 1, 0)
    ]
    assert [complaint for complaint in tab.complaints if "net::ERR" not in complaint] == []
    await tab.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_state_of_the_connection_is_shown(stage: Stage, size: str, scheme: str, tmp_path: Path) -> None:
    tab = await stage.open("ana", size)
    await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    await tab.until(f"{STATE} === 'live'")
    assert await tab.run(TEXT) == "Live\nSocket.IO"
    for n in range(4):
        await stage.publish(n)
    await tab.until("document.querySelectorAll('#feed li').length === 4")
    await tab.screenshot(tmp_path / "live.png")
    await tab.run("document.querySelector('.gapless-status-badge').click()")
    await tab.until(INSIDE)
    await tab.screenshot(tmp_path / "panel.png")
    stage.link.refuse()
    await stage.link.cut()
    await tab.run("document.querySelector('#publish').click()")
    await tab.until(f"{STATE} === 'offline' && {TEXT}.endsWith('1')")
    await tab.until("document.querySelector('.gapless-status-error code').innerText === 'network'")
    assert "cannot be reached" in await tab.run("document.querySelector('.gapless-status-error').innerText")
    await tab.until(INSIDE)
    await tab.screenshot(tmp_path / "offline.png")
    stage.link.restore()
    await tab.run("document.querySelector('.gapless-status-reconnect').click()")
    await tab.until(f"{STATE} === 'live'")
    await tab.until("document.querySelector('#publish').dataset.answers === '1'")
    await tab.until("!document.querySelector('.gapless-status-error') && handled.at(-1) === -1")
    await tab.run("document.querySelector('.gapless-status-reconnect').focus()")
    await tab.call("Input.dispatchKeyEvent", type="keyDown", key="Escape", code="Escape", windowsVirtualKeyCode=27)
    await tab.until("!document.querySelector('.gapless-status-panel')")
    assert await tab.run("document.activeElement.className") == "gapless-status-badge"
    await tab.close()
