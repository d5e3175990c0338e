"""The way out of one connection: what one step of the loop writes is joined into one write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from gapless.mqtt import Packet, ProtocolVersion, encode
from gapless.transports.broadcast import Lane

logger = logging.getLogger("gapless.mqtt")


class Writer(Protocol):
    """What a connection needs of its socket. TCP and WebSocket each have one.

    The writer tells its connection, from the event loop, `data_received(bytes)`,
    `writer_paused()`, `writer_resumed()` and, once and last, `connection_lost()`.
    `writer_paused` is called only from within a `write`, the writer's or the lane's.
    """

    @property
    def lane(self) -> Lane:
        """As `write`, with nothing in between: RuntimeError where the connection is gone. Made anew each time."""

    @property
    def transport(self) -> asyncio.BaseTransport | None:
        """The socket's, for what TLS knows of the client; None where there is none to be had."""

    @property
    def held(self) -> int:
        """Bytes accepted that the socket has not taken yet."""

    def write(self, data: bytes) -> None:
        """Write whole MQTT packets. Nothing happens where the connection is gone."""

    def close(self) -> None:
        """Write what was accepted, then close."""

    def abort(self) -> None:
        """Close at once."""

    def pause_reading(self) -> None:
        """Read no more from the peer, so that its own flow control holds it back."""

    def resume_reading(self) -> None:
        """Read again."""


def encode_fitting(packets: Iterable[Packet], version: ProtocolVersion, limit: int) -> bytes:
    """The first packet that takes at most `limit` bytes, or nothing: `b""` (MQTT 5 §3.1.2.11.4)."""
    return next((data for packet in packets if len(data := encode(packet, version)) <= limit), b"")


class Flusher:
    """Flushes, at the end of a step of the loop, every output that got something in it."""

    def __init__(self) -> None:
        self._waiting: list[Output] = []

    def add(self, output: Output) -> None:
        """Flush this one too; called at most once per output and step."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(output)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for output in waiting:
            try:
                output.flush()
            except Exception:  # a defect in one writer must not keep the others waiting
                logger.exception("writing failed: the connection is dropped")
                output.abort()


class Output:
    """Joins the packets of one step of the loop.

    Args:
        limit: bytes that are joined at most; past it they are written at once, so that a slow
            socket is known before the burst goes on.

    Attributes:
        waiting: packets wait for the end of the step; all that is sent must go behind them.
        lane: to write a packet at once: only where nothing is `waiting`, and nothing will be sent that it
            could be joined with.
        closed: nothing is written any more.
    """

    __slots__ = ("_flusher", "_holders", "_limit", "_parts", "_size", "closed", "lane", "waiting", "writer")

    def __init__(self, writer: Writer, flusher: Flusher, *, limit: int) -> None:
        self.writer = writer
        self.lane = writer.lane
        self.waiting = False
        self.closed = False
        self._flusher = flusher
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._holders: set[str] = set()

    @property
    def held(self) -> int:
        """Bytes that wait for the socket."""
        return self._size + self.writer.held

    @property
    def reading_held(self) -> bool:
        """Whether the peer is not read, so that its silence says nothing of it."""
        return bool(self._holders)

    def hold_reading(self, reason: str) -> None:
        """Read no more from the peer until every reason for it is gone."""
        if not self._holders:
            self.writer.pause_reading()
        self._holders.add(reason)

    def release_reading(self, reason: str) -> None:
        """This reason is gone, where it was one."""
        if reason in self._holders:
            self._holders.remove(reason)
            if not self._holders and not self.closed:
                self.writer.resume_reading()

    def send(self, data: bytes) -> None:
        """Send one packet, after all sent before it."""
        self._parts.append(data)
        self._size += len(data)
        if not self.waiting:
            self.waiting = True
            self._flusher.add(self)
        if self._size >= self._limit:
            self._write()

    def send_now(self, data: bytes) -> None:
        """Send one packet, at once where nothing waits before it."""
        if self.waiting or self.closed:
            self.send(data)
            return
        try:
            self.lane.write(data)
        except RuntimeError:  # the connection is gone, which `write` makes sure of
            self.writer.write(data)

    def flush(self) -> None:
        """Write what was joined. For the flusher."""
        self.waiting = False
        self._write()

    def _write(self) -> None:
        parts = self._parts
        if parts and not self.closed:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._size = 0
            self.writer.write(data)

    def close(self, last: bytes = b"") -> None:
        """Write what there is and `last`, then close."""
        if self.closed:
            return
        if last:
            self._parts.append(last)
        self._write()
        self.closed = True
        self._parts.clear()
        self.writer.close()

    def abort(self) -> None:
        """Close at once, dropping what was not written."""
        self.closed = True
        self._parts.clear()
        self.writer.abort()
