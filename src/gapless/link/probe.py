"""A small MQTT client for checks: sends a packet, and waits for what must follow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from gapless.link.connection import Connection
from gapless.link.errors import LinkError, subscribe_refused
from gapless.mqtt import (
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
    Suback,
    Subscribe,
    SubscriptionRequest,
)

P = TypeVar("P")
_MOST_KEPT = 1000


class Probe:
    """The handler of one connection. Packets that nobody asked for yet are kept, at most 1,000.

    Args:
        timeout: seconds for each answer.
    """

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._connection: Connection | None = None
        self._packets: list[Packet] = []
        self._news = asyncio.Event()
        self._error: LinkError | None = None
        self._last_id = 0

    def use(self, connection: Connection) -> None:
        """Begin with a connection that has got its CONNACK."""
        self._connection = connection
        connection.start()

    @property
    def connection(self) -> Connection:
        """The connection under it."""
        assert self._connection is not None
        return self._connection

    def on_packet(self, packet: Packet) -> None:
        """Called by the connection; answers for our side of QoS 1 and 2 (MQTT 5 §4.3)."""
        match packet:
            case Publish(qos=1):
                self.connection.send(Puback(packet.packet_id))
            case Publish(qos=2):
                self.connection.send(Pubrec(packet.packet_id))
            case Pubrel():
                self.connection.send(Pubcomp(packet.packet_id))
            case Pubrec() if not packet.reason_code.is_failure:
                self.connection.send(Pubrel(packet.packet_id))
            case _:
                pass
        if len(self._packets) < _MOST_KEPT:
            self._packets.append(packet)
        self._news.set()

    def on_writable(self) -> None:
        """Called by the connection."""

    def on_closed(self, error: LinkError) -> None:
        """Called by the connection."""
        self._error = error
        self._news.set()

    async def wait(self, kind: type[P], wanted: Callable[[P], bool] = lambda _: True) -> P:
        """The first packet of this kind that fits, once it is there; it is taken out.

        Raises:
            LinkError: the connection ended.
            TimeoutError: it did not come in time.
        """
        async with asyncio.timeout(self._timeout):
            while True:
                for packet in self._packets:
                    if isinstance(packet, kind) and wanted(packet):
                        self._packets.remove(packet)
                        return packet
                if self._error is not None:
                    raise self._error
                self._news.clear()
                await self._news.wait()

    def drop(self, topic: str) -> int:
        """Forget messages on a topic; how many there were."""
        found = [p for p in self._packets if isinstance(p, Publish) and p.topic == topic]
        for packet in found:
            self._packets.remove(packet)
        return len(found)

    async def subscribe(self, pattern: str, *, qos: int) -> int:
        """Subscribe; the QoS that was granted.

        Raises:
            LinkError: refused, or the connection ended, or no answer in time.
        """
        packet_id = self._next_id()
        self.connection.send(Subscribe(packet_id, [SubscriptionRequest(pattern, qos=qos)]))
        try:
            answer = await self.wait(Suback, lambda p: p.packet_id == packet_id)
        except TimeoutError as error:
            raise LinkError("subscribe", "no answer to SUBSCRIBE in time", hint="look at the broker's log") from error
        code = answer.reason_codes[0]
        if code.is_failure:
            raise subscribe_refused(pattern, code)
        return int(code)

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> None:
        """Publish, and wait until the broker has taken it over.

        Raises:
            LinkError: refused, or the connection ended, or no answer in time.
        """
        packet_id = self._next_id() if qos else 0
        self.connection.send(Publish(topic, payload, qos=qos, retain=retain, packet_id=packet_id))
        answers: dict[int, type[Puback] | type[Pubrec]] = {1: Puback, 2: Pubrec}
        if qos == 0:
            return
        try:
            answer = await self.wait(answers[qos], lambda p: p.packet_id == packet_id)
            if qos == 2 and not answer.reason_code.is_failure:
                await self.wait(Pubcomp, lambda p: p.packet_id == packet_id)
        except TimeoutError as error:
            raise LinkError("session", f"the broker does not acknowledge QoS {qos}", hint="see its log") from error
        if answer.reason_code.is_failure:
            raise publish_refused(topic, answer.reason_code)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id


def publish_refused(topic: str, reason: ReasonCode) -> LinkError:
    """PUBACK or PUBREC said no (MQTT 5 §3.4.2.1)."""
    hint = "look at the broker's log"
    if reason is ReasonCode.NOT_AUTHORIZED:
        hint = "this user may not publish to it: add it to the broker's access list"
    elif reason is ReasonCode.QUOTA_EXCEEDED:
        hint = "a quota is exceeded: ask whoever runs the broker"
    text = reason.name.lower().replace("_", " ")
    return LinkError("session", f"the broker refused to publish to {topic!r}: {text}", hint=hint, reason=reason)
