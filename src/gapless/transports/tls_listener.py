"""A listening socket whose connections shake hands first, each address held to its share while it does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

from gapless.limits import FREE, Limiter, Networks, Visit

logger = logging.getLogger("gapless.tls")

_AT_ONCE = 64
"""Connections taken in one step of the event loop."""
_PAUSE = 1.0
"""Seconds without new connections once the process has no more file descriptors."""


class TlsListener:
    """Accepts connections, and hands those that come through the TLS handshake to protocols.

    A connection is counted from its first packet, not from the end of its handshake: else one address
    could hold any number of sockets that never finish one.

    Args:
        listener: a listening, non-blocking socket.
        make_protocol: makes the protocol of a connection, which is to `leave` the visit in the end.
        limiter: counts by address; None counts nothing.
        proxies: peers that are not counted.
        handshake_timeout: seconds.

    Attributes:
        failed: handshakes that failed or took too long.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[Visit], asyncio.Protocol],
        context: ssl.SSLContext,
        *,
        limiter: Limiter | None = None,
        proxies: Networks | None = None,
        handshake_timeout: float = 10.0,
    ) -> None:
        self.failed = 0
        self.sockets = (listener,)
        self._listener = listener
        self._make_protocol = make_protocol
        self._context = context
        self._limiter = limiter
        self._proxies = proxies
        self._timeout = handshake_timeout
        self._loop = asyncio.get_running_loop()
        self._shaking: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._open = True
        self._resume()

    @property
    def handshakes(self) -> int:
        """Connections that shake hands now."""
        return len(self._shaking)

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        if not self._open:
            return
        self._open = False
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for task in self._shaking:
            task.cancel()

    async def wait_closed(self) -> None:
        """Until no handshake is under way any more."""
        if self._shaking:
            await asyncio.wait(self._shaking)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("cannot take more connections now: %s; trying again in %g s", error, _PAUSE)
                self._loop.remove_reader(self._listener.fileno())
                self._pause = self._loop.call_later(_PAUSE, self._resume)
                return
            visit = self._visit(peer)
            if not visit.enter():
                visit.leave()
                connection.close()
                continue
            connection.setblocking(False)
            task = self._loop.create_task(self._shake_hands(connection, visit), name="tls-handshake")
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    def _visit(self, peer: object) -> Visit:
        address = peer[0] if isinstance(peer, tuple) else None
        if self._limiter is None or (self._proxies and address in self._proxies):
            return FREE
        return self._limiter.visit(address)

    async def _shake_hands(self, connection: socket.socket, visit: Visit) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._make_protocol(visit), connection, ssl=self._context, ssl_handshake_timeout=self._timeout
            )
        except (OSError, TimeoutError) as error:  # an SSLError is one, too
            self.failed += 1
            logger.debug("a TLS handshake failed: %s", error)
            visit.leave()
        except BaseException:
            visit.leave()
            with contextlib.suppress(OSError):
                connection.close()
            raise
