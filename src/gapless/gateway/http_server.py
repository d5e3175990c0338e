"""uvicorn, started and stopped by the gateway, on the gateway's own listening socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn

from gapless.limits import FREE, Limiter, Networks, Visit
from gapless.transports.deadlines import Deadlines
from gapless.transports.raw_http import LendingHttp
from gapless.transports.raw_websocket import LendingWebSocket
from gapless.transports.tls_listener import TlsListener


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers of its own, saying when it listens.

    Args:
        app: the ASGI application.
        largest_message: of a WebSocket, in bytes.
        limiter: counts connections by address.
        proxies: peers that speak for others.
        tls: the context for HTTPS; None for plain HTTP.
        compression: whether WebSockets may be compressed.
        timeout: seconds for the TLS handshake, and again for a request's line and headers.
    """

    def __init__(
        self,
        app: Any,
        *,
        largest_message: int,
        limiter: Limiter,
        proxies: Networks,
        tls: ssl.SSLContext | None = None,
        compression: bool = False,
        timeout: float = 10.0,
    ) -> None:
        config = uvicorn.Config(
            app,
            ws=LendingWebSocket,
            ws_per_message_deflate=compression,
            ws_max_size=largest_message,
            ws_ping_interval=None,  # Engine.IO and MQTT have pings of their own
            http=LendingHttp,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,
            server_header=False,
            proxy_headers=False,
            headers=[] if tls is None else [("strict-transport-security", "max-age=31536000")],  # RFC 6797
        )
        super().__init__(config)
        self.listening = asyncio.Event()
        self._limiter = limiter
        self._proxies = proxies
        self._tls = tls
        self._timeout = timeout
        self._deadlines = Deadlines(timeout)
        # Each malformed request would be a line of the log: anybody could fill the disk with them.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the gateway's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. uvicorn's own way takes no time limit for the TLS handshake."""
        assert sockets is not None
        loop = asyncio.get_running_loop()
        await self.lifespan.startup()
        if self._tls is None:
            self.servers = [await loop.create_server(self._make_protocol, sock=each, backlog=4096) for each in sockets]
        else:
            self.servers = [self._listen_with_tls(each, self._tls) for each in sockets]
        self.started = True
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._deadlines.close()
        await super().shutdown(sockets)

    @property
    def failed_handshakes(self) -> int:
        """TLS handshakes that failed or took too long."""
        return sum(each.failed for each in self.servers if isinstance(each, TlsListener)) if self.started else 0

    def _listen_with_tls(self, listener: socket.socket, context: ssl.SSLContext) -> Any:
        return TlsListener(
            listener,
            self._make_protocol,
            context,
            limiter=self._limiter,
            proxies=self._proxies,
            handshake_timeout=self._timeout,
        )

    def _make_protocol(self, visit: Visit = FREE) -> asyncio.Protocol:
        protocol = LendingHttp(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        protocol.limiter, protocol.proxies, protocol.deadlines = self._limiter, self._proxies, self._deadlines
        protocol.visit = visit
        return protocol
