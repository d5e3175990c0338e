"""A client of a broker, as plain as can be: it connects, subscribes, publishes and keeps what came."""

from __future__ import annotations

import asyncio

from gapless.link.address import parse_address
from gapless.link.connection import Connection
from gapless.link.errors import LinkError
from gapless.mqtt import (
    Connect,
    Packet,
    Properties,
    ProtocolVersion,
    Puback,
    Publish,
    ReasonCode,
    Suback,
    Subscribe,
    SubscriptionRequest,
)

PATIENCE = 20.0
_MARKER = "~marker~"


class Client:
    """One connection. Every wait is for an event."""

    def __init__(self) -> None:
        self._packets: asyncio.Queue[Packet] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.connection: Connection
        self.heard: list[Publish] = []

    @classmethod
    async def connect(
        cls,
        url: str,
        username: str,
        password: str,
        client_id: str,
        *,
        version: ProtocolVersion = ProtocolVersion.V5,
        keep: bool = False,
    ) -> Client:
        """LinkError where it is not let in. `keep` takes up the session, and keeps it."""
        client = cls()
        properties = Properties(session_expiry_interval=600) if keep and version is ProtocolVersion.V5 else None
        packet = Connect(
            client_id,
            version,
            clean_start=not keep,
            keep_alive=60,
            username=username,
            password=password.encode(),
            properties=properties,
        )
        client.connection = Connection(parse_address(url), packet, client)
        await client.connection.open(None, timeout=PATIENCE)
        client.connection.start()
        return client

    def on_packet(self, packet: Packet) -> None:
        if isinstance(packet, Publish):
            self.heard.append(packet)
            if packet.qos == 1:
                self.connection.send(Puback(packet.packet_id))
        self._packets.put_nowait(packet)

    def on_writable(self) -> None: ...

    def on_closed(self, error: LinkError) -> None:
        self.ended.set()

    async def _next(self, kind: type[Packet]) -> Packet:
        async with asyncio.timeout(PATIENCE):
            while True:
                packet = await self._packets.get()
                if isinstance(packet, kind):
                    return packet

    async def subscribe(self, *filters: str) -> list[bool]:
        """Whether each was granted."""
        self.connection.send(Subscribe(1, [SubscriptionRequest(each, qos=1) for each in filters]))
        answer = await self._next(Suback)
        assert isinstance(answer, Suback)
        return [not code.is_failure for code in answer.reason_codes]

    async def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> bool:
        """Whether it was taken (MQTT 5 says so)."""
        self.connection.send(Publish(topic, payload, qos=1, packet_id=7, retain=retain))
        answer = await self._next(Puback)
        assert isinstance(answer, Puback)
        return not ReasonCode(answer.reason_code).is_failure

    async def wait_ended(self) -> None:
        """Until the broker ends the connection."""
        async with asyncio.timeout(PATIENCE):
            await self.ended.wait()

    async def hear(self, topic: str, payload: bytes | None = None) -> Publish:
        """Until a message of a topic has come (with a payload)."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for message in self.heard:
                    if message.topic == topic and payload in (None, message.payload):
                        return message
                await self._packets.get()

    def close(self) -> None:
        """Say goodbye."""
        if not self.connection.closed:
            self.connection.disconnect()
