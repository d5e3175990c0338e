"""The recipe of docs/link.md, as it stands there, with a broker that really drops."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gapless.envelope import read_envelope
from gapless.event import Origin
from gapless.ingress import Publication
from gapless.testing import Broker, run_broker
from tests.link.support import PATIENCE, Side, options, side

pytestmark = pytest.mark.needs_mosquitto

PAGE = Path(__file__).parents[2] / "docs" / "link.md"


def device_class() -> Any:
    found = re.search(r"test_recipe.py runs this block -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)
    return names["Device"]


class Person:
    """Who uses the device: on its thread, told to the event loop."""

    def __init__(self, got: list[int], position: str | None = None) -> None:
        self.got = got
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self.device = device_class()("phone", "lead:1", "crm/leads/1/+", self.handle, position)
        self.from_broker = 0
        heard = self.device.client.on_message

        def message(client: Any, userdata: Any, message: Any) -> None:
            self.from_broker += message.topic.startswith("crm/")
            heard(client, userdata, message)
            self._loop.call_soon_threadsafe(self._news.set)

        self.device.client.on_message = message

    def handle(self, event: dict[str, Any]) -> None:
        self._loop.call_soon_threadsafe(self.got.append, event["data"]["n"])

    async def connect(self, broker: Broker) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        client = self.device.client
        await asyncio.to_thread(
            lambda: client.connect("127.0.0.1", broker.port, clean_start=False, properties=properties)
        )
        client.loop_start()
        await self.until(lambda: self.device.offset is not None and not self.device.asking)

    async def leave(self) -> None:
        self.device.client.disconnect()
        await asyncio.to_thread(self.device.client.loop_stop)

    async def until(self, done: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while not done():
                self._news.clear()
                await self._news.wait()


async def publish(gateway: Side, numbers: range) -> None:
    documents = [{"topic": "crm/leads/1/updated", "data": {"n": n}} for n in numbers]
    await gateway.ingress.submit_many(
        [Publication(envelope=read_envelope(each), origin=Origin("rest")) for each in documents]
    )
    await gateway.settled()


async def test_device_that_was_away_for_5000_events() -> None:
    """A persistent session: of 5,000 the broker keeps 1,000, by its own defaults, and the device gets all."""
    settings = {"history_topic": "gapless/history", "heartbeat_topic": "gapless/heartbeat", "heartbeat": 0.2}
    async with run_broker() as broker, side(options(broker.url, **settings)) as gateway:
        got: list[int] = []
        person = Person(got)
        await person.connect(broker)
        await publish(gateway, range(10))
        await person.until(lambda: len(person.got) >= 10)
        await person.leave()
        await publish(gateway, range(10, 5010))
        person = Person(got, person.device.position)
        await person.connect(broker)
        await publish(gateway, range(5010, 5011))
        await person.until(lambda: len(person.got) >= 5011)
        await person.leave()
    assert person.got == list(range(5011))
    assert person.from_broker < 1200
    assert gateway.link.stats.history_events >= 3900
