"""A TCP link between a client and a server that a test can cut, delay, slow down and black out."""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from gapless.testing.ports import free_port
from gapless.testing.relay import Conditions, Ending, Line, Relay

_HOST = "127.0.0.1"
_BACKLOG = 1024
_PORT_ATTEMPTS = 10

Way = Literal["both", "to_server", "to_client"]
"""The directions that a change is for."""


class Link:
    """A TCP proxy on a free loopback port; what it does to bytes changes at once, at any time.

        async with Link.to(gateway.http) as link:
            client = await connect(link.url("http"))
            await link.wait_connections(1)
            await link.cut()        # both sides are reset
            link.blackhole()        # nothing gets through, nothing is reset
            link.restore()          # and now what was held back does, as TCP's repetitions would

    Bytes are carried in order and never changed, and none is lost except by `cut`. A link holds at most
    64 KiB per connection and direction, with a delay 1 MiB; beyond that senders are held up.

    POSIX only, for one event loop.

    Attributes:
        port: the port that clients connect to; kept while connections are refused.
        connections: connections accepted so far.
    """

    def __init__(self, host: str, port: int, *, kernel_buffer: int | None = None) -> None:
        """Prepare a link to `host:port`; `async with` opens it.

        Args:
            host: the server's address.
            port: the server's port.
            kernel_buffer: bytes of the kernel's receive buffer on both of the link's sockets, so that a
                slow reader is felt early; default: the system's, which may take megabytes.
        """
        self.port = 0
        self.connections = 0
        self._target = (host, port)
        self._kernel_buffer = kernel_buffer
        self._to_server = Line()
        self._to_client = Line()
        self._guard: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._relays: set[Relay] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self._changed = asyncio.Event()

    @classmethod
    def to(cls, url: str, *, kernel_buffer: int | None = None) -> Self:
        """A link to the server of a URL that names its port."""
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise ValueError(f"a link needs a URL with host and port, not {url!r}")
        return cls(parts.hostname, parts.port, kernel_buffer=kernel_buffer)

    def url(self, scheme: str, path: str = "") -> str:
        """`scheme://127.0.0.1:PORTpath`: how a client connects through the link."""
        return f"{scheme}://{_HOST}:{self.port}{path}"

    @property
    def open_connections(self) -> int:
        """Connections accepted and not yet ended."""
        return len(self._relays)

    @property
    def bytes_to_server(self) -> int:
        """Bytes written to the server so far."""
        return self._to_server.carried

    @property
    def bytes_to_client(self) -> int:
        """Bytes written to clients so far."""
        return self._to_client.carried

    def blackhole(self, way: Way = "both") -> None:
        """Let nothing through from now on, and reset nothing: a phone that left the network.

        Senders go on until their buffers are full. Ends and resets of one side do not reach the other. New
        connections are accepted, and silent. `restore` lets through what was held back; `cut` before it is
        a network that has forgotten its connections meanwhile.
        """
        self._change(way, is_open=False)

    def delay(self, seconds: float, way: Way = "both") -> None:
        """Deliver bytes so many seconds after they were sent, per direction; order is kept."""
        if seconds < 0:
            raise ValueError(f"a delay is not negative: {seconds}")
        self._change(way, delay=seconds)

    def slow(self, bytes_per_second: float, way: Way = "both") -> None:
        """Carry no more bytes a second, per direction, over all connections together."""
        if bytes_per_second <= 0:
            raise ValueError(f"a rate is positive, to stop a link black it out: {bytes_per_second}")
        self._change(way, rate=bytes_per_second)

    def refuse(self) -> None:
        """Refuse new connections, as a port does on which nobody listens; those open stay."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def restore(self) -> None:
        """End blackholes, delays, slowness and refusals; what waited is delivered at once, in order."""
        for line in (self._to_server, self._to_client):
            line.set(Conditions())
        if self._guard is not None and self._listener is None:
            self._listen()

    async def cut(self, ending: Ending = "rst") -> None:
        """End all open connections on both sides; what was on its way is lost. New ones are accepted.

        Args:
            ending: `rst`, as a proxy or a network that gave up; `fin`, as an orderly close.
        """
        await asyncio.gather(*(relay.cut(ending) for relay in list(self._relays)))

    async def wait_connections(self, count: int) -> None:
        """Wait until at least `count` connections were accepted since the link was opened."""
        while self.connections < count:
            await self._changed.wait()

    async def wait_open(self, count: int) -> None:
        """Wait until exactly `count` connections are open."""
        while len(self._relays) != count:
            await self._changed.wait()

    async def __aenter__(self) -> Self:
        self._claim_port()
        self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._failures and error is None:
            raise ExceptionGroup("a link failed to carry", self._failures)

    def _change(self, way: Way, **changes: Any) -> None:
        if way in ("both", "to_server"):
            self._to_server.set(replace(self._to_server.conditions, **changes))
        if way in ("both", "to_client"):
            self._to_client.set(replace(self._to_client.conditions, **changes))

    def _claim_port(self) -> None:
        """Bind a socket that never listens: it keeps the port ours while connections are refused."""
        for attempt in range(_PORT_ATTEMPTS):
            guard = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            # The listener shares the port by this option; programs that do not set it cannot.
            guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                guard.bind((_HOST, free_port(_HOST)))
            except OSError as error:
                guard.close()
                if error.errno != errno.EADDRINUSE or attempt == _PORT_ATTEMPTS - 1:
                    raise
                continue
            self._guard = guard
            self.port = guard.getsockname()[1]
            return

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._shrink(listener)
        listener.bind((_HOST, self.port))
        listener.listen(_BACKLOG)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _shrink(self, side: socket.socket) -> None:
        if self._kernel_buffer is not None:
            side.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._kernel_buffer)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it was gone before we came to it
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._shrink(server)
        for side in (client, server):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        relay = Relay(client, server)
        self._relays.add(relay)
        task = asyncio.create_task(
            relay.run(self._target, self._to_server, self._to_client),
            name=f"link-{self.port}-{self.connections}",
        )
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, relay))
        self._tell()

    def _ended(self, relay: Relay, task: asyncio.Task[None]) -> None:
        relay.close()  # a task that is cancelled before it ran has closed nothing
        self._relays.discard(relay)
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(failure := task.exception(), Exception):
            self._failures.append(failure)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
