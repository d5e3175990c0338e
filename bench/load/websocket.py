"""A Socket.IO 5 client on a WebSocket, as lean as a load generator needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from bench.load.event import ROOM, TOPIC, TYPE, now_us, sent_us
from bench.load.sockets import connect_to
from bench.load.tally import LoadFailed, Tally

_HANDSHAKE = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
    "Host: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_NEW, _UPGRADED = 0, 1


def masked_text(payload: bytes) -> bytes:
    """A client's text frame (RFC 6455 §5.2), masked with zeros, which leave it as it is."""
    size = len(payload)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    else:
        head = b"\x81\xfe" + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


class SocketIoClient(asyncio.Protocol):
    """One connection in the room of the benchmark, or in others.

    Attributes:
        pid: by which it may come back.
        received: events so far.
        acknowledged, published: of `publish_all`.
        sampling: whether it times events while the tally does.
    """

    __slots__ = (
        "_answers",
        "_closing",
        "_connect",
        "_ids",
        "_rest",
        "_state",
        "_tally",
        "_transport",
        "acknowledged",
        "connected",
        "pid",
        "published",
        "received",
        "sampling",
    )

    def __init__(self, tally: Tally, connect: bytes = b"40") -> None:
        self.received = 0
        self.acknowledged = 0
        self.published = 0
        self.pid = ""
        self._connect = connect
        self.sampling = False
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing = False
        self._tally = tally
        self._state = _NEW
        self._rest = b""
        self._ids = 0
        self._answers: dict[bytes, asyncio.Future[Any]] = {}
        self._transport: asyncio.Transport

    @classmethod
    async def connect(
        cls,
        port: int,
        tally: Tally,
        *,
        room: str | None = ROOM,
        rooms: Sequence[str] = (),
        receive_buffer: int | None = None,
    ) -> SocketIoClient:
        """Open a connection, and join a room.

        Args:
            rooms: several, in place of one.
            receive_buffer: bytes of the socket's receive buffer; None is the system's.

        Raises:
            OSError, TimeoutError: the server refused, or did not answer within 30 seconds.
        """
        async with asyncio.timeout(30):
            client = cls(tally)
            await client._open(port, receive_buffer)
            if rooms or room is not None:
                subscribe = b'["subscribe",' + msgspec.json.encode({"rooms": rooms or [room]}) + b"]"
                client._ask(subscribe, answer := asyncio.get_running_loop().create_future())
                await answer
        return client

    @classmethod
    async def come_back(cls, port: int, tally: Tally, *, pid: str, offset: str) -> SocketIoClient:
        """Open a connection as the stock client does that recovers (Socket.IO 5, connection state recovery).

        Raises:
            OSError, TimeoutError: the server refused, or did not answer within 30 seconds.
            LoadFailed: the client was not recovered.
        """
        async with asyncio.timeout(30):
            client = cls(tally, b"40" + msgspec.json.encode({"pid": pid, "offset": offset}))
            await client._open(port)
        if client.pid != pid:
            raise LoadFailed("a Socket.IO client was not recovered")
        return client

    async def _open(self, port: int, receive_buffer: int | None = None) -> None:
        await connect_to(port, lambda: self, receive_buffer)
        self._transport.write(_HANDSHAKE.format(port=port).encode())
        await self.connected

    def stall(self) -> None:
        """Read no more."""
        self._transport.pause_reading()

    def publish_all(self, *events: bytes) -> None:
        """Publish events, all in one write; `acknowledged` counts the answers."""
        self.publish_to(TOPIC, *events)

    def publish_to(self, topic: str, *events: bytes) -> None:
        """As `publish_all`, to any topic."""
        head = f'["publish",{{"type":"{TYPE}","topic":"{topic}","data":'.encode()
        parts = []
        for data in events:
            self._ids += 1
            parts.append(masked_text(b"42%d" % self._ids + head + data + b"}]"))
        self.published += len(events)
        self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Drop the connection."""
        self._closing = True
        self._transport.abort()

    def _ask(self, call: bytes, answer: asyncio.Future[Any]) -> None:
        self._ids += 1
        number = b"%d" % self._ids
        self._answers[number] = answer
        self._transport.write(masked_text(b"42" + number + call))

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._tally.fail(f"a Socket.IO connection was lost ({exc or 'closed by the server'})")
        error = ConnectionError("the server closed a Socket.IO connection")
        for waiter in (self.connected, *self._answers.values()):
            if not waiter.done():
                waiter.set_exception(error)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at = 0
        if self._state == _NEW:
            at = self._read_handshake(data)
            if not at:
                return
        events = 0
        acknowledged = self.acknowledged
        end = len(data)
        while end - at >= 2:
            size = data[at + 1]
            start = at + 2
            if size >= 126:
                if size == 127:
                    raise ValueError("a frame of over 64 KiB")
                if end - at < 4:
                    break
                size = data[at + 2] << 8 | data[at + 3]
                start = at + 4
            stop = start + size
            if stop > end:
                break
            if data[start : start + 3] == b"42[":
                events += 1
                if self.sampling and self._tally.sampling:
                    self._sample(data, start, stop)
            else:
                self._control(data[at], data[start:stop])
            at = stop
        if at < end:
            self._rest = data[at:]
        if acknowledged != self.acknowledged and self._tally.on_progress is not None:
            self._tally.on_progress()
        if events:
            self.received += events
            self._tally.add(events)

    def _read_handshake(self, data: bytes) -> int:
        head = data.find(b"\r\n\r\n")
        if head < 0:
            self._rest = data
            return 0
        if not data.startswith(b"HTTP/1.1 101"):
            self.connected.set_exception(ConnectionError(data[:head].decode("latin-1")))
            self._transport.abort()
            return 0
        self._state = _UPGRADED
        return head + 4

    def _control(self, first: int, payload: bytes) -> None:
        if first != 0x81:  # a WebSocket close or ping: neither is expected of a healthy server here
            self._transport.close()
        elif payload[:1] == b"0":  # Engine.IO OPEN: answer with Socket.IO CONNECT
            self._transport.write(masked_text(self._connect))
        elif payload == b"2":
            self._transport.write(masked_text(b"3"))
        elif payload[:2] == b"40":
            self.pid = msgspec.json.decode(payload[2:]).get("pid", "")
            if not self.connected.done():  # nobody waits any more after a timeout
                self.connected.set_result(None)
        elif payload[:2] == b"43":
            number, _, answer = payload[2:].partition(b"[")
            self._answered(number, b"[" + answer)
        elif payload[:2] == b"44":
            self.connected.set_exception(ConnectionError(payload.decode()))
        elif payload[:2] == b"42":
            raise ValueError(f"an event that asks for an acknowledgement: {payload[:80]!r}")

    def _answered(self, number: bytes, answer: bytes) -> None:
        waiter = self._answers.pop(number, None)
        document = msgspec.json.decode(answer)
        refused = bool(document) and document[0].get("ok") is not True
        if waiter is None:
            if refused:
                raise ValueError(f"refused: {answer.decode()}")
            self.acknowledged += 1
        elif refused:
            waiter.set_exception(ConnectionError(f"refused: {answer.decode()}"))
        elif not waiter.done():
            waiter.set_result(None)

    def _sample(self, data: bytes, start: int, stop: int) -> None:
        self._tally.latencies.append(now_us() - sent_us(data, start, stop))
