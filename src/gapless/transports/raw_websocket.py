"""A WebSocket's transport, lent to a fan-out so that one encoded frame serves every client.

uvicorn keeps the protocol (RFC 6455): handshake, incoming frames, pings, close. What a
transport of ours sends may go around it, straight to the socket, as finished frames: data
frames may be written between the frames of others at any time (RFC 6455 §5.4, no fragments
are sent here), and uncompressed frames are allowed where compression was negotiated
(RFC 7692 §6).
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

SCOPE_KEY = "gapless.raw_websocket"
TEXT, BINARY = 0x81, 0x82


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """A whole, unmasked, final frame (RFC 6455 §5.2): `BINARY` or `TEXT`."""
    size = len(payload)
    if size < 126:
        return struct.pack(">BB", opcode, size) + payload
    if size < 65536:
        return struct.pack(">BBH", opcode, 126, size) + payload
    return struct.pack(">BBQ", opcode, 127, size) + payload


class WriterEvents(Protocol):
    """What the borrower of a transport is told, always from the event loop."""

    def writer_paused(self) -> None:
        """The socket's buffer is over its high-water mark: write no more live events."""

    def writer_resumed(self) -> None:
        """The buffer has drained."""

    def writer_lost(self) -> None:
        """The connection is gone; `write` must not be called any more."""


class LendingWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, whose transport can be borrowed.

    It is found in the ASGI scope as `scope["extensions"][SCOPE_KEY]`. Pass this class to
    uvicorn as `ws=`.
    """

    high_water: int = 256 * 1024
    """Bytes in the socket's buffer past which a reader counts as slow."""

    borrower: WriterEvents | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(self.high_water)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)  # the ASGI task it makes has not run yet
        scope: Any = getattr(self, "scope", None)
        if scope is not None:
            scope.setdefault("extensions", {})[SCOPE_KEY] = self

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

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.borrower is not None:
            self.borrower.writer_paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.borrower is not None:
            self.borrower.writer_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        borrower, self.borrower = self.borrower, None
        if borrower is not None:
            borrower.writer_lost()
        super().connection_lost(exc)
