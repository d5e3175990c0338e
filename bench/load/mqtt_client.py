"""An MQTT client, as lean as a load generator needs it: QoS 0 and 1, both versions."""

from __future__ import annotations

import asyncio
from typing import Self, cast

from bench.load.event import FILTER, SIZE, TOPIC, now_us, sent_us
from bench.load.sockets import connect_to
from bench.load.tally import Tally
from gapless.mqtt import (
    Connack,
    Connect,
    Decoder,
    ProtocolVersion,
    Subscribe,
    SubscriptionRequest,
    encode,
    encode_publish,
)

_PUBLISH, _PUBACK, _CONNACK, _SUBACK, _DISCONNECT = 0x30, 0x40, 0x20, 0x90, 0xE0
_MAX_ID = 65_535


class MqttClient(asyncio.Protocol):
    """One connection: a subscriber of the benchmark's topic, a publisher, or both.

    Attributes:
        received: PUBLISH packets so far.
        acknowledged: PUBACKs so far.
        sampling: whether it times events while the tally does.
        window: most unacknowledged publishes that the server allows (MQTT 5 receive maximum).
    """

    __slots__ = (
        "_answer",
        "_closing",
        "_head",
        "_id",
        "_rest",
        "_tail",
        "_tally",
        "_transport",
        "acknowledged",
        "published",
        "received",
        "sampling",
        "version",
        "window",
    )

    def __init__(self, tally: Tally, version: ProtocolVersion) -> None:
        self.received = 0
        self.acknowledged = 0
        self.published = 0
        self.sampling = False
        self.window = _MAX_ID
        self.version = version
        self._closing = False
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tally = tally
        self._rest = b""
        self._id = 0
        # The publishes of a benchmark differ only in packet identifier and payload, which are the last.
        empty = encode_publish(TOPIC, b"\0" * SIZE, version=version, qos=1, packet_id=1)
        properties = 1 if version is ProtocolVersion.V5 else 0
        self._head = empty[: -(SIZE + properties + 2)]
        self._tail = b"\0" * properties
        self._transport: asyncio.Transport

    @classmethod
    async def connect(
        cls,
        port: int,
        tally: Tally,
        *,
        client_id: str,
        qos: int | None = None,
        filter: str = FILTER,  # noqa: A002 the word of the standard
        stays: bool = False,
        version: ProtocolVersion = ProtocolVersion.V311,
        receive_buffer: int | None = None,
    ) -> Self:
        """Open a connection, and subscribe where `qos` is given.

        Args:
            stays: the session outlives its connection, and one that is there is resumed (3.1.1).
            receive_buffer: bytes of the socket's receive buffer; None is the system's.

        Raises:
            OSError, TimeoutError: the server refused, or did not answer within 30 seconds.
        """
        async with asyncio.timeout(30):
            client = cls(tally, version)
            await connect_to(port, lambda: client, receive_buffer)
            connect = Connect(version=version, client_id=client_id, clean_start=not stays, keep_alive=0)
            client._transport.write(encode(connect, version))
            await client._answer
            if qos is not None:
                client._answer = asyncio.get_running_loop().create_future()
                subscribe = Subscribe(packet_id=1, subscriptions=[SubscriptionRequest(filter, qos=qos)])
                client._transport.write(encode(subscribe, version))
                await client._answer
        return client

    def stall(self) -> None:
        """Read no more, and so acknowledge nothing."""
        self._transport.pause_reading()

    def publish_to(self, topic: str, event: bytes) -> None:
        """Publish at QoS 1 to any topic."""
        self._id = self._id % _MAX_ID + 1
        self.published += 1
        self._transport.write(encode_publish(topic, event, version=self.version, qos=1, packet_id=self._id))

    def publish_all(self, *events: bytes) -> None:
        """Publish at QoS 1, all in one write; `acknowledged` counts the answers."""
        parts: list[bytes] = []
        for event in events:
            self._id = number = self._id % _MAX_ID + 1
            parts += (self._head, number.to_bytes(2, "big"), self._tail, event)
        self.published += len(events)
        self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Drop the connection."""
        self._closing = True
        self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._tally.fail(f"an MQTT connection was lost ({exc or 'closed by the server'})")
        if not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed an MQTT connection"))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at = events = acknowledged = 0
        end = len(data)
        acks = []
        while end - at >= 2:
            first, size, start = data[at], data[at + 1], at + 2
            if size & 0x80:
                if end - at < 3:
                    break
                size = (size & 0x7F) | data[at + 2] << 7
                start = at + 3
                if data[at + 2] & 0x80:
                    raise ValueError("a packet of over 16 KiB")
            stop = start + size
            if stop > end:
                break
            kind = first & 0xF0
            if kind == _PUBLISH:
                events += 1
                if first & 0x06:
                    topic_end = start + 2 + (data[start] << 8 | data[start + 1])
                    acks.append(b"\x40\x02" + data[topic_end : topic_end + 2])
                if self.sampling and self._tally.sampling:
                    self._tally.latencies.append(now_us() - sent_us(data, start, stop))
            elif kind == _PUBACK:
                acknowledged += 1
                if size > 2 and data[start + 2] >= 0x80:
                    raise ValueError(f"a publish was refused with 0x{data[start + 2]:02x}")
            else:
                self._control(kind, data[start:stop])
            at = stop
        if at < end:
            self._rest = data[at:]
        if acks:
            self._transport.write(b"".join(acks))
        if acknowledged:
            self.acknowledged += acknowledged
            if self._tally.on_progress is not None:
                self._tally.on_progress()
        if events:
            self.received += events
            self._tally.add(events)

    def _control(self, kind: int, body: bytes) -> None:
        if kind == _CONNACK:
            self._settle(None if body[1] == 0 else f"CONNECT was refused with 0x{body[1]:02x}")
            if self.version is ProtocolVersion.V5:
                self.window = _receive_maximum(body)
        elif kind == _SUBACK:
            self._settle(None if body[-1] < 0x80 else f"SUBSCRIBE was refused with 0x{body[-1]:02x}")
        elif kind == _DISCONNECT:
            raise ValueError(f"the server disconnected with 0x{body[0] if body else 0:02x}")

    def _settle(self, problem: str | None) -> None:
        if self._answer.done():
            return
        if problem is None:
            self._answer.set_result(None)
        else:
            self._answer.set_exception(ConnectionError(problem))


def _receive_maximum(body: bytes) -> int:
    """Of a CONNACK's body (MQTT 5 §3.2.2.3.3); 65,535 where it is absent."""
    if len(body) > 127:
        raise ValueError("a CONNACK of over 127 bytes")
    decoder = Decoder("client", version=ProtocolVersion.V5)
    for packet in decoder.feed(bytes((_CONNACK, len(body))) + body):
        if isinstance(packet, Connack) and packet.properties is not None:
            return packet.properties.receive_maximum or _MAX_ID
    return _MAX_ID
