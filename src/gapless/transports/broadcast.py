"""The same bytes to many connections: by one system call where the machine has io_uring, else one by one.

Most of what a delivery costs is entering the kernel; a fan-out enters it once for a thousand clients.
See docs/decisions/0012-io-uring.md.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Callable, Sequence
from operator import methodcaller

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
        descriptor: of the transport's socket, once `find_socket` has found it; else -1.
    """

    __slots__ = ("descriptor", "plain", "transport", "write")

    def __init__(
        self, write: Callable[[bytes], object], transport: asyncio.Transport | None = None, *, plain: bool = False
    ) -> None:
        self.write = write
        self.transport = transport
        self.plain = plain
        self.descriptor = -1

    def find_socket(self) -> bool:
        """Look for the socket to which the bytes go as they are; whether there is one, in `descriptor`.

        With TLS they are others. A transport that closes its socket `is_closing` from before that on, and for ever: the
        number is no other connection's as long as it is not.
        """
        transport = self.transport
        if self.plain and transport is not None and transport.get_extra_info("sslcontext") is None:
            socket = transport.get_extra_info("socket")
            self.descriptor = -1 if socket is None else socket.fileno()
        self.plain = self.descriptor >= 0
        return self.plain


class Group:
    """Lanes that get the same bytes again and again: what each write looks at is put together once.

    Args:
        lanes: each connection at most once.
    """

    __slots__ = ("closing", "descriptors", "direct", "others", "transports", "waiting")

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.direct: list[Lane] = []
        self.others: list[Lane] = []
        self.transports: list[asyncio.Transport] = []
        self.descriptors = array("i")
        for lane in lanes:
            transport = lane.transport
            if transport is None or (lane.descriptor < 0 and not lane.find_socket()):
                self.others.append(lane)
            else:
                self.direct.append(lane)
                self.transports.append(transport)
                self.descriptors.append(lane.descriptor)
        kinds = {type(transport) for transport in self.transports}
        kind = kinds.pop() if len(kinds) == 1 else None  # all of one kind: its methods need not be looked up each time
        self.waiting = methodcaller("get_write_buffer_size") if kind is None else kind.get_write_buffer_size
        self.closing = methodcaller("is_closing") if kind is None else kind.is_closing

    @property
    def free(self) -> bool:
        """Whether nothing waits in any transport, and none is closing."""
        transports = self.transports
        return not any(map(self.waiting, transports)) and not any(map(self.closing, transports))


class Broadcast:
    """Writes to many lanes, behind all that was written to each before.

    What a socket does not take at once waits in its transport, which says so to its protocol (`pause_writing`) before
    the call returns. No call raises: what goes wrong with one connection ends that connection alone.
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
        """Write `data` to every lane.

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
                transport is None
                or (lane.descriptor < 0 and not lane.find_socket())
                or transport.get_write_buffer_size()
            ):
                _write(lane, data)
            elif not transport.is_closing():  # else nothing may follow what was said last
                direct.append(lane)
        self._send(ring, data, direct, [lane.descriptor for lane in direct])

    def write_to_group(self, data: bytes, group: Group) -> None:
        """Write `data` to every lane of the group."""
        ring = self._ring
        if ring is not None and group.free:
            for lane in group.others:
                _write(lane, data)
            self._send(ring, data, group.direct, group.descriptors)
        else:
            self.write(data, group.direct + group.others)

    def _send(self, ring: Ring, data: bytes, lanes: Sequence[Lane], descriptors: Sequence[int]) -> None:
        taken = ring.send(descriptors, data)
        if ring.problem is not None:
            logger.error("io_uring failed (%s): connections are written to one by one from now on", ring.problem)
            self.close()
        size = len(data)
        if taken.count(size) == len(lanes):
            return
        taken += [0] * (len(lanes) - len(taken))
        for lane, count in zip(lanes, taken, strict=True):
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
