"""python-engineio with connections, a queue and a heartbeat of ours."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from engineio import packet as eio
from msgspec.json import encode

from gapless.errors import RateLimited
from gapless.limits import FREE, Visit
from gapless.transports.lending import SCOPE_KEY
from gapless.transports.socketio.connection import EngineSocket
from gapless.transports.socketio.outgoing import OutgoingQueue
from gapless.transports.socketio.polling import PollingServer, too_many
from gapless.transports.socketio.secret import secret_text


def visit_of(scope: dict[str, Any]) -> Visit:
    """What a new session counts as, on the connection of its first request."""
    extensions = scope.get("extensions", {})
    visit: Visit | None = extensions.get("gapless.visit")  # behind a proxy
    if visit is None:
        raw = extensions.get(SCOPE_KEY)
        visit = FREE if raw is None else raw.visit
    return visit.of()


class Pings:
    """Pings every connection at one interval, and notes who does not answer, with one timer for all.

    Args:
        interval, timeout: seconds.
    """

    def __init__(self, *, interval: float, timeout: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._due: deque[tuple[float, EngineSocket]] = deque()
        self._unanswered: deque[tuple[float, EngineSocket, float]] = deque()
        self._timer: asyncio.Handle | None = None
        self._wakes = 0.0  # when the timer ends; uvloop's handle does not say where that is already past
        self._ending: set[asyncio.Task[None]] = set()

    def later(self, socket: EngineSocket) -> None:
        """Ping it after the interval."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._interval
        self._due.append((due, socket))
        if self._timer is None or due < self._wakes:  # else it is set for an earlier one
            if self._timer is not None:
                self._timer.cancel()
            self._set_timer(due)

    def stop(self) -> None:
        """Ping nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due.clear()
        self._unanswered.clear()

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._due and self._due[0][0] <= now:
            due, socket = self._due.popleft()
            # A timer's usual lateness is not the client's; but it has its time where the loop was held up.
            sent = due if now - due < self._timeout / 10 else now
            if socket.ping(sent):
                self._unanswered.append((sent + self._timeout, socket, sent))
        while self._unanswered and self._unanswered[0][0] <= now:
            _, socket, sent = self._unanswered.popleft()
            if socket.last_ping == sent and not socket.closed:
                ending = asyncio.create_task(socket.expire(), name=f"engineio-expire-{socket.sid}")
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
        heads = [queue[0][0] for queue in (self._due, self._unanswered) if queue]
        self._timer = None
        if heads:
            self._set_timer(min(heads))

    def _set_timer(self, when: float) -> None:
        self._wakes = when
        self._timer = asyncio.get_running_loop().call_at(when, self._run)


class Engine(PollingServer):
    """One Engine.IO 4 server.

    Args:
        max_waiting_messages, max_waiting_bytes: see `OutgoingQueue`.

    Attributes:
        message_at_once: handles one text message of a session by a call, or says that it cannot.
    """

    message_at_once: Callable[[str, str], bool] | None = None
    sockets: dict[str, EngineSocket]

    def __init__(
        self, *args: Any, max_waiting_messages: int = 256, max_waiting_bytes: int = 262_144, **options: Any
    ) -> None:
        super().__init__(*args, **options, monitor_clients=False)  # `Pings` does
        self._max_waiting_messages = max_waiting_messages
        self._max_waiting_bytes = max_waiting_bytes
        self.pings = Pings(interval=self.ping_interval, timeout=self.ping_timeout)

    def at_once(self, socket: EngineSocket, data: str | bytes) -> bool:
        """Handle a WebSocket message by a call. False where it needs a task; then nothing happened."""
        return (
            self.message_at_once is not None
            and isinstance(data, str)
            and data[:1] == "4"
            and len(data) <= self.max_http_buffer_size
            and self.message_at_once(socket.sid, data[1:])
        )

    def create_queue(self, *args: Any, **options: Any) -> OutgoingQueue:
        """The queue of a new connection."""
        return OutgoingQueue(max_messages=self._max_waiting_messages, max_bytes=self._max_waiting_bytes)

    def generate_id(self) -> str:
        """The id of a connection, or of a Socket.IO session: it is a secret, too."""
        return secret_text()

    async def _handle_connect(self, environ: dict[str, Any], transport: str, jsonp_index: int | None = None) -> Any:
        """A new connection (Engine.IO 4, handshake)."""
        sid = self.generate_id()
        visit = visit_of(environ["asgi.scope"])
        if transport == "polling":  # the session goes on when this request's connection has ended
            try:
                visit.enter()
                visit.admit()
            except RateLimited as error:
                visit.leave()
                return too_many(error)
        socket = self.sockets[sid] = EngineSocket(self, sid)
        socket.visit = visit
        handshake = {
            "sid": sid,
            "upgrades": self._upgrades(sid, transport),
            "pingInterval": round(self.ping_interval * 1000),
            "pingTimeout": round(self.ping_timeout * 1000),
            "maxPayload": self.max_http_buffer_size,
        }
        socket.queue.put_nowait(eio.Packet(eio.OPEN, encode(handshake).decode()))
        answer = await self._trigger_event("connect", sid, environ, run_async=False)
        if answer is not None and answer is not True:
            del self.sockets[sid]
            visit.leave()
            return self._unauthorized(answer or None)
        socket.schedule_ping()
        if transport == "websocket":
            return await socket.handle_get_request(environ)
        socket.connected = True
        return self._ok(await socket.poll())

    async def drop(self, eio_sid: str, reason: str) -> None:
        """End a connection without waiting for its peer, which may be gone."""
        socket = self.sockets.pop(eio_sid, None)
        if socket is not None:
            await socket.close(wait=False, abort=True, reason=reason)
            socket.queue.abort()
            socket.queue.put_nowait(None)  # ends a poll

    async def end(self, eio_sid: str) -> None:
        """End a connection, once what was written is sent."""
        socket = self.sockets.get(eio_sid)
        if socket is not None:
            await socket.close(wait=False, reason=self.reason.SERVER_DISCONNECT)
            socket.queue.put_nowait(None)  # ends a poll

    async def close_all(self) -> None:
        """Tell every client that the server goes, and end its connection."""
        self.pings.stop()
        for eio_sid in list(self.sockets):
            await self.end(eio_sid)
