"""MQTT over WebSocket (MQTT 5 §6): binary frames, the subprotocol `mqtt`.

Where the server lends its connection (`raw_websocket`), it is taken over: messages come by calls, and
packets are written to its transport as finished frames. On any other ASGI server a task receives, and
packets go through a bounded buffer and ASGI's `send`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from gapless.transports.broadcast import Lane
from gapless.transports.lending import SCOPE_KEY
from gapless.transports.mqtt.connection import Connection
from gapless.transports.mqtt.tcp import LINGER
from gapless.transports.raw_websocket import LendingWebSocket, frame

if TYPE_CHECKING:
    from gapless.transports.mqtt.edge import MqttEdge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SUBPROTOCOL = "mqtt"
_TEXT_FRAME = 1003  # RFC 6455 §7.4.1: a kind of data that cannot be accepted
_GOING = 1000


class _Framer:
    """Makes frames, and keeps the last one: what goes to many clients goes to them one after the other."""

    __slots__ = ("_data", "_frame")

    def __init__(self) -> None:
        self._data = self._frame = b""

    def __call__(self, data: bytes) -> bytes:
        if data is not self._data:
            self._data, self._frame = data, frame(data)
        return self._frame


class _LentSocket:
    """A WebSocket that was taken over, and its `Writer`: served by calls, without a task or a queue."""

    __slots__ = ("_closing", "_connection", "_edge", "_framer", "_linger", "_raw")

    def __init__(
        self, edge: MqttEdge, raw: LendingWebSocket, framer: _Framer, *, peer: str, address: str | None
    ) -> None:
        self._edge = edge
        self._raw = raw
        self._framer = framer
        self._closing = False
        self._linger: asyncio.TimerHandle | None = None
        if not raw.transport.is_closing():
            raw.transport.set_write_buffer_limits(edge.options.high_water)
        self._connection = Connection(edge, self, peer=peer, address=address, visit=raw.visit)
        edge.sockets.add(self)

    # From the WebSocket

    def message(self, data: str | bytes) -> None:
        """See `Receiver`."""
        if self._closing:
            return
        if isinstance(data, str):  # a text frame closes the connection [MQTT-6.0.0-1]
            self._end(_TEXT_FRAME)
        else:
            self._connection.data_received(data)

    def writer_paused(self) -> None:
        """See `WriterEvents`."""
        self._connection.writer_paused()

    def writer_resumed(self) -> None:
        """See `WriterEvents`."""
        self._connection.writer_resumed()

    def writer_lost(self) -> None:
        """See `WriterEvents`."""
        self._closing = True
        if self._linger is not None:
            self._linger.cancel()
        self._edge.sockets.discard(self)
        self._connection.connection_lost()

    # Writer

    @property
    def transport(self) -> asyncio.BaseTransport | None:
        """See `Writer`."""
        return self._raw.transport

    @property
    def held(self) -> int:
        """See `Writer`."""
        return self._raw.transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """See `Writer`."""
        self._raw.write(self._framer(data))

    @property
    def lane(self) -> Lane:
        """See `Writer`."""
        return Lane(self.write, self._raw.transport)

    def close(self) -> None:
        """See `Writer`. A peer that does not read is cut off after a while."""
        if not self._closing:
            self._end(_GOING)

    def _end(self, code: int) -> None:
        self._closing = True
        self._linger = asyncio.get_running_loop().call_later(LINGER, self._raw.abort)
        self._raw.end(code)

    def abort(self) -> None:
        """See `Writer`."""
        self._raw.abort()

    def pause_reading(self) -> None:
        """See `Writer`."""
        if not self._raw.transport.is_closing():
            self._raw.transport.pause_reading()

    def resume_reading(self) -> None:
        """See `Writer`."""
        if not self._raw.transport.is_closing():
            self._raw.transport.resume_reading()


class _AsgiWriter:
    """Writes through ASGI, from a buffer that makes the reader pause before it grows."""

    transport = None

    def __init__(self, send: Send, *, high_water: int) -> None:
        self.connection: Connection | None = None
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.closing = asyncio.Event()
        self._send = send
        self._high_water = high_water
        self._buffer = bytearray()
        self._some = asyncio.Event()
        self._paused = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def held(self) -> int:
        """See `Writer`."""
        return len(self._buffer)

    def write(self, data: bytes) -> None:
        """See `Writer`."""
        if self.closing.is_set():
            return
        self._buffer += data
        self._idle.clear()
        self._some.set()
        if len(self._buffer) > self._high_water and not self._paused:
            self._paused = True
            if self.connection is not None:
                self.connection.writer_paused()

    @property
    def lane(self) -> Lane:
        """See `Writer`."""
        return Lane(self.write)

    def close(self) -> None:
        """See `Writer`."""
        self.closing.set()

    def abort(self) -> None:
        """See `Writer`."""
        self._buffer.clear()
        self._idle.set()
        self.closing.set()

    def pause_reading(self) -> None:
        """See `Writer`."""
        self.may_read.clear()

    def resume_reading(self) -> None:
        """See `Writer`."""
        self.may_read.set()

    async def drained(self) -> None:
        """Return once everything was handed to the server."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send what is in the buffer, for ever."""
        while True:
            await self._some.wait()
            self._some.clear()
            data, self._buffer = bytes(self._buffer), bytearray()
            if data:
                await self._send({"type": "websocket.send", "bytes": data})
            if self._buffer:
                continue
            self._idle.set()
            if self._paused:
                self._paused = False
                if self.connection is not None:
                    self.connection.writer_resumed()


