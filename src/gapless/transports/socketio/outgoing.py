"""What leaves on one Engine.IO connection, in order.

python-engineio sends everything through a queue per connection: the WebSocket writer, or a
poll, takes it from there. This queue is that queue. Once a WebSocket's writer has come back
to it empty, nothing is left before it, and from then on packets are written straight to the
socket; as every packet passes `put`, the order holds. Polling and upgrading clients stay on
the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from engineio import packet as eio

from gapless.transports.raw_websocket import BINARY, TEXT, LendingWebSocket, frame


class Reader(Protocol):
    """Who is told when the connection can take no more, or again."""

    def connection_full(self) -> None: ...

    def connection_drained(self) -> None: ...


class EncodedMessage:
    """One Socket.IO packet, encoded once for every client: frames for WebSocket, packets for polling."""

    __slots__ = ("frames", "packets")

    def __init__(self, parts: list[str | bytes]) -> None:
        self.packets = [eio.Packet(eio.MESSAGE, part) for part in parts]
        self.frames = b"".join(encode_frame(packet) for packet in self.packets)


def encode_frame(packet: Any) -> bytes:
    """An Engine.IO packet as a finished WebSocket frame (Engine.IO 4: text, or binary as it is)."""
    encoded = packet.encode()
    if isinstance(encoded, str):
        return frame(encoded.encode(), TEXT)
    return frame(bytes(encoded), BINARY)


class OutgoingQueue(asyncio.Queue[Any]):
    """The queue of one connection.

    Args:
        limit: packets that may wait for a polling client; beyond it the connection is full.

    Attributes:
        readers: told of full and drained; one per Socket.IO session on the connection.
        stalled: whether the connection can take no more live events now.
    """

    def __init__(self, limit: int, flush_later: Callable[[OutgoingQueue], None]) -> None:
        super().__init__()
        self.readers: list[Reader] = []
        self.stalled = False
        self._limit = limit
        self._flush_later = flush_later
        self._raw: LendingWebSocket | None = None
        self._attached = False
        self._joined: list[bytes] = []

    # --- taking packets in

    async def put(self, packet: Any) -> None:
        """What python-engineio sends: OPEN, pings, acknowledgements, CONNECT, CLOSE (None ends it)."""
        if self._attached and packet is not None:
            self.flush()
            self._write(encode_frame(packet))
        else:
            self.put_nowait(packet)

    def send(self, message: EncodedMessage) -> None:
        """A pre-encoded message; written at the end of this turn of the loop, joined with others."""
        if self._attached:
            if not self._joined:
                self._flush_later(self)
            self._joined.append(message.frames)
            return
        for packet in message.packets:
            self.put_nowait(packet)
        if self.qsize() >= self._limit:
            self._set_full()

    def flush(self) -> None:
        """Write what was joined."""
        joined = self._joined
        if joined:
            frames = joined[0] if len(joined) == 1 else b"".join(joined)
            joined.clear()
            self._write(frames)

    def _write(self, frames: bytes) -> None:
        if self._raw is not None and not self._raw.write(frames):
            self.writer_lost()

    # --- handing packets out, on WebSocket's writer task or a poll

    async def get(self) -> Any:
        if self._raw is not None and not self._attached and self.empty():
            self._attached = True
            self._raw.borrower = self
        packet = await super().get()
        self._check_drained()
        return packet

    def get_nowait(self) -> Any:
        packet = super().get_nowait()
        self._check_drained()
        return packet

    def _check_drained(self) -> None:
        if self.stalled and not self._attached and self.qsize() == 0:
            asyncio.get_running_loop().call_soon(self._set_drained)

    # --- the lent WebSocket

    def lend(self, raw: LendingWebSocket) -> None:
        """From now on a WebSocket carries this connection; it is used once its writer is idle."""
        self._raw = raw

    def detach(self) -> None:
        """Go back to the queue: the connection closes."""
        self.flush()
        self.writer_lost()

    def writer_paused(self) -> None:
        self._set_full()

    def writer_resumed(self) -> None:
        self._set_drained()

    def writer_lost(self) -> None:
        self._attached = False
        self._joined.clear()
        raw, self._raw = self._raw, None
        if raw is not None and raw.borrower is self:
            raw.borrower = None

    def abort(self) -> None:
        """Drop a WebSocket connection; the client comes back and resumes."""
        if self._raw is not None:
            self._raw.abort()

    def _set_full(self) -> None:
        if not self.stalled:
            self.stalled = True
            for reader in self.readers:
                reader.connection_full()

    def _set_drained(self) -> None:
        if self.stalled:
            self.stalled = False
            for reader in tuple(self.readers):
                reader.connection_drained()
