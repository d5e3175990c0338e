"""The whole gateway as a process: killed, restarted, with a real broker on its link."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gapless.testing import BrokerConfig, Gateway, run_broker, run_gateway

PATIENCE = 60.0


class Subscriber:
    """A stock paho client with a persistent session, which keeps what it hears.

    `heard` and `_once` grow in paho's thread, which wakes the loop only for the message awaited.
    """

    def __init__(self, port: int, topic: str, *, client_id: str = "phone") -> None:
        self.heard: list[dict[str, Any]] = []
        self._once: dict[str, None] = {}
        self._awaited = 0
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._ready = asyncio.Event()
        self._topic = topic
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=False)
        client.on_connect = lambda c, *_: c.subscribe(topic, qos=1)
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.reconnect_delay_set(1, 1)
        client.connect_async("127.0.0.1", port)
        self._client = client

    def _on_subscribe(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._ready.set)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        heard = json.loads(message.payload)
        self.heard.append(heard)
        self._once[heard["id"]] = None
        if len(self._once) == self._awaited:
            self._loop.call_soon_threadsafe(self._news.set)

    async def start(self) -> None:
        self._client.loop_start()
        async with asyncio.timeout(PATIENCE):
            await self._ready.wait()

    async def stop(self) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def once(self) -> list[str]:
        """Ids of what was heard, without what came again (QoS 1 says at least once)."""
        return list(self._once)

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            self._news.clear()
            self._awaited = count
            while len(self._once) < count:
                await self._news.wait()


async def publish(http: httpx.AsyncClient, numbers: range) -> None:
    """Publish over REST, again and again with the same id until it is acknowledged."""
    for n in numbers:
        event = {"id": f"e{n:06d}", "type": "lead:updated", "data": {"leadId": "1", "n": n}}
        while True:
            try:
                answer = await http.post("/api/events", json=event)
            except httpx.TransportError:
                await asyncio.sleep(0.05)  # the gateway is down
                continue
            assert answer.status_code == 201, answer.text
            break


async def ids_in_log(http: httpx.AsyncClient, after: str = "start") -> list[str]:
    ids: list[str] = []
    while True:
        page = (await http.get("/api/events", params={"rooms": "lead:1", "after": after, "limit": 1000})).json()
        assert page["complete"]
        if not page["events"]:
            return ids
        ids += [event["id"] for event in page["events"]]
        after = page["position"]


@pytest.mark.needs_mosquitto
@pytest.mark.timeout(180)
async def test_a_thousand_events_pass_the_death_of_the_broker_and_of_the_gateway(tmp_path: Path) -> None:
    config = BrokerConfig(save_every_change=True, max_queued_messages=0)
    async with run_broker(config, folder=tmp_path / "broker") as broker:
        options = ("--broker", broker.url)
        async with run_gateway(*options, data=tmp_path / "data") as gateway:
            far = Subscriber(broker.port, "crm/leads/1/updated")  # on the broker's side
            near = Subscriber(gateway.mqtt_port, "crm/leads/1/updated")  # on the edge
            await far.start()
            await near.start()
            async with httpx.AsyncClient(base_url=gateway.http, timeout=30) as http:
                await publish(http, range(300))
                publishing = asyncio.create_task(publish(http, range(300, 600)))
                await near.wait(350)
                await broker.kill()
                await publishing
                await broker.start()
                publishing = asyncio.create_task(publish(http, range(600, 1000)))
                await near.wait(700)
                await gateway.kill()
                await gateway.start()
                await publishing
                expected = [f"e{n:06d}" for n in range(1000)]
                await near.wait(1000)
                await far.wait(1000)
                assert await ids_in_log(http) == expected
            assert near.once() == expected
            assert far.once() == expected
            await near.stop()
            await far.stop()


async def resident_bytes(gateway: Gateway) -> int:
    status = await asyncio.to_thread(Path(f"/proc/{gateway.pid}/statm").read_text)
    return int(status.split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's memory from /proc")
async def test_a_hundred_thousand_messages_wait_for_a_client_that_is_away(tmp_path: Path) -> None:
    total, batch = 100_000, 2_000
    options = ("--config", str(tmp_path / "gateway.toml"))
    # A small window of recent events: what the client missed must come from the log.
    (tmp_path / "gateway.toml").write_text("recent_events = 5000\n")
    async with run_gateway(*options, data=tmp_path / "data") as gateway:
        phone = Subscriber(gateway.mqtt_port, "crm/leads/1/updated")
        await phone.start()
        await phone.stop()
        sizes: list[int] = []
        async with httpx.AsyncClient(base_url=gateway.http, timeout=60) as http:
            for start in range(0, total, batch):
                events = [
                    {"type": "lead:updated", "data": {"leadId": "1", "n": n}} for n in range(start, start + batch)
                ]
                answer = await http.post("/api/events", json=events)
                assert answer.status_code == 201, answer.text
                sizes.append(await resident_bytes(gateway))
                if start == total // 2:
                    await gateway.kill()
                    await gateway.start()
                    sizes.clear()
        # After the window of recent events is full, 40,000 more events cost no memory.
        assert max(sizes[10:]) - sizes[9] < 24 << 20, sizes
        again = Subscriber(gateway.mqtt_port, "crm/leads/1/updated")
        await again.start()
        await again.wait(total)
        await again.stop()
        assert [message["data"]["n"] for message in again.heard] == list(range(total))
