"""The page at `/` and the API's page, in a real browser: four transports, and no gap after a cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from gapless.config import Settings
from gapless.gateway import Gateway
from gapless.topicmap import Row, TopicMap
from tests.http.browser import browser

pytestmark = pytest.mark.needs_chromium

SETTINGS = Settings(port=0, mqtt_port=None, data=None)
LANES = "document.querySelectorAll('.lane')"
CONNECTED = f"[...{LANES}].length === 4 && [...{LANES}].every((lane) => lane.dataset.state === 'connected')"
COUNTS = f"[...{LANES}].map((lane) => lane.querySelector('.count').innerText.trim())"


def everywhere(count: int) -> str:
    return f"[...{LANES}].every((lane) => lane.querySelector('.count span').textContent === '{count}')"


def press(door: str, button: str) -> str:
    choose = f"document.querySelector('[name=door][value={door}]').checked = true"
    return f"{choose}; document.querySelector('{button}').click()"


async def test_an_event_from_each_door_arrives_over_each_transport_once(tmp_path: Path) -> None:
    async with Gateway(SETTINGS) as gateway, browser(tmp_path) as tab:
        await tab.open(gateway.http_url)
        await tab.until(CONNECTED)
        for number, door in enumerate(("rest", "socketio", "mqtt1", "mqtt2"), 1):
            await tab.run(press(door, "#publish .main"))
            await tab.until(everywhere(number))
            await tab.until("document.getElementById('outcome').textContent.startsWith('Acknowledged')")
            await tab.run("document.getElementById('outcome').textContent = ''")
        assert await tab.run(COUNTS) == ["4 events"] * 4
        assert await tab.run("document.querySelectorAll('.event').length") == 4
        assert await tab.run("document.querySelectorAll('.arrival.here').length") == 16
        assert (
            await tab.run("document.getElementById('live').textContent") == "lead:created arrived over all 4 transports"
        )
        assert tab.complaints == []


async def test_a_client_that_was_cut_gets_what_it_missed_once(tmp_path: Path) -> None:
    async with Gateway(SETTINGS) as gateway, browser(tmp_path) as tab:
        await tab.open(gateway.http_url)
        await tab.until(CONNECTED)
        await tab.run(press("rest", "#publish .main"))
        await tab.until(everywhere(1))
        await tab.run(f"{LANES}.forEach((lane) => lane.querySelector('button').click())")
        await tab.until(f"[...{LANES}].every((lane) => lane.dataset.state === 'cut')")
        await tab.run(press("rest", "#burst"))
        await tab.until("document.getElementById('outcome').textContent.startsWith('All 20')")
        assert await tab.run(COUNTS) == ["1 events"] * 4
        await tab.run(f"{LANES}.forEach((lane) => lane.querySelector('button').click())")
        await tab.until(everywhere(21))
        assert await tab.run(COUNTS) == ["21 events"] * 4
        states = await tab.run(f"[...{LANES}].map((lane) => lane.querySelector('.state').textContent)")
        assert states[:2] == ["connected, recovered", "connected, session resumed"]


async def test_the_page_asks_for_the_token(tmp_path: Path) -> None:
    settings = Settings(port=0, mqtt_port=None, data=None, token="s3cret")
    async with Gateway(settings) as gateway, browser(tmp_path) as tab:
        await tab.open(gateway.http_url)
        await tab.until(f"{LANES}.length === 4 && [...{LANES}].every((lane) => lane.dataset.state === 'connecting')")
        await tab.run(press("rest", "#publish .main"))
        await tab.until("document.getElementById('outcome').textContent.includes('token')")
        await tab.until("document.getElementById('token').checkVisibility()")
        await tab.run(
            "document.getElementById('token').value = 's3cret'; document.querySelector('#settings button').click()"
        )
        await tab.until(CONNECTED)
        await tab.run(press("socketio", "#publish .main"))
        await tab.until(everywhere(1))


async def test_with_a_map_of_another_domain_the_page_shows_where_to_name_rooms(tmp_path: Path) -> None:
    shop = TopicMap([Row("shop/orders/{orderId}/placed", "order:placed", ("order:{orderId}",))])
    async with Gateway(SETTINGS, topic_map=shop) as gateway, browser(tmp_path) as tab:
        await tab.open(gateway.http_url)
        await tab.until("document.getElementById('rooms').checkVisibility()")
        await tab.run(
            "document.getElementById('rooms').value = 'order:5'; document.querySelector('#settings button').click()"
        )
        await tab.until(CONNECTED)


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_the_pages_fit_a_phone_and_break_no_policy(tmp_path: Path, path: str) -> None:
    async with Gateway(SETTINGS) as gateway, browser(tmp_path) as tab:
        await tab.open(gateway.http_url + path, width=390, height=844)
        if path == "/":
            await tab.until(CONNECTED)
            await tab.run(press("rest", "#burst"))
            await tab.until(everywhere(20))
        else:
            await tab.until("document.querySelectorAll('.operation').length > 10")
            await tab.run("document.querySelectorAll('details').forEach((part) => part.open = true)")
        assert await tab.run("document.documentElement.scrollWidth") == 390
        assert tab.complaints == []
