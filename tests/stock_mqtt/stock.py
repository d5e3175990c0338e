"""What every stock client is asked to do, and the clients of one gateway."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gapless.gateway import Gateway

WAIT = 15.0
"""Seconds after which a client that does not answer has failed."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Message:
    """A message as a client received it. `properties` are user properties, in order; 3.1.1 has none."""

    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    content_type: str | None = None
    properties: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Plan:
    """How a client connects.

    Attributes:
        version: "3.1.1" or "5".
        transport: "tcp" or "ws".
        stays: the session outlives its connection.
        will: topic and payload of a will, at QoS 1.
        has_subscription: whether the gateway knows this client with this subscription, for clients that
            do not tell.
    """

    client_id: str
    version: str
    transport: str
    host: str
    tcp_port: int
    http_port: int
    stays: bool = False
    will: tuple[str, bytes] | None = None
    has_subscription: Callable[[str, str], bool] = lambda client_id, topic: False

    @property
    def v5(self) -> bool:
        return self.version == "5"


class StockClient(Protocol):
    """A connected client. `session_present` is None where the client does not tell."""

    session_present: bool | None

    async def subscribe(self, topic: str, qos: int) -> None:
        """Subscribe, until SUBACK."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish, in order; returns no later than once all are acknowledged or received."""

    async def next(self) -> Message:
        """The next message."""

    async def end(self) -> None:
        """Disconnect as a client that goes does."""

    async def drop(self) -> None:
        """Lose the connection without a DISCONNECT."""


Connect = Callable[[Plan], Awaitable[StockClient]]


@dataclass
class Kind:
    """One kind of client, and the gateway that it connects to."""

    name: str
    connect_by: Connect
    version: str
    transport: str
    gateway: Gateway
    open: list[StockClient] = field(default_factory=list)
    number: int = field(default_factory=lambda: next(_numbers))

    def topic(self, path: str) -> str:
        """A topic of this test alone."""
        return f"s{self.number}/{path}"

    async def connect(self, name: str, **more: Any) -> StockClient:
        """Connect a client with an identifier of this test alone."""
        host, _, http_port = self.gateway.http_url.removeprefix("http://").rpartition(":")
        assert self.gateway.mqtt_url is not None
        plan = Plan(
            client_id=f"s{self.number}{name}",
            version=self.version,
            transport=self.transport,
            host=host,
            tcp_port=int(self.gateway.mqtt_url.rpartition(":")[2]),
            http_port=int(http_port),
            has_subscription=self._has_subscription,
            **more,
        )
        async with asyncio.timeout(WAIT):
            client = await self.connect_by(plan)
        self.open.append(client)
        return client

    def _has_subscription(self, client_id: str, topic: str) -> bool:
        connection = self.gateway.mqtt.connected.get(client_id)
        return connection is not None and topic in connection.reader.session.subscriptions

    async def acknowledged(self, name: str) -> None:
        """Wait until a client has acknowledged all that it was sent, so that nothing is sent to it again."""
        async with asyncio.timeout(WAIT):
            while self.gateway.mqtt.connected[f"s{self.number}{name}"].reader.inflight:
                await asyncio.sleep(0.002)

    async def left(self, name: str) -> None:
        """Wait until the gateway has noticed that a client is gone."""
        async with asyncio.timeout(WAIT):
            while f"s{self.number}{name}" in self.gateway.mqtt.connected:
                await asyncio.sleep(0.002)

    async def close(self) -> None:
        """End all clients."""
        async with asyncio.timeout(WAIT):
            for client in self.open:
                await client.end()


async def take(client: StockClient, count: int) -> list[Message]:
    """The next `count` messages of a client."""
    async with asyncio.timeout(WAIT):
        return [await client.next() for _ in range(count)]


def pairs(properties: Mapping[str, str | Sequence[str]] | None) -> list[tuple[str, str]]:
    """User properties that a client gives as an object, which loses the order of different names."""
    found: list[tuple[str, str]] = []
    for name, value in (properties or {}).items():
        found += [(name, value)] if isinstance(value, str) else [(name, one) for one in value]
    return found
