"""uvicorn, started and stopped by the gateway, on the gateway's own listening socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn

from gapless.transports.raw_http import LendingHttp
from gapless.transports.raw_websocket import LendingWebSocket


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers of its own, saying when it listens.

    Args:
        app: the ASGI application.
        largest_message: of a WebSocket, in bytes.
        tls: the context for HTTPS; None for plain HTTP.
        handshake_timeout: seconds for the TLS handshake.
    """

    def __init__(
        self, app: Any, *, largest_message: int, tls: ssl.SSLContext | None = None, handshake_timeout: float = 10.0
    ) -> None:
        config = uvicorn.Config(
            app,
            ws=LendingWebSocket,
            ws_per_message_deflate=False,  # a context per connection costs more than it saves on small events
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
        self._tls = tls
        self._handshake_timeout = handshake_timeout

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the gateway's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. uvicorn's own way takes no time limit for the TLS handshake."""
        assert sockets is not None
        loop = asyncio.get_running_loop()
        await self.lifespan.startup()
        timeout = None if self._tls is None else self._handshake_timeout
        self.servers = [
            await loop.create_server(
                self._make_protocol, sock=each, ssl=self._tls, ssl_handshake_timeout=timeout, backlog=4096
            )
            for each in sockets
        ]
        self.started = True
        self.listening.set()

    def _make_protocol(self) -> asyncio.Protocol:
        return LendingHttp(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
