"""Carrying the bytes of one connection under conditions that change while it lives.

The two directions of a link are a `Line` each, shared by all its connections. A connection reads a piece
only when the one before was written (with a delay: up to 1 MiB ahead), so that backpressure passes
through, and a line that is shut makes the sender's own buffers fill, as a network that drops packets does.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import Literal

Ending = Literal["rst", "fin"]

_PIECE = 64 * 1024
_AHEAD = 16  # pieces on their way while there is a delay
_PACE = 0.02  # seconds of a slow line that one piece may take

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What one direction of a link does to bytes.

    Attributes:
        delay: seconds from reading a piece to writing it.
        rate: bytes a second, over all connections; None: as fast as it goes.
        is_open: False where nothing gets through.
    """

    delay: float = 0.0
    rate: float | None = None
    is_open: bool = True


class Line:
    """One direction of a link: its conditions, and how many bytes it has carried."""

    def __init__(self) -> None:
        self.carried = 0
        self._conditions = Conditions()
        self._free_at = 0.0
        self._changed = asyncio.Event()

    @property
    def conditions(self) -> Conditions:
        """The conditions in force."""
        return self._conditions

    def set(self, conditions: Conditions) -> None:
        """Put conditions into force at once, also for bytes that wait under the old ones."""
        self._conditions = conditions
        self._free_at = 0.0
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_open(self) -> None:
        """Wait while nothing gets through."""
        while not self._conditions.is_open:
            await self._changed.wait()

    async def wait_due(self, read_at: float) -> None:
        """Wait until bytes read at that time of the loop's clock may arrive."""
        loop = asyncio.get_running_loop()
        while True:
            await self.wait_open()
            left = read_at + self._conditions.delay - loop.time()
            if left <= 0:
                return
            await self._wait_change(left)

    async def admit(self, size: int) -> int:
        """Wait for the line's turn; answers how many of `size` bytes may be written now, at least one."""
        loop = asyncio.get_running_loop()
        while True:
            await self.wait_open()
            rate = self._conditions.rate
            if rate is None:
                return size
            left = self._free_at - loop.time()
            if left <= 0:
                admitted = max(1, min(size, int(rate * _PACE)))
                self._free_at = loop.time() + admitted / rate
                return admitted
            await self._wait_change(left)

    async def _wait_change(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass  # the time is what was waited for


class _Direction:
    """One direction of one connection."""

    def __init__(self, line: Line, source: socket.socket, target: socket.socket) -> None:
        self._line = line
        self._source = source
        self._target = target
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._moved = asyncio.Event()

    async def read(self) -> None:
        """Read until end of file, never further ahead than the conditions ask for."""
        loop = asyncio.get_running_loop()
        while True:
            await self._line.wait_open()
            while len(self._pieces) >= (_AHEAD if self._line.conditions.delay else 1):
                await self._wait_move()
            try:
                piece = await loop.sock_recv(self._source, _PIECE)
            except OSError:
                await self._line.wait_due(loop.time())  # a reset takes the same way as bytes
                raise
            self._pieces.append((loop.time(), piece))
            self._move()
            if not piece:
                return

    async def write(self) -> None:
        """Write each piece when it is due, and end of file after the last."""
        while True:
            while not self._pieces:
                await self._wait_move()
            read_at, piece = self._pieces[0]
            await self._line.wait_due(read_at)
            if not piece:
                self._target.shutdown(socket.SHUT_WR)
                return
            await self._write_piece(memoryview(piece))
            self._pieces.popleft()
            self._move()

    async def _write_piece(self, rest: memoryview) -> None:
        loop = asyncio.get_running_loop()
        while rest:
            size = await self._line.admit(len(rest))
            await loop.sock_sendall(self._target, rest[:size])
            self._line.carried += size
            rest = rest[size:]

    async def _wait_move(self) -> None:
        await self._moved.wait()

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


class Relay:
    """One connection through a link: two sockets and what goes between them."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._client = client
        self._server = server
        self._cut: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()

    async def run(self, target: tuple[str, int], to_server: Line, to_client: Line) -> None:
        """Connect to `target`, and carry until both sides have ended, one was reset, or it is cut.

        Where `target` cannot be connected to, the client is reset.
        """
        carrying = asyncio.create_task(self._carry(target, to_server, to_client), name="link-carry")
        reset = True
        try:
            await asyncio.wait({carrying, self._cut}, return_when=asyncio.FIRST_COMPLETED)
            if carrying.done():
                reset = carrying.result() == "rst"
            elif self._cut.result() == "fin":
                await _cancel(carrying)
                await self._say_goodbye()
                reset = False
        finally:
            await _cancel(carrying)
            self.close(reset=reset)
            self._ended.set()

    async def cut(self, ending: Ending) -> None:
        """End the connection on both sides; returns when that was sent. What was on its way is lost."""
        if not self._cut.done():
            self._cut.set_result(ending)
        await self._ended.wait()

    async def _carry(self, target: tuple[str, int], to_server: Line, to_client: Line) -> Ending:
        await to_server.wait_open()
        try:
            await asyncio.get_running_loop().sock_connect(self._server, target)
        except OSError:
            return "rst"
        up = _Direction(to_server, self._client, self._server)
        down = _Direction(to_client, self._server, self._client)
        ending: Ending = "fin"
        try:
            async with asyncio.TaskGroup() as group:
                for job in (up.read(), up.write(), down.read(), down.write()):
                    group.create_task(job, name="link-direction")
        except* OSError:
            ending = "rst"
        return ending

    async def _say_goodbye(self) -> None:
        """End both streams, and read what still comes: closing with bytes unread would send a reset."""
        for side in (self._client, self._server):
            try:
                side.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the peer has reset it already: nobody is left to say goodbye to
        self._ended.set()
        async with asyncio.TaskGroup() as group:
            for side in (self._client, self._server):
                group.create_task(_read_to_end(side), name="link-goodbye")

    def close(self, *, reset: bool = True) -> None:
        """Close both sockets; nothing where they are closed already."""
        for side in (self._client, self._server):
            if reset and side.fileno() != -1:
                _reset_on_close(side)
            side.close()


def _reset_on_close(side: socket.socket) -> None:
    try:
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    except OSError:
        pass  # macOS refuses options on a socket that its peer has reset, which then needs none


async def _read_to_end(side: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while await loop.sock_recv(side, _PIECE):
            pass
    except OSError:
        pass  # a reset, or never connected: an end too


async def _cancel(task: asyncio.Task[Ending]) -> None:
    task.cancel()
    await asyncio.wait({task})
