"""QoS 2 is exactly once for a stock client, whichever of its four packets the gateway's SIGKILL swallows."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gapless.testing import Gateway, run_gateway

PATIENCE = 30.0
TOPIC = "crm/leads/1/updated"
BURST = 5
PUBLISH, PUBREC, PUBREL, PUBCOMP = 3, 5, 6, 7
Towards = Literal["gateway", "client"]


class Checkpoint:
    """A relay that looks at each MQTT packet, and kills the gateway when a chosen one comes by.

    That packet was sent and is never received, nor is anything after it. Who connects while the gateway
    is down waits until it is up again: paho-mqtt 2.1 forgets at its second try that it has sent a PUBREL,
    and publishes anew.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._chosen: tuple[int, Towards] | None = None
        self._strike: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()
        self._up = asyncio.Event()
        self._up.set()
        self.port = 0

    def choose(self, kind: int, towards: Towards) -> None:
        """Strike at the next packet of this type on its way there."""
        self._strike = asyncio.get_running_loop().create_future()
        self._chosen = (kind, towards)

    async def restarted(self) -> None:
        """Wait until the gateway is dead, and start it again."""
        async with asyncio.timeout(PATIENCE):
            await (await self._strike)
        await self._gateway.start()
        self._up.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Checkpoint]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        await self._up.wait()
        try:
            other_reader, other = await asyncio.open_connection("127.0.0.1", self._gateway.mqtt_port)
            writers.append(other)
            ends = [
                asyncio.create_task(self._carry(reader, other, "gateway")),
                asyncio.create_task(self._carry(other_reader, writer, "client")),
            ]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        finally:
            for each in writers:
                each.transport.abort()
            await asyncio.gather(*(each.wait_closed() for each in writers), return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, towards: Towards) -> None:
        while True:
            packet = await read_packet(reader)
            if self._chosen == (packet[0] >> 4, towards):
                self._chosen = None
                self._up.clear()
                # A task of its own: this one ends with the connection.
                self._strike.set_result(asyncio.create_task(self._gateway.kill()))
                return
            writer.write(packet)
            await writer.drain()


async def read_packet(reader: asyncio.StreamReader) -> bytes:
    """One MQTT packet (MQTT 5 §2.1)."""
    head = await reader.readexactly(2)
    while head[-1] & 0x80:
        head += await reader.readexactly(1)
    size = sum((byte & 0x7F) << 7 * index for index, byte in enumerate(head[1:]))
    return head + await reader.readexactly(size)


class Phone:
    """paho with a session that stays, and its own memory of what is on its way."""

    def __init__(self, port: int, version: MQTTProtocolVersion) -> None:
        self.heard: list[int] = []
        self._awaited = -1
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._ready = asyncio.Event()
        v5 = version is MQTTProtocolVersion.MQTTv5
        self.client = client = paho.Client(
            CallbackAPIVersion.VERSION2, "phone", clean_session=None if v5 else False, protocol=version
        )
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type] # seconds, which need not be whole ones
        properties = None
        if v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 3600
        client.connect_async("127.0.0.1", port, clean_start=False if v5 else 3, properties=properties)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: paho.ConnectFlags, *_: Any) -> None:
        if not flags.session_present:
            client.subscribe(TOPIC, qos=2)

    def _on_subscribe(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._ready.set)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        self.heard.append(number_of(bytes(message.payload)))
        if self.heard[-1] == self._awaited:
            self._loop.call_soon_threadsafe(self._news.set)

    async def hears(self, last: int) -> None:
        """Wait until this number was heard."""
        self._news.clear()
        self._awaited = last
        async with asyncio.timeout(PATIENCE):
            while last not in self.heard:
                await self._news.wait()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Phone]:
        self.client.loop_start()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ready.wait()
            yield self
        finally:
            self.client.disconnect()
            await asyncio.to_thread(self.client.loop_stop)


def number_of(payload: bytes) -> int:
    document = json.loads(payload)
    number = document.get("data", document)["n"]
    assert isinstance(number, int)
    return number


async def publish(http: httpx.AsyncClient, numbers: range) -> None:
    """Publish at QoS 2 over REST, again with the same ids until the gateway that lives has acknowledged."""
    events = [{"id": f"e{n}", "type": "lead:updated", "qos": 2, "data": {"leadId": "1", "n": n}} for n in numbers]
    while True:
        try:
            (await http.post("/api/events", json=events)).raise_for_status()
            return
        except httpx.TransportError:
            await asyncio.sleep(0.05)  # the gateway is down


@pytest.mark.timeout(180)
async def test_to_a_client(tmp_path: Path) -> None:
    steps: list[tuple[int, Towards]] = [
        (PUBLISH, "client"),
        (PUBREC, "gateway"),
        (PUBREL, "client"),
        (PUBCOMP, "gateway"),
    ]
    async with run_gateway(data=tmp_path / "data") as gateway, Checkpoint(gateway).running() as checkpoint:
        async with (
            httpx.AsyncClient(base_url=gateway.http, timeout=PATIENCE) as http,
            Phone(checkpoint.port, MQTTProtocolVersion.MQTTv5).running() as phone,
        ):
            for step, (kind, towards) in enumerate(steps):
                checkpoint.choose(kind, towards)
                numbers = range(step * BURST, (step + 1) * BURST)
                publishing = asyncio.create_task(publish(http, numbers))
                await checkpoint.restarted()
                await publishing
                await phone.hears(numbers[-1])
            await publish(http, range(100, 101))
            await phone.hears(100)
        assert phone.heard == [*range(len(steps) * BURST), 100]


@pytest.mark.timeout(180)
async def test_from_a_client(tmp_path: Path) -> None:
    steps: list[tuple[int, Towards]] = [
        (PUBLISH, "gateway"),
        (PUBREC, "client"),
        (PUBREL, "gateway"),
        (PUBCOMP, "client"),
    ]
    async with run_gateway(data=tmp_path / "data") as gateway, Checkpoint(gateway).running() as checkpoint:
        async with Phone(checkpoint.port, MQTTProtocolVersion.MQTTv311).running() as phone:
            phone.client.unsubscribe(TOPIC)
            for step, (kind, towards) in enumerate(steps):
                checkpoint.choose(kind, towards)
                infos = [
                    phone.client.publish(TOPIC, json.dumps({"n": n}), qos=2)
                    for n in range(step * BURST, (step + 1) * BURST)
                ]
                await checkpoint.restarted()
                for info in infos:
                    await asyncio.to_thread(info.wait_for_publish, PATIENCE)
                    assert info.is_published()
        async with httpx.AsyncClient(base_url=gateway.http, timeout=PATIENCE) as http:
            page = (await http.get("/api/events", params={"rooms": "lead:1", "after": "start"})).json()
        assert [event["data"]["n"] for event in page["events"]] == list(range(len(steps) * BURST))
