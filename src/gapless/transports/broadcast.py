"""The same bytes to many connections: by one system call where the machine has io_uring, else one by one.

Most of what a delivery costs is entering the kernel; a fan-out enters it once for a thousand clients.
See docs/decisions/0012-io-uring.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from gapless.transports.io_uring import Ring

logger = logging.getLogger("gapless.transports")

FEW = 4
"""Up to so many are written to one by one: preparing the call costs as much."""


class Lane:
    """The way to one connection's client.

    Args:
        write: writes bytes as they are to be sent, all or, once the connection has ended, nothing.
        transport: the connection's, where it can be had.
        plain: whether `write` is the transport's own.

    Attributes:
        write: see above.
        socket: the transport's, once `find_socket` has found it.
    """

    __slots__ = ("plain", "socket", "transport", "write")

    def __init__(
        self, write: Callable[[bytes], object], transport: asyncio.Transport | None = None, *, plain: bool = False
    ) -> None:
        self.write = write
        self.transport = transport
        self.plain = plain
        self.socket: Any = None

    def find_socket(self) -> bool:
        """Look for the socket to which the bytes go as they are; whether there is one, in `socket`.

        With TLS they are others. A transport closes its socket once `connection_lost` has returned, and no lane is
        used from then on; and a closed one says that its number is -1, so never another's number.
        """
        transport = self.transport
        if self.plain and transport is not None and transport.get_extra_info("sslcontext") is None:
            self.socket = transport.get_extra_info("socket")
        self.plain = self.socket is not None
        return self.plain


class Broadcast:
    """Writes to many lanes.

    Its `write` never raises: what goes wrong with one connection ends that connection alone.
    """

    def __init__(self) -> None:
        self._ring: Ring | None = None

    @property
    def by_io_uring(self) -> bool:
        """Whether one system call is enough for many."""
        return self._ring is not None

    def open(self) -> str | None:
        """Use io_uring from now on, in this thread. Where that cannot be: the reason."""
        try:
            self._ring = self._ring or Ring()
        except OSError as error:
            return error.strerror or str(error)
        return None

    def close(self) -> None:
        """Use it no more."""
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.close()

    def write(self, data: bytes, lanes: Sequence[Lane]) -> None:
        """Write `data` to every lane, behind all that was written to it before.

        What a socket does not take at once waits in its transport, which says so to its protocol
        (`pause_writing`) before this returns.

        Args:
            lanes: each connection at most once.
        """
        ring = self._ring
        if ring is None or len(lanes) <= FEW:
            for lane in lanes:
                try:
                    lane.write(data)
                except Exception as error:
                    _failed(lane, error)
            return
        direct: list[Lane] = []
        for lane in lanes:
            transport = lane.transport
            if (
                (lane.socket is None and not lane.find_socket())
                or transport is None
                or transport.get_write_buffer_size()
            ):
                _write(lane, data)
            elif not transport.is_closing():  # else nothing may follow what was said last
                direct.append(lane)
        taken = ring.send([lane.socket.fileno() for lane in direct], data)
        if ring.problem is not None:
            logger.error("io_uring failed (%s): connections are written to one by one from now on", ring.problem)
            self.close()
        size = len(data)
        if taken.count(size) == len(direct):
            return
        taken += [0] * (len(direct) - len(taken))
        for lane, count in zip(direct, taken, strict=True):
            if count != size:  # the transport meets an error too, and ends the connection
                _write(lane, data[max(count, 0) :])


def _write(lane: Lane, data: bytes) -> None:
    try:
        lane.write(data)
    except Exception as error:
        _failed(lane, error)


def _failed(lane: Lane, error: Exception) -> None:
    transport = lane.transport
    if isinstance(error, RuntimeError) and transport is not None and transport.is_closing():
        return  # uvloop: the handle is closed, and `connection_lost` tells so
    logger.error("writing to a connection failed: it is dropped, and its client resumes", exc_info=error)
    if transport is not None:
        transport.abort()
