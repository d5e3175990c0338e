"""Servers that echo, made of the gateway's own classes: what the protocol tests talk to.

`python -m tests.socketio_protocol.servers engine.io` (or `socket.io`) serves one on port 3000,
where the official test suites expect it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import engineio
import socketio
import uvicorn

from gapless.transports.raw_http import LendingHttp
from gapless.transports.raw_websocket import LendingWebSocket
from gapless.transports.socketio.engine import Engine
from gapless.transports.socketio.server import Server

PING_INTERVAL, PING_TIMEOUT = 0.3, 0.2
"""Seconds: what the official suites expect."""


class NoLifecycle:
    """Clients that are not recovered."""

    async def returning(self, eio_sid: str, auth: dict[str, Any], environ: Mapping[str, Any]) -> str | None:
        return None

    def settled(self, eio_sid: str) -> None: ...

    def connect_data(self, sid: str) -> dict[str, Any]:
        return {}

    def connected(self, sid: str) -> None: ...


def echo_engine(**options: Any) -> Engine:
    """An Engine.IO server that sends every message back."""
    engine = Engine(async_mode="asgi", **options)

    async def echo(sid: str, data: str | bytes) -> None:
        await engine.send(sid, data)

    engine.on("message", echo)
    return engine


def echo_server(**options: Any) -> Server:
    """A Socket.IO server of the namespaces `/` and `/custom`.

    On connect it emits `auth` with what the client showed; it answers `message` by
    `message-back`, and acknowledges `message-with-ack`, each with the arguments it got.
    """
    server = Server(async_mode="asgi", **options)
    server.lifecycle = NoLifecycle()
    for namespace in ("/", "/custom"):
        _add_echoes(server, namespace)
    return server


def _add_echoes(server: Server, namespace: str) -> None:
    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        await server.emit("auth", auth or {}, to=sid, namespace=namespace)

    async def message(sid: str, *args: Any) -> None:
        await server.emit("message-back", args, to=sid, namespace=namespace)

    async def message_with_ack(sid: str, *args: Any) -> tuple[Any, ...]:
        return args

    server.on("connect", connect, namespace=namespace)
    server.on("message", message, namespace=namespace)
    server.on("message-with-ack", message_with_ack, namespace=namespace)


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@asynccontextmanager
async def serving(server: Engine | Server, *, port: int = 0) -> AsyncIterator[str]:
    """Serve it as the gateway does; `127.0.0.1:PORT`."""
    app = engineio.ASGIApp(server) if isinstance(server, Engine) else socketio.ASGIApp(server)
    engine: Engine = server if isinstance(server, Engine) else server.eio
    config = uvicorn.Config(
        app,
        ws=LendingWebSocket,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        http=LendingHttp,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    with socket.create_server(("127.0.0.1", port)) as listener:
        running = _Uvicorn(config)
        task = asyncio.create_task(running.serve(sockets=[listener]))
        await running.listening.wait()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await engine.close_all()
            running.should_exit = True
            await task


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocol", choices=["engine.io", "socket.io"])
    parser.add_argument("--port", type=int, default=3000)
    chosen = parser.parse_args()
    make = echo_engine if chosen.protocol == "engine.io" else echo_server
    server = make(ping_interval=PING_INTERVAL, ping_timeout=PING_TIMEOUT, cors_allowed_origins="*")
    async with serving(server, port=chosen.port) as address:
        print(f"{chosen.protocol} on {address}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
