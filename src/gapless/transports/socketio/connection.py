"""One Engine.IO connection. On a WebSocket it is served by calls: while idle it has no task."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from engineio import packet as eio
from engineio.exceptions import EngineIOError

from gapless.transports.lending import SCOPE_KEY
from gapless.transports.raw_websocket import LendingWebSocket
from gapless.transports.socketio.outgoing import OutgoingQueue
from gapless.transports.socketio.packets import decode_engine_packet
from gapless.transports.socketio.polling import PATIENCE, PollingSocket

if TYPE_CHECKING:
    from gapless.transports.socketio.engine import Engine

logger = logging.getLogger("gapless.socketio")

UPGRADE_WITHIN = 10.0
"""Seconds that a client may take over the upgrade to WebSocket."""
HELD_BACK = 64
"""Messages of one client that may wait to be handled before its socket is not read."""

_PONG = "3"
_LOST = object()


class EngineSocket(PollingSocket):
    """python-engineio's connection, whose WebSocket was taken over.

    On another ASGI server, which lends no transport, the library serves the WebSocket.
    """

    server: Engine
    queue: OutgoingQueue
    last_ping: float | None
    connected: bool
    upgraded: bool

    def __init__(self, server: Engine, sid: str) -> None:
        super().__init__(server, sid)
        self._raw: LendingWebSocket | None = None
        self._inbox: deque[Any] | None = None
        self._working: asyncio.Task[None] | None = None

    # --- heartbeat (Engine.IO 4: the server pings, the client answers)

    def schedule_ping(self) -> None:
        """Ping after an interval, unless a ping is due or unanswered already."""
        if self.last_ping:
            self.last_ping = None
            self.server.pings.later(self)

    def ping(self, at: float) -> bool:
        """Send a ping, which counts from `at` in the loop's time; False where the connection has ended."""
        if self.closing or self.closed:
            return False
        self.last_ping = at
        self.queue.put_nowait(eio.Packet(eio.PING))
        return True

    async def expire(self) -> None:
        """The client did not answer a ping. Where it is gone, what was written to it would wait for ever."""
        raw = self._raw
        await self.close(wait=False, reason=self.server.reason.PING_TIMEOUT)
        if raw is not None:
            raw.abort()
        self.server.sockets.pop(self.sid, None)

    # --- WebSocket

    async def _upgrade_websocket(self, environ: dict[str, Any]) -> Any:
        raw = environ["asgi.scope"].get("extensions", {}).get(SCOPE_KEY)
        if raw is None:
            return await super()._upgrade_websocket(environ)
        receive, send = environ["asgi.receive"], environ["asgi.send"]
        await send({"type": "websocket.accept"})
        if self.connected and not await self._probe(receive, send):
            await send({"type": "websocket.close"})
            return ""
        self.connected = self.upgraded = True
        self._raw = raw
        self.queue.attach(raw)
        raw.take_over(self)
        return ""

    async def _probe(
        self, receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> bool:
        """Whether a polling connection goes on over this WebSocket (Engine.IO 4, upgrade)."""
        self.upgrading = True
        try:
            async with asyncio.timeout(UPGRADE_WITHIN):
                if (await receive()).get("text") != "2probe":
                    return False
                await send({"type": "websocket.send", "text": "3probe"})
                self.end_poll()
                return (await receive()).get("text") == "5" and not self.closed
        except TimeoutError:
            return False
        finally:
            self.upgrading = False

    def message(self, data: str | bytes) -> None:
        """A WebSocket message. Handled in order; the socket is not read while too many wait."""
        if self._working is not None:
            self._keep(data)
            return
        if data == _PONG:
            self.schedule_ping()
            return
        wait = self._charge(data)
        if wait or not self.server.at_once(self, data):
            self._keep(data, wait)

    def _keep(self, data: Any, wait: float = 0.0) -> None:
        """Handle it once those before it are, after some seconds."""
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append(data)
        if len(self._inbox) == HELD_BACK and self._raw is not None:
            self._raw.transport.pause_reading()
        if self._working is None:
            self._working = asyncio.create_task(self._work(self._inbox, wait), name=f"engineio-{self.sid}")

    def _charge(self, data: str | bytes) -> float:
        """Count a message; seconds until it may be handled. What comes meanwhile is held back."""
        return self.visit.spend(0, len(data)) if self.visit.limited else 0.0

    async def _work(self, inbox: deque[Any], wait: float) -> None:
        while inbox:
            held_back = len(inbox) >= HELD_BACK
            data = inbox.popleft()
            if held_back and len(inbox) < HELD_BACK and self._raw is not None and data is not _LOST:
                self._raw.transport.resume_reading()
            if wait:
                await asyncio.sleep(min(wait, PATIENCE))
            if data is _LOST or not await self._take(data):
                inbox.clear()
                await self.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_CLOSE)
                self.server.sockets.pop(self.sid, None)
            wait = self._charge(inbox[0]) if inbox and inbox[0] is not _LOST else 0.0
        self._working = self._inbox = None

    async def _take(self, data: str | bytes) -> bool:
        """Handle one message; False where the connection must end."""
        if len(data) > self.server.max_http_buffer_size:
            return False
        try:
            await self.receive(decode_engine_packet(data))
        except (ValueError, EngineIOError):  # no packet of Engine.IO, or the connection is closed
            return False
        except Exception:
            logger.exception("a message of connection %s failed", self.sid)
        return True

    def writer_paused(self) -> None:
        """See `WriterEvents`."""
        self.queue.set_full()

    def writer_resumed(self) -> None:
        """See `WriterEvents`."""
        self.queue.set_drained()

    def writer_lost(self) -> None:
        """See `WriterEvents`. What the client sent before is handled first."""
        self.queue.detach()
        self._raw = None
        self._keep(_LOST)

    # --- the end

    async def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        """End the connection; a client that is there is told so, unless `abort`. Waits for nobody."""
        if self.closing or self.closed:
            return
        await super().close(wait=False, abort=abort, reason=reason)
        if self.upgraded:
            self.queue.put_nowait(None)  # closes the WebSocket
