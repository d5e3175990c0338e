"""mqtt.js: all clients of a module live in one Node process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from gapless.testing import NodeScript
from tests.stock_mqtt.stock import WAIT, Connect, Message, Plan, StockClient, pairs


class Node:
    """The process; hands what it says to the clients by name."""

    def __init__(self, script: NodeScript) -> None:
        self.script = script
        self._waiting: dict[tuple[str, str], asyncio.Queue[dict[str, Any]]] = {}
        self.reading = asyncio.create_task(self._read(), name="mqttjs-read")

    def queue(self, name: str, kind: str) -> asyncio.Queue[dict[str, Any]]:
        return self._waiting.setdefault((name, kind), asyncio.Queue())

    async def _read(self) -> None:
        async for message in self.script:
            self.queue(message["name"], message["is"]).put_nowait(message)

    async def next(self, name: str, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(WAIT):
            return await self.queue(name, kind).get()

    async def send(self, do: str, name: str, **given: Any) -> None:
        await self.script.send({"do": do, "name": name, **given})

    def connector(self) -> Connect:
        """Connects clients that live in this process."""

        async def connect(plan: Plan) -> StockClient:
            client = MqttJsClient(self, plan)
            await client.connect()
            return client

        return connect


class MqttJsClient:
    """See `StockClient`."""

    def __init__(self, node: Node, plan: Plan) -> None:
        self.session_present: bool | None = None
        self._node = node
        self._plan = plan
        self._name = plan.client_id
        self._open = True

    async def connect(self) -> None:
        plan = self._plan
        options: dict[str, Any] = {
            "clientId": plan.client_id,
            "protocolVersion": 5 if plan.v5 else 4,
            "clean": not plan.stays,
        }
        if plan.v5 and plan.stays:
            options["properties"] = {"sessionExpiryInterval": 3600}
        if plan.will is not None:
            options["will"] = {"topic": plan.will[0], "payload": plan.will[1].hex(), "qos": 1}
        tcp = f"mqtt://{plan.host}:{plan.tcp_port}"
        url = tcp if plan.transport == "tcp" else f"ws://{plan.host}:{plan.http_port}/mqtt"
        await self._node.send("connect", self._name, url=url, options=options)
        self.session_present = (await self._node.next(self._name, "connect"))["sessionPresent"]

    async def subscribe(self, topic: str, qos: int) -> None:
        await self._node.send("subscribe", self._name, topic=topic, options={"qos": qos})
        answer = await self._node.next(self._name, "subscribed")
        assert answer["error"] is None, answer

    async def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            options: dict[str, Any] = {"qos": message.qos, "retain": message.retain}
            if self._plan.v5:
                users: dict[str, list[str]] = {}
                for name, value in message.properties:
                    users.setdefault(name, []).append(value)
                options["properties"] = {"userProperties": users} if users else {}  # of {} it makes a wrong packet
                if message.content_type is not None:
                    options["properties"]["contentType"] = message.content_type
            await self._node.send(
                "publish", self._name, topic=message.topic, payload=message.payload.hex(), options=options
            )
        for _ in messages:
            answer = await self._node.next(self._name, "published")
            assert answer["error"] is None, answer

    async def next(self) -> Message:
        message = await self._node.next(self._name, "message")
        given = message["properties"]
        return Message(
            message["topic"],
            bytes.fromhex(message["payload"]),
            message["qos"],
            message["retain"],
            given.get("contentType"),
            tuple(pairs(given.get("userProperties"))),
        )

    async def end(self) -> None:
        if self._open:
            self._open = False
            await self._node.send("end", self._name)
            await self._node.next(self._name, "close")

    async def drop(self) -> None:
        self._open = False
        await self._node.send("drop", self._name)
        await self._node.next(self._name, "close")
