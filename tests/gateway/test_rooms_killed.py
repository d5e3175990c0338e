"""A room over MQTT through SIGKILLs of the gateway: nothing of it is missing, in order.

At QoS 1 what was not acknowledged for good may come again; that QoS 2 is exact is shown at the edge
(`tests/mqtt_edge/test_rooms.py`).
"""

from __future__ import annotations

import asyncio
import json

import httpx

from gapless.testing import Gateway, run_gateway
from tests.mqtt_edge.support import Client, close_clients

ROUNDS, EVENTS = 3, 20


async def publish(gateway: Gateway, first: int) -> None:
    """Events of lead 1, by turns by its topic and by the payload of an activity's, among others."""
    events = []
    for number in range(first, first + EVENTS):
        topic = "crm/leads/1/updated" if number % 2 else f"crm/activities/{number}/created"
        events.append({"topic": topic, "data": {"leadId": "1", "n": number}})
        events.append({"topic": f"crm/activities/{number}/created", "data": {"leadId": "2", "n": -number}})
    async with httpx.AsyncClient(base_url=gateway.http, trust_env=False) as http:
        (await http.post("/api/events", json=events)).raise_for_status()


async def test_a_session_goes_on_after_each_kill() -> None:
    heard: list[int] = []

    async def hear(phone: Client, last: int) -> None:
        async with asyncio.timeout(30):
            while not heard or heard[-1] < last:
                number: int = json.loads((await phone.receive()).payload)["data"]["n"]
                if number not in heard:
                    heard.append(number)

    async with run_gateway() as gateway:
        for number in range(ROUNDS):
            phone, connack = await Client.connect(gateway.mqtt_port, "phone", clean=False, expiry=3600)
            assert connack.session_present is bool(number)
            if not number:
                await phone.subscribe("$room/lead:1")
            await publish(gateway, number * 2 * EVENTS)  # live, and in part unread at the kill
            await hear(phone, number * 2 * EVENTS + EVENTS // 2)
            await gateway.kill()
            await gateway.start()
            await publish(gateway, (number * 2 + 1) * EVENTS)  # while the phone is away
        phone, _ = await Client.connect(gateway.mqtt_port, "phone", clean=False, expiry=3600)
        await hear(phone, ROUNDS * 2 * EVENTS - 1)
        assert heard == list(range(ROUNDS * 2 * EVENTS))
        await phone.nothing_more()
        await close_clients()