def make_websocket_app(edge: MqttEdge) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI application for MQTT over WebSocket."""
    framer = _Framer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await _not_http(send)
            return
        await receive()  # websocket.connect
        if SUBPROTOCOL not in scope.get("subprotocols", ()):  # [MQTT-6.0.0-3]
            await send({"type": "websocket.close", "code": 1002})
            return
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        raw = scope.get("extensions", {}).get(SCOPE_KEY)
        client = scope.get("client")
        address = client[0] if client else None
        peer = f"ws {client[0]}:{client[1]}" if client else "ws"
        if raw is not None:
            raw.take_over(_LentSocket(edge, raw, framer, peer=peer, address=address))
            return
        writer = _AsgiWriter(send, high_water=edge.options.high_water)
        sending = asyncio.create_task(writer.run(), name="mqtt-websocket-send")
        try:
            await _serve(Connection(edge, writer, peer=peer, address=address), writer, receive, send)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    return app


async def _serve(connection: Connection, writer: _AsgiWriter, receive: Receive, send: Send) -> None:
    writer.connection = connection
    sockets = connection.edge.sockets
    sockets.add(writer)
    receiving = asyncio.create_task(_receive(connection, writer, receive), name="mqtt-websocket-receive")
    closing = asyncio.create_task(writer.closing.wait(), name="mqtt-websocket-closing")
    try:
        await asyncio.wait([receiving, closing], return_when=asyncio.FIRST_COMPLETED)
        code = receiving.result() if receiving.done() and not receiving.cancelled() else _GOING
        if code is not None:
            try:
                async with asyncio.timeout(5):
                    await writer.drained()
                    await send({"type": "websocket.close", "code": code})
            except (TimeoutError, RuntimeError, OSError):
                pass  # the peer is gone, or does not read: the server closes the socket
    finally:
        for task in (receiving, closing):
            task.cancel()
        await asyncio.gather(receiving, closing, return_exceptions=True)
        sockets.discard(writer)
        connection.connection_lost()


async def _receive(connection: Connection, writer: _AsgiWriter, receive: Receive) -> int | None:
    """Read until the end; the code to close with, None where the peer is gone."""
    while True:
        await writer.may_read.wait()
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return None
        data = message.get("bytes")
        if data is None:  # a text frame closes the connection [MQTT-6.0.0-1]
            return _TEXT_FRAME
        connection.data_received(data)


async def _not_http(send: Send) -> None:
    body = b'{"error":{"code":"invalid_request","message":"this is an MQTT WebSocket, with the subprotocol mqtt"}}'
    headers = [(b"content-type", b"application/json"), (b"upgrade", b"websocket")]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": body})
