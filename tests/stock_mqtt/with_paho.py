"""paho-mqtt, on its own thread as most programs use it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.stock_mqtt.stock import Message, Plan, StockClient


class PahoClient:
    """See `StockClient`."""

    def __init__(self, plan: Plan) -> None:
        self.session_present: bool | None = None
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: dict[int | None, asyncio.Future[None]] = {}
        self._published: dict[int, asyncio.Future[None]] = {}
        self._done_early: set[int] = set()
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=plan.client_id,
            clean_session=None if plan.v5 else not plan.stays,
            protocol=MQTTProtocolVersion.MQTTv5 if plan.v5 else MQTTProtocolVersion.MQTTv311,
            transport="websockets" if plan.transport == "ws" else "tcp",
            reconnect_on_failure=False,
        )
        self._client.on_connect = lambda *given: self._call(self._on_connect, given[2])
        self._client.on_disconnect = lambda *given: self._call(self._on_disconnect)
        self._client.on_subscribe = lambda *given: self._call(self._on_subscribe, given[2])
        self._client.on_publish = lambda *given: self._call(self._on_publish, given[2])
        self._client.on_message = lambda _, __, message: self._call(self._messages.put_nowait, _read(message))

    def _call(self, function: Callable[..., None], *given: Any) -> None:
        self._loop.call_soon_threadsafe(function, *given)

    async def connect(self) -> None:
        plan = self._plan
        if plan.will is not None:
            self._client.will_set(plan.will[0], plan.will[1], qos=1)
        if plan.transport == "ws":
            self._client.ws_set_options(path="/mqtt")
        properties = None
        if plan.v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 3600 if plan.stays else 0
        self._client.connect_async(
            plan.host,
            plan.http_port if plan.transport == "ws" else plan.tcp_port,
            clean_start=not plan.stays if plan.v5 else 3,
            properties=properties,
        )
        self._client.loop_start()
        await self._connected

    def _on_connect(self, flags: Any) -> None:
        self.session_present = flags.session_present
        self._connected.set_result(None)

    def _on_disconnect(self) -> None:
        if not self._lost.done():
            self._lost.set_result(None)

    def _on_subscribe(self, number: int) -> None:
        self._subscribed[number].set_result(None)

    def _on_publish(self, number: int) -> None:
        waiting = self._published.get(number)
        if waiting is None:
            self._done_early.add(number)
        else:
            waiting.set_result(None)

    async def subscribe(self, topic: str, qos: int) -> None:
        _, number = self._client.subscribe(topic, qos)
        self._subscribed[number] = self._loop.create_future()
        await self._subscribed[number]

    async def publish(self, messages: Sequence[Message]) -> None:
        numbers = []
        for message in messages:
            properties = None
            if self._plan.v5:
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
                if message.content_type is not None:
                    properties.ContentType = message.content_type
                if message.properties:
                    properties.UserProperty = list(message.properties)
            info = self._client.publish(
                message.topic, message.payload, message.qos, message.retain, properties=properties
            )
            numbers.append(info.mid)
            self._published[info.mid] = self._loop.create_future()
        for number in numbers:
            if number not in self._done_early:
                await self._published[number]

    async def next(self) -> Message:
        return await self._messages.get()

    async def end(self) -> None:
        if not self._lost.done():
            self._client.disconnect()
            await self._lost
        await asyncio.to_thread(self._client.loop_stop)

    async def drop(self) -> None:
        raw: Any = self._client.socket()
        raw = getattr(raw, "_socket", raw)  # paho's own WebSocket around it
        raw.shutdown(socket.SHUT_RDWR)
        await self._lost


def _read(message: MQTTMessage) -> Message:
    given = message.properties
    return Message(
        message.topic,
        bytes(message.payload),
        message.qos,
        message.retain,
        getattr(given, "ContentType", None),
        tuple(getattr(given, "UserProperty", ())),
    )


async def connect(plan: Plan) -> StockClient:
    """A connected paho client."""
    client = PahoClient(plan)
    await client.connect()
    return client
