"""What leaves on one Engine.IO connection, in order.

python-engineio sends everything through a queue per connection. This queue is that queue:
while the connection is polling or upgrading, packets wait in it for the next poll; once a
WebSocket carries it they are written straight to the socket, each by the same call, so the
order holds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from engineio import packet as eio

from gapless.transports.broadcast import Lane
from gapless.transports.raw_websocket import (
    BINARY,
    DEFLATED,
    TEXT,
    LendingWebSocket,
    deflate,
    first_payload,
    frame,
)

WORTH_DEFLATING = 128
"""Bytes of a text from which on it is compressed, for clients that negotiated it."""


class Reader(Protocol):
    """Who uses the connection.

    Attributes:
        lane: where finished frames are written to; None where messages must go through `send`.
    """

    lane: Lane | None

    def connection_full(self) -> None:
        """The connection can take no more live events."""

    def connection_drained(self) -> None:
        """It can again."""


class EncodedMessage:
    """Socket.IO packets, encoded once for every client: frames for WebSocket, packets for polling.

    Args:
        frames: finished WebSocket frames: of each packet the Engine.IO message, text with its type before it, and
            its binary attachments (Engine.IO 4).
        attachments: those of the only packet.
        messages: of which it was joined.
    """

    __slots__ = ("_attachments", "_deflated", "_messages", "_packets", "frames")

    def __init__(
        self, frames: bytes, *, attachments: Sequence[bytes] = (), messages: Sequence[EncodedMessage] = ()
    ) -> None:
        self._attachments = attachments
        self._messages = messages
        self._packets: list[Any] | None = None
        self._deflated: bytes | None = None
        self.frames = frames

    @classmethod
    def of(cls, message: bytes, *attachments: bytes) -> EncodedMessage:
        """One Socket.IO packet, its text as Engine.IO message: after a `4`."""
        frames = frame(message, TEXT)
        if attachments:
            frames = b"".join([frames, *(frame(attachment, BINARY) for attachment in attachments)])
        return cls(frames, attachments=attachments)

    @classmethod
    def joined(cls, messages: Sequence[EncodedMessage]) -> EncodedMessage:
        """Several, in order."""
        if len(messages) == 1:
            return messages[0]
        return cls(b"".join([message.frames for message in messages]), messages=messages)

    @property
    def deflated(self) -> bytes:
        """The frames for clients that negotiated compression (RFC 7692): texts compressed, made once."""
        if self._deflated is None:
            if self._messages:
                self._deflated = b"".join([message.deflated for message in self._messages])
            elif len(text := first_payload(self.frames)) < WORTH_DEFLATING:
                self._deflated = self.frames
            else:
                frames = [frame(deflate(text), TEXT | DEFLATED)]
                self._deflated = b"".join(frames + [frame(each, BINARY) for each in self._attachments])
        return self._deflated

    @property
    def packets(self) -> list[Any]:
        """As python-engineio's packets. They keep how they were encoded, and binary ones are
        encoded in two ways, so only text is shared."""
        if self._packets is not None:
            return self._packets
        if self._messages:
            return [packet for message in self._messages for packet in message.packets]
        text = first_payload(self.frames)[1:].decode()
        packets = [eio.Packet(eio.MESSAGE, each) for each in (text, *self._attachments)]
        if len(packets) == 1:
            self._packets = packets
        return packets


def encode_frame(packet: Any) -> bytes:
    """An Engine.IO packet as a finished WebSocket frame."""
    encoded = packet.encode()
    if isinstance(encoded, str):
        return frame(encoded.encode(), TEXT)
    return frame(bytes(encoded), BINARY)


class OutgoingQueue:
    """The queue of one connection: as much of `asyncio.Queue` as python-engineio uses.

    Args:
        max_messages, max_bytes: what may wait for a client; beyond either it is slow, and gets
            no more live events until it has taken what waits.

    Attributes:
        lane: where finished frames are written to; None while packets must queue.
        stalled: whether the connection can take no more live events now.
    """

    __slots__ = (
        "_bytes",
        "_deflates",
        "_max_bytes",
        "_max_messages",
        "_packets",
        "_raw",
        "_readers",
        "_waiters",
        "lane",
        "stalled",
    )

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self.lane: Lane | None = None
        self.stalled = False
        self._deflates = False
        self._readers: tuple[Reader, ...] = ()  # one per Socket.IO session on the connection
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._bytes = 0  # of messages that wait in the queue
        self._packets: deque[Any] | None = None  # an idle connection needs none
        self._waiters: tuple[asyncio.Future[None], ...] = ()
        self._raw: LendingWebSocket | None = None

    def add_reader(self, reader: Reader) -> None:
        """Tell it of the connection from now on."""
        self._readers += (reader,)
        self._lend()

    def remove_reader(self, reader: Reader) -> None:
        """It uses the connection no more."""
        self._readers = tuple(other for other in self._readers if other is not reader)
        reader.lane = None
        self._lend()

    # --- taking packets in

    async def put(self, packet: Any) -> None:
        """What python-engineio sends: OPEN, pings, acknowledgements, CONNECT, CLOSE; None ends it."""
        self.put_nowait(packet)

    def put_nowait(self, packet: Any) -> None:
        """See `put`."""
        if self.lane is not None:
            if packet is None:
                self.end()
            else:
                self._write_frames(self.lane, encode_frame(packet))
            return
        if self._packets is None:
            self._packets = deque()
        self._packets.append(packet)
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def send(self, message: EncodedMessage) -> None:
        """Pre-encoded packets, written at once or queued."""
        if self.lane is not None:
            self._write_frames(self.lane, message.deflated if self._deflates else message.frames)
            return
        for packet in message.packets:
            self.put_nowait(packet)
        self._bytes += len(message.frames)
        if self.qsize() >= self._max_messages or self._bytes >= self._max_bytes:
            self.set_full()

    def _write_frames(self, lane: Lane, frames: bytes) -> None:
        try:
            lane.write(frames)
        except RuntimeError:  # uvloop: the handle is closed, connection_lost has not run yet
            self.detach()

    # --- handing packets out, to a poll

    def qsize(self) -> int:
        """Packets that wait."""
        return 0 if self._packets is None else len(self._packets)

    def empty(self) -> bool:
        """Whether none waits."""
        return not self._packets

    async def get(self) -> Any:
        """The next packet, once there is one."""
        while not self._packets:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters += (waiter,)
            await waiter
        return self.get_nowait()

    def get_nowait(self) -> Any:
        """The next packet.

        Raises:
            asyncio.QueueEmpty: there is none.
        """
        if not self._packets:
            raise asyncio.QueueEmpty
        packet = self._packets.popleft()
        if not self._packets:
            self._packets = None
            self._bytes = 0
            if self.stalled and self.lane is None:
                asyncio.get_running_loop().call_soon(self.set_drained)
        return packet

    def task_done(self) -> None:
        """Nothing: whoever closes a connection here does not wait for its client."""

    async def join(self) -> None:
        """At once, for the same reason: a client that is gone never takes what waits."""

    @property
    def held(self) -> bool:
        """Whether something waits for the client: for its next poll, or for its socket."""
        return bool(self._packets) or (self._raw is not None and self._raw.transport.get_write_buffer_size() > 0)

    # --- the WebSocket

    def attach(self, raw: LendingWebSocket) -> None:
        """A WebSocket carries the connection from now on: what waits goes first."""
        packets, self._packets = self._packets, None
        raw.transport.set_write_buffer_limits(self._max_bytes)
        self._raw = raw
        self._deflates = raw.deflates
        self._set_lane(Lane(raw.transport.write, raw.transport, plain=True))
        for packet in packets or ():
            self.put_nowait(packet)
        self._bytes = 0
        if self.stalled and raw.transport.get_write_buffer_size() <= self._max_bytes:
            self.set_drained()

    def detach(self) -> None:
        """The socket is gone or going: nothing more is written to it."""
        self._raw = None
        self._set_lane(None)

    def end(self) -> None:
        """Close the WebSocket, once what was written is sent."""
        if self._raw is not None:
            self._raw.end()
        self.detach()

    def abort(self) -> None:
        """Drop the WebSocket; the client comes back and resumes."""
        if self._raw is not None:
            self._raw.abort()
        self.detach()

    def _set_lane(self, lane: Lane | None) -> None:
        self.lane = lane
        self._lend()

    def _lend(self) -> None:
        """Only to a reader alone: two would write to one socket at once."""
        lane = None if self._deflates or len(self._readers) > 1 else self.lane
        for reader in self._readers:
            reader.lane = lane

    def set_full(self) -> None:
        """The connection can take no more live events."""
        if not self.stalled:
            self.stalled = True
            for reader in self._readers:
                reader.connection_full()

    def set_drained(self) -> None:
        """It can again."""
        if self.stalled:
            self.stalled = False
            for reader in self._readers:
                reader.connection_drained()
