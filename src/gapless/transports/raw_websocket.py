"""A WebSocket's transport, lent to a fan-out so that one encoded frame serves every client.

uvicorn keeps the protocol (RFC 6455): handshake, incoming frames, pings, close. What a
transport of ours sends may go around it, straight to the socket, as finished frames: data
frames may be written between the frames of others at any time (RFC 6455 §5.4, no fragments
are sent here), and uncompressed frames are allowed where compression was negotiated
(RFC 7692 §6). It is negotiated without context takeover, so that a message is compressed
once for every client, and nothing is kept for a connection.

A connection may also be taken over: its messages then go to a receiver by calls, the ASGI
application returns, and what it held (a task, queues, the request) is freed: an idle
connection costs a third of the memory.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from typing import Any, Protocol

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from gapless.transports.lending import SCOPE_KEY, Lending, WriterEvents

TEXT, BINARY = 0x81, 0x82
DEFLATED = 0x40
"""Added to the opcode of a frame whose payload is compressed (RFC 7692 §6)."""

_WINDOW_BITS = 15


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """A whole, unmasked, final frame (RFC 6455 §5.2): `BINARY` or `TEXT`."""
    size = len(payload)
    if size < 126:
        return struct.pack(">BB", opcode, size) + payload
    if size < 65536:
        return struct.pack(">BBH", opcode, 126, size) + payload
    return struct.pack(">BBQ", opcode, 127, size) + payload


def deflate(payload: bytes) -> bytes:
    """A message's payload, compressed by itself (RFC 7692 §7.2.1)."""
    compressor = zlib.compressobj(wbits=-_WINDOW_BITS)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Receiver(WriterEvents, Protocol):
    """Whom a connection's messages go to once it was taken over."""

    def message(self, data: str | bytes) -> None:
        """A whole message: text or binary."""


_UNREAD_PONGS = 64 << 10
"""Bytes that may wait for a client before its pings are not answered any more."""


class _Nothing:
    """In place of what a connection that was taken over needs no more: a queue, an event, a timer."""

    def put_nowait(self, _: object) -> None: ...

    def set(self) -> None: ...

    def clear(self) -> None: ...

    def cancel(self) -> None: ...


_NOTHING: Any = _Nothing()

_STOP_GRACE = 1.0


class LendingWebSocket(Lending, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, whose transport can be borrowed.

    It is found in the ASGI scope as `scope["extensions"][SCOPE_KEY]`. Pass this class to
    uvicorn as `ws=`.
    """

    high_water: int = 256 * 1024
    """Bytes in the socket's buffer past which a reader counts as slow."""

    receiver: Receiver | None = None

    def __init__(self, config: Config, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        if config.ws_per_message_deflate:
            alone = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
            self.conn.available_extensions = [alone]

    @property
    def deflates(self) -> bool:
        """Whether the client takes what `deflate` made."""
        return any(
            isinstance(extension, PerMessageDeflate) and extension.local_max_window_bits == _WINDOW_BITS
            for extension in self.conn.extensions
        )

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(self.high_water)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)  # the ASGI task it makes has not run yet
        scope: Any = getattr(self, "scope", None)
        if scope is not None:
            scope.setdefault("extensions", {})[SCOPE_KEY] = self

    def take_over(self, receiver: Receiver) -> None:
        """Hand this connection's messages to `receiver` from now on, those that wait here first.

        The ASGI application is to return soon, and must neither receive nor send any more.
        """
        waiting, self.queue = self.queue, _NOTHING
        self.receiver = self.borrower = receiver
        self.writable = _NOTHING
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        while not waiting.empty():
            event: Any = waiting.get_nowait()
            if event["type"] == "websocket.receive":
                text = event.get("text")
                receiver.message(event["bytes"] if text is None else text)
        if self.disconnected:
            self.borrower = None
            receiver.writer_lost()

    async def run_asgi(self) -> None:
        """Run the application; as uvicorn does, but where the connection was taken over it goes on."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            self.logger.exception("the application failed on a WebSocket")
            self.send_500_response()
        if self.receiver is not None:
            self.scope = self.request = self.response = _NOTHING
        elif self.close_timer is None:
            self.transport.close()

    def handle_cont(self, event: Frame) -> None:
        """A further piece. All go into one buffer: a message may have any number of them, empty ones too."""
        whole: bytes | bytearray = self.frames[0]
        if not isinstance(whole, bytearray):
            whole = bytearray(whole)
            self.frames = [whole]  # type: ignore[list-item]
        whole += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answered by a pong, unless the client does not read those before it (RFC 6455 §5.5.3 lets us)."""
        pong = b"".join(self.conn.data_to_send())
        if self.transport.get_write_buffer_size() < _UNREAD_PONGS:
            self.transport.write(pong)

    def send_receive_event_to_app(self) -> None:
        """See uvicorn: a message is whole."""
        if self.receiver is None:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.curr_msg_data_type == "bytes":
            self.receiver.message(bytes(data))
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self.end(1007)
        else:
            self.receiver.message(text)

    def end(self, code: int = 1000) -> None:
        """Close a connection that was taken over, once what was written is sent."""
        if not self.transport.is_closing():
            if self.conn.state is State.OPEN:  # else the client closes it, and was answered
                self.conn.send_close(code)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def shutdown(self) -> None:
        """Close as the server stops; a client that does not read what was written is cut after a second."""
        if not self.transport.is_closing():  # else it was ended already, and waits for its client
            super().shutdown()
        asyncio.get_running_loop().call_later(_STOP_GRACE, self.transport.abort)

    def write(self, frames: bytes) -> bool:
        """Write finished frames; False where the connection is already gone."""
        if self.transport.is_closing():
            return False
        try:
            self.transport.write(frames)
        except RuntimeError:  # uvloop: the handle is closed, connection_lost has not run yet
            return False
        return True

    def abort(self) -> None:
        """Drop the connection at once."""
        self.transport.abort()
