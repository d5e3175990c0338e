"""examples/crm, whole: its own commands, and a change that crosses from one person's page to another's."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import httpx
import pytest
import pytest_asyncio

from gapless.testing import free_port
from tests.docs.blocks import ROOT, shell
from tests.docs.programs import Reader
from tests.http.browser import Tab, browser

pytestmark = [pytest.mark.needs_sdk, pytest.mark.needs_chromium, pytest.mark.asyncio(loop_scope="module")]

README = "examples/crm/README.md"


class Crm:
    """The example as it runs."""

    def __init__(self, page: str, tab: Tab, restart: Callable[[], Awaitable[AsyncExitStack]]) -> None:
        self.page = page
        self.tab = tab
        self._start_gateway = restart
        self._gateway = AsyncExitStack()

    async def start_gateway(self) -> None:
        self._gateway = await self._start_gateway()

    async def kill_gateway(self) -> None:
        await self._gateway.aclose()

    async def ask(self, user: str, method: str, path: str, body: dict[str, str] | None = None) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.page) as http:
            token = (await http.post("/session", json={"user": user})).json()["token"]
            return await http.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})

    async def open(self, user: str) -> None:
        await self.tab.open(f"{self.page}/?user={user}")
        await self.tab.until("document.querySelector('.gapless-status').dataset.state === 'live'")

    async def until_shown(self, text: str) -> None:
        await self.tab.until(f"document.body.innerText.includes({json.dumps(text)})")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Crm]:
    repository = tmp_path_factory.mktemp("repository")
    for name in (".venv", "sdk"):
        (repository / name).symlink_to(ROOT / name)
    folder = repository / "examples" / "crm"
    shutil.copytree(ROOT / "examples" / "crm", folder, ignore=shutil.ignore_patterns("private"))
    port, gateway_port = free_port(), free_port()
    page = f"http://127.0.0.1:{port}"
    env = {
        "GAPLESS_PORT": str(gateway_port),
        "GAPLESS_MQTT_PORT": "0",
        "GAPLESS_AUTH__ASK__URL": f"{page}/realtime/allow",
        "GAPLESS_HTTP__ORIGINS": json.dumps([page]),
    }
    reader = Reader(folder, {}, env)
    prepare, serve, backend = (line.partition("#")[0].split() for line in shell(README, "./prepare").code.splitlines())
    async with AsyncExitStack() as stack:
        await reader.run(*prepare)

        async def start() -> AsyncExitStack:
            life = AsyncExitStack()
            gateway = await life.enter_async_context(reader.running(*serve, "--json"))
            assert json.loads(await gateway.line())["ready"]
            return life

        options = ("--port", str(port), "--gateway", f"http://127.0.0.1:{gateway_port}")
        running = await stack.enter_async_context(reader.running(*backend, *options))
        assert page in await running.line()
        tab = await stack.enter_async_context(browser(tmp_path_factory.mktemp("profile")))
        crm = Crm(page, tab, start)
        await crm.start_gateway()
        stack.push_async_callback(crm.kill_gateway)
        yield crm


async def test_a_change_crosses(crm: Crm) -> None:
    await crm.open("max")
    await crm.tab.until("document.querySelectorAll('.leads li').length === 5")
    await crm.tab.run("document.querySelector('.leads button').click()")
    await crm.tab.until("document.querySelector('.people').innerText.includes('M')")  # it is there itself
    answer = await crm.ask("sam", "POST", "/leads/1/activities", {"kind": "call", "text": "They want blue anvils"})
    assert answer.status_code == 201
    await crm.until_shown("They want blue anvils")
    await crm.ask("sam", "PATCH", "/leads/1", {"stage": "won"})
    await crm.tab.until("document.querySelector('.leads .stage').innerText === 'won'")
    assert crm.tab.complaints == []


async def test_somebody_unknown_is_told_who_is_known(crm: Crm) -> None:
    await crm.tab.open(f"{crm.page}/?user=bob", width=390, height=844)
    await crm.until_shown("Known are max, sam and kim.")
    crm.tab.complaints.clear()


async def test_the_longest_state_fits_a_phone(crm: Crm) -> None:
    await crm.tab.open(f"{crm.page}/?user=max", width=390, height=844)
    await crm.tab.until("document.querySelector('.gapless-status').dataset.state === 'live'")
    await crm.tab.run("document.querySelector('.gapless-status-state').textContent = 'Live, on a fallback'")
    assert await crm.tab.run("document.documentElement.scrollWidth") == 390


async def test_a_lead_changes_hands(crm: Crm) -> None:
    await crm.open("sam")
    await crm.tab.until("document.querySelectorAll('.leads li').length === 3")
    assert (await crm.ask("sam", "PATCH", "/leads/3", {"stage": "won"})).status_code == 404  # Kim's
    assert (await crm.ask("sam", "PATCH", "/leads/2", {"owner": "kim"})).status_code == 400  # a manager's to give
    await crm.ask("max", "PATCH", "/leads/3", {"owner": "sam"})
    await crm.until_shown("Initech is yours now")
    await crm.tab.until("document.querySelectorAll('.leads li').length === 4")
    await crm.ask("max", "PATCH", "/leads/2", {"owner": "kim"})
    await crm.tab.until("document.querySelectorAll('.leads li').length === 3")
    await crm.tab.until("!document.body.innerText.includes('Globex')")


async def test_changes_wait_for_a_gateway_that_is_away(crm: Crm) -> None:
    await crm.open("max")
    await crm.tab.run("document.querySelectorAll('.leads button')[3].click()")
    await crm.kill_gateway()
    await crm.tab.until("document.querySelector('.gapless-status').dataset.state !== 'live'")
    await crm.ask("kim", "POST", "/leads/4/activities", {"kind": "mail", "text": "Sent while it was away"})
    await crm.start_gateway()
    await crm.until_shown("Sent while it was away")
    assert (await crm.tab.run("document.body.innerText")).count("Sent while it was away") == 1
