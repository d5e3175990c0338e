"""gmqtt, which speaks TCP only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

from tests.stock_mqtt.stock import Message, Plan, StockClient


class GmqttClient:
    """See `StockClient`."""

    def __init__(self, plan: Plan) -> None:
        self.session_present: bool | None = None
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: dict[int, asyncio.Future[None]] = {}
        will = None if plan.will is None else gmqtt.Message(plan.will[0], plan.will[1], qos=1)
        expiry = {"session_expiry_interval": 3600} if plan.v5 and plan.stays else {}
        self._client: Any = gmqtt.Client(plan.client_id, clean_session=not plan.stays, will_message=will, **expiry)
        self._client.set_config({"reconnect_retries": 0})
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect

    async def connect(self) -> None:
        version = MQTTv50 if self._plan.v5 else MQTTv311
        await self._client.connect(self._plan.host, self._plan.tcp_port, version=version, raise_exc=True)

    def _on_connect(self, client: Any, flags: int, code: int, properties: Any) -> None:
        self.session_present = bool(flags & 1)

    def _on_message(self, client: Any, topic: str, payload: bytes, qos: int, properties: dict[str, Any]) -> int:
        content_type = properties.get("content_type") or [None]
        self._messages.put_nowait(
            Message(
                topic,
                bytes(payload),
                qos,
                bool(properties["retain"]),
                content_type[0],
                tuple(tuple(pair) for pair in properties.get("user_property", ())),
            )
        )
        return 0

    def _on_subscribe(self, client: Any, number: int, qos: Any, properties: Any) -> None:
        self._subscribed[number].set_result(None)

    def _on_disconnect(self, client: Any, packet: Any, error: Any = None) -> None:
        if not self._lost.done():
            self._lost.set_result(None)

    async def subscribe(self, topic: str, qos: int) -> None:
        number = self._client.subscribe(gmqtt.Subscription(topic, qos=qos))
        self._subscribed[number] = self._loop.create_future()
        await self._subscribed[number]

    async def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            given: dict[str, Any] = {}
            if self._plan.v5 and message.content_type is not None:
                given["content_type"] = message.content_type
            if self._plan.v5 and message.properties:
                given["user_property"] = list(message.properties)
            self._client.publish(message.topic, message.payload, qos=message.qos, retain=message.retain, **given)

    async def next(self) -> Message:
        return await self._messages.get()

    async def end(self) -> None:
        if not self._lost.done():
            await self._client.disconnect()

    async def drop(self) -> None:
        self._client._connection._transport.abort()
        await self._lost


async def connect(plan: Plan) -> StockClient:
    """A connected gmqtt client."""
    client = GmqttClient(plan)
    await client.connect()
    return client
