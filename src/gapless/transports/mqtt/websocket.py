"""MQTT over WebSocket (MQTT 5 §6): binary frames, the subprotocol `mqtt`.

Where the server lends its transport (`raw_websocket`), packets are written to it as finished
frames; on any other ASGI server they go through a bounded buffer and ASGI's `send`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from gapless.transports.mqtt.connection import Connection
from gapless.transports.raw_websocket import SCOPE_KEY, LendingWebSocket, frame

if TYPE_CHECKING:
    from gapless.transports.mqtt.edge import MqttEdge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SUBPROTOCOL = "mqtt"
_TEXT_FRAME = 1003  # RFC 6455 §7.4.1: a kind of data that cannot be accepted
_GOING = 1000


class _WebSocketWriter:
    """What both kinds of `Writer` share: reading is held back, closing is asked for."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.closing = asyncio.Event()

    def close(self) -> None:
        """See `Writer`."""
        self.closing.set()

    def pause_reading(self) -> None:
        """See `Writer`."""
        self.may_read.clear()

    def resume_reading(self) -> None:
        """See `Writer`."""
        self.may_read.set()

    async def drained(self) -> None:
        """Return once everything was handed to the socket."""


class _RawWriter(_WebSocketWriter):
    """Writes frames to the lent transport."""

    def __init__(self, raw: LendingWebSocket) -> None:
        super().__init__()
        self._raw = raw
        self.write_now = self.write

    @property
    def held(self) -> int:
        return self._raw.transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        self._raw.write(frame(data))

    def abort(self) -> None:
        self.closing.set()
        self._raw.abort()

    def writer_paused(self) -> None:
        if self.connection is not None:
            self.connection.writer_paused()

    def writer_resumed(self) -> None:
        if self.connection is not None:
            self.connection.writer_resumed()

    def writer_lost(self) -> None:
        self.closing.set()


class _AsgiWriter(_WebSocketWriter):
    """Writes through ASGI, from a buffer that makes the reader pause before it grows."""

    def __init__(self, send: Send, *, high_water: int) -> None:
        super().__init__()
        self._send = send
        self.write_now = self.write
        self._high_water = high_water
        self._buffer = bytearray()
        self._some = asyncio.Event()
        self._paused = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def held(self) -> int:
        return len(self._buffer)

    def write(self, data: bytes) -> None:
        if self.closing.is_set():
            return
        self._buffer += data
        self._idle.clear()
        self._some.set()
        if len(self._buffer) > self._high_water and not self._paused:
            self._paused = True
            if self.connection is not None:
                self.connection.writer_paused()

    def abort(self) -> None:
        self._buffer.clear()
        self._idle.set()
        self.closing.set()

    async def drained(self) -> None:
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
        peer = f"ws {client[0]}:{client[1]}" if client else "ws"
        if raw is not None:
            writer: _RawWriter | _AsgiWriter = _RawWriter(raw)
            raw.borrower = writer
            await _serve(edge, writer, peer, receive, send)
            return
        writer = _AsgiWriter(send, high_water=edge.options.high_water)
        sending = asyncio.create_task(writer.run(), name="mqtt-websocket-send")
        try:
            await _serve(edge, writer, peer, receive, send)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    return app


async def _serve(edge: MqttEdge, writer: _RawWriter | _AsgiWriter, peer: str, receive: Receive, send: Send) -> None:
    connection = writer.connection = Connection(edge, writer, peer=peer)
    edge.sockets.add(writer)
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
        edge.sockets.discard(writer)
        connection.connection_lost()


async def _receive(connection: Connection, writer: _WebSocketWriter, receive: Receive) -> int | None:
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
