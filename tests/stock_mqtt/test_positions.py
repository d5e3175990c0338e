"""The position of a SUBACK, by which a stock client that heard nothing goes on by another door."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from gapless.gateway import Gateway
from tests.stock_mqtt.stock import WAIT

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_from_suback_to_long_polling(gateway: Gateway) -> None:
    loop = asyncio.get_running_loop()
    granted: asyncio.Future[str] = loop.create_future()

    def on_subscribe(client: paho.Client, userdata: Any, mid: int, codes: Any, properties: Any) -> None:
        loop.call_soon_threadsafe(granted.set_result, dict(properties.UserProperty)["gapless-position"])

    phone = paho.Client(CallbackAPIVersion.VERSION2, "positions", protocol=MQTTProtocolVersion.MQTTv5)
    phone.on_connect = lambda client, *_: client.subscribe("crm/leads/positions/updated", qos=1)
    phone.on_subscribe = on_subscribe
    assert gateway.mqtt_url is not None
    async with httpx.AsyncClient(base_url=gateway.http_url) as http:
        await publish(http, "before")
        phone.connect_async("127.0.0.1", int(gateway.mqtt_url.rpartition(":")[2]))
        phone.loop_start()
        async with asyncio.timeout(WAIT):
            position = await granted
        phone.disconnect()
        await asyncio.to_thread(phone.loop_stop)
        await publish(http, "missed")
        page = (await http.get("/api/events", params={"rooms": "lead:positions", "after": position})).json()
    assert page["complete"]
    assert [event["data"]["name"] for event in page["events"]] == ["missed"]


async def publish(http: httpx.AsyncClient, name: str) -> None:
    event = {"type": "lead:updated", "data": {"leadId": "positions", "name": name}}
    (await http.post("/api/events", json=event)).raise_for_status()
