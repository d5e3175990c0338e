"""What leaves on one Engine.IO connection, in order.

python-engineio sends everything through a queue per connection: the WebSocket writer, or a
poll, takes it from there. This queue is that queue. Once a WebSocket's writer has come back
to it empty, nothing is left before it, and from then on packets are written straight to the
socket; as every packet passes `put`, the order holds. Polling and upgrading clients stay on
the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from engineio import packet as eio

from gapless.transports.raw_websocket import BINARY, TEXT, LendingWebSocket, frame


class Reader(Protocol):
    """Who uses the connection.

    Attributes:
        write: writes finished frames to the socket; None where messages must go through `send`.
    """

    write: Callable[[bytes], None] | None

    def connection_full(self) -> None:
        """The connection can take no more live events."""

    def connection_drained(self) -> None:
        """It can again."""


class EncodedMessage:
    """Socket.IO packets, encoded once for every client: frames for WebSocket, packets for polling.

    Args:
        parts: of each packet its text, and its binary attachments.
        frames: the same as finished WebSocket frames, each an Engine.IO message (Engine.IO 4:
            text after its type, binary as it is).
    """

    __slots__ = ("_packets", "_parts", "frames")

    def __init__(self, parts: Sequence[bytes | memoryview], frames: bytes) -> None:
        self._parts = parts
        self._packets: list[Any] | None = None
        self.frames = frames

    @classmethod
    def of(cls, text: bytes, *attachments: bytes) -> EncodedMessage:
        """One Socket.IO packet."""
        frames = frame(b"4" + text, TEXT)
        if not attachments:
            return cls((text,), frames)
        binary = [memoryview(attachment) for attachment in attachments]
        return cls((text, *binary), b"".join([frames, *(frame(attachment, BINARY) for attachment in attachments)]))

    @classmethod
    def joined(cls, messages: Sequence[EncodedMessage]) -> EncodedMessage:
        """Several, in order."""
        if len(messages) == 1:
            return messages[0]
        parts = [part for message in messages for part in message._parts]
        return cls(parts, b"".join([message.frames for message in messages]))

    @property
    def packets(self) -> list[Any]:
        """As python-engineio's packets, made on first use."""
        if self._packets is None:
            self._packets = [
                eio.Packet(eio.MESSAGE, part.decode() if isinstance(part, bytes) else bytes(part))
                for part in self._parts
            ]
        return self._packets


def encode_frame(packet: Any) -> bytes:
    """An Engine.IO packet as a finished WebSocket frame."""
    encoded = packet.encode()
    if isinstance(encoded, str):
        return frame(encoded.encode(), TEXT)
    return frame(bytes(encoded), BINARY)


class OutgoingQueue(asyncio.Queue[Any]):
    """The queue of one connection.

    Args:
        max_messages, max_bytes: what may wait for a client; beyond either it is slow, and gets
            no more live events until it has taken what waits.

    Attributes:
        write: writes finished frames straight to the socket; None while packets must queue.
        stalled: whether the connection can take no more live events now.
    """

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        super().__init__()
        self.write: Callable[[bytes], None] | None = None
        self.stalled = False
        self._readers: list[Reader] = []  # one per Socket.IO session on the connection
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._bytes = 0  # of messages that wait in the queue
        self._raw: LendingWebSocket | None = None

    def add_reader(self, reader: Reader) -> None:
        """Tell it of the connection from now on."""
        self._readers.append(reader)
        reader.write = self.write

    def remove_reader(self, reader: Reader) -> None:
        """It uses the connection no more."""
        if reader in self._readers:
            self._readers.remove(reader)
            reader.write = None

    # --- taking packets in

    async def put(self, packet: Any) -> None:
        """What python-engineio sends: OPEN, pings, acknowledgements, CONNECT, CLOSE (None ends it)."""
        if self.write is not None and packet is not None:
            self._write_frames(self.write, encode_frame(packet))
        else:
            self.put_nowait(packet)

    def send(self, message: EncodedMessage) -> None:
        """Pre-encoded packets, written at once or queued."""
        if self.write is not None:
            self._write_frames(self.write, message.frames)
            return
        for packet in message.packets:
            self.put_nowait(packet)
        self._bytes += len(message.frames)
        if self.qsize() >= self._max_messages or self._bytes >= self._max_bytes:
            self._set_full()

    def _write_frames(self, write: Callable[[bytes], None], frames: bytes) -> None:
        try:
            write(frames)
        except RuntimeError:  # uvloop: the handle is closed, connection_lost has not run yet
            self.writer_lost()

    # --- handing packets out, on WebSocket's writer task or a poll

    async def get(self) -> Any:
        if self._raw is not None and self.write is None and self.empty():
            self._raw.borrower = self
            self._set_write(self._raw.transport.write)
        packet = await super().get()
        self._check_drained()
        return packet

    def get_nowait(self) -> Any:
        packet = super().get_nowait()
        self._check_drained()
        return packet

    def _check_drained(self) -> None:
        if self.empty():
            self._bytes = 0
            if self.stalled and self.write is None:
                asyncio.get_running_loop().call_soon(self._set_drained)

    # --- the lent WebSocket

    def lend(self, raw: LendingWebSocket) -> None:
        """From now on a WebSocket carries this connection; it is used once its writer is idle."""
        if self._raw is None:
            self._raw = raw
            raw.transport.set_write_buffer_limits(self._max_bytes)

    def detach(self) -> None:
        """Go back to the queue: the connection closes."""
        self.writer_lost()

    def writer_paused(self) -> None:
        self._set_full()

    def writer_resumed(self) -> None:
        self._set_drained()

    def writer_lost(self) -> None:
        self._set_write(None)
        raw, self._raw = self._raw, None
        if raw is not None and raw.borrower is self:
            raw.borrower = None

    def abort(self) -> None:
        """Drop a WebSocket connection; the client comes back and resumes."""
        if self._raw is not None:
            self._raw.abort()

    def _set_write(self, write: Callable[[bytes], None] | None) -> None:
        self.write = write
        for reader in self._readers:
            reader.write = write

    def _set_full(self) -> None:
        if not self.stalled:
            self.stalled = True
            for reader in self._readers:
                reader.connection_full()

    def _set_drained(self) -> None:
        if self.stalled:
            self.stalled = False
            for reader in tuple(self._readers):
                reader.connection_drained()
