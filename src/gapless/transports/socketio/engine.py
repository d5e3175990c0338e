"""python-engineio with our queue and, on WebSocket, the transport lent by uvicorn."""

from __future__ import annotations

from typing import Any

import engineio
from engineio.async_drivers import asgi
from engineio.payload import Payload

from gapless.transports.raw_websocket import SCOPE_KEY
from gapless.transports.socketio.outgoing import OutgoingQueue

MAX_POLL_PACKETS = 10_000
"""Packets of one POST of a polling client. The library's 16 breaks a client's honest bursts;
what bounds a POST here is its size."""


class EngineWebSocket(asgi.WebSocket):  # type: ignore[misc]
    """The driver's WebSocket, lending its transport to the connection's queue."""

    async def __call__(self, environ: dict[str, Any]) -> Any:
        raw = environ["asgi.scope"].get("extensions", {}).get(SCOPE_KEY)
        socket = self.handler.__self__  # bound method AsyncSocket._websocket_handler
        self._queue: OutgoingQueue = socket.queue
        if raw is not None:
            self._raw = raw
            self._socket = socket
            # The library's poll() closes a connection whose queue stays empty for 45 s,
            # as it does while everything is written directly.
            socket.poll = self._poll
        try:
            return await super().__call__(environ)
        finally:
            self._queue.detach()
            if not socket.upgraded:  # a failed upgrade: polling goes on as it was
                socket.__dict__.pop("poll", None)

    async def _poll(self) -> list[Any]:
        queue = self._queue
        if self._socket.upgraded:
            queue.lend(self._raw)
        packets = [await queue.get()]
        while packets[-1] is not None and not queue.empty():
            packets.append(queue.get_nowait())
        for _ in packets:
            queue.task_done()
        if packets[-1] is None:
            packets.pop()
            if packets:
                queue.put_nowait(None)
        return packets

    async def close(self) -> None:
        self._queue.detach()
        await super().close()


class Engine(engineio.AsyncServer):  # type: ignore[misc]
    """One Engine.IO 4 server.

    Args:
        max_waiting_messages, max_waiting_bytes: see `OutgoingQueue`.
    """

    _async: dict[str, Any]

    def __init__(
        self, *args: Any, max_waiting_messages: int = 256, max_waiting_bytes: int = 262_144, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._async = {**self._async, "websocket": EngineWebSocket}
        self._max_waiting_messages = max_waiting_messages
        self._max_waiting_bytes = max_waiting_bytes
        Payload.max_decode_packets = MAX_POLL_PACKETS

    def create_queue(self, *args: Any, **options: Any) -> OutgoingQueue:
        """The queue of a new connection."""
        return OutgoingQueue(max_messages=self._max_waiting_messages, max_bytes=self._max_waiting_bytes)

    async def drop(self, eio_sid: str, reason: str) -> None:
        """End a connection without waiting for its peer, which may be gone."""
        socket = self.sockets.get(eio_sid)
        if socket is not None:
            queue: OutgoingQueue = socket.queue
            queue.detach()
            await socket.close(wait=False, abort=True, reason=reason)
            queue.put_nowait(None)  # ends the WebSocket's writer, or a poll
            self.sockets.pop(eio_sid, None)

    async def close_all(self) -> None:
        """Tell every client that the server goes, and end its connection."""
        for socket in list(self.sockets.values()):
            await socket.close(wait=False, reason=self.reason.SERVER_DISCONNECT)
            socket.queue.put_nowait(None)
