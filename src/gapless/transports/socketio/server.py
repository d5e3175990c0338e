"""python-socketio with connection state recovery as the stock JavaScript client speaks it.

A client that comes back shows `{pid, offset}` in its CONNECT payload. Where its session and
its position are still there, it gets its old session id and `pid` (so that
`socket.recovered` is true), what it missed, and then live events. Hooks into the library are
overridden methods only; nothing is patched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from socketio import packet as sio

from gapless.errors import GaplessError
from gapless.transports.lending import SCOPE_KEY, peer_of
from gapless.transports.socketio.engine import Engine
from gapless.transports.socketio.protocol import ProtocolManager, ProtocolServer
from gapless.transports.tls import peer_certificate

logger = logging.getLogger("gapless.socketio")

KEPT_ENVIRON = ("HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_ORIGIN", "QUERY_STRING")
"""What of the request that opened a connection is kept, in WSGI's names."""

CERTIFICATE = "gapless.certificate"
"""The verified client certificate of the connection, beside them."""
CONNECTION = "gapless.connection"
"""Address and port at its other end."""
VISIT = "gapless.visit"
"""What the connection counts as."""


class Lifecycle(Protocol):
    """What the door does at each step of a connection."""

    async def returning(self, eio_sid: str, auth: dict[str, Any], environ: Mapping[str, Any]) -> str | None:
        """The session id to recover for a client that shows a `pid`, or None.

        A half-open predecessor is ended here.
        """

    def settled(self, eio_sid: str) -> None:
        """The connection attempt that called `returning` has ended, well or not."""

    def connect_data(self, sid: str) -> dict[str, Any]:
        """What CONNECT tells the client besides its `sid`."""

    def connected(self, sid: str) -> None:
        """CONNECT was sent: events may follow."""


class Manager(ProtocolManager):
    """The library's client list, without the rooms that it keeps for each client: `RoomFanout` has ours."""

    def __init__(self) -> None:
        super().__init__()
        self.returning: dict[str, str] = {}

    async def pre_connect(self, eio_sid: str, namespace: str) -> Any:
        """Register a client; one that comes back gets its old session id."""
        sid = self.returning.pop(eio_sid, None)
        if sid is None:
            return await super().pre_connect(eio_sid, namespace)
        if self.sid_from_eio_sid(eio_sid, namespace) is not None:
            return None  # a second CONNECT on one connection
        self.basic_enter_room(sid, namespace, None, eio_sid=eio_sid)
        self.pending_connect.setdefault(namespace, []).append(sid)
        return sid

    def basic_enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        """Of the library's rooms only the one of all clients is kept."""
        if room is None:
            super().basic_enter_room(sid, namespace, None, eio_sid)

    def basic_disconnect(self, sid: str, namespace: str, **options: Any) -> None:
        """Forget a client. The library's way goes through every room of the namespace."""
        if self.eio_sid_from_sid(sid, namespace) is not None:
            super().basic_leave_room(sid, namespace, None)
        self.callbacks.pop(sid, None)
        for pending in (self.pending_connect, self.pending_disconnect):
            sids = pending.get(namespace)
            if sids is not None and sid in sids:
                sids.remove(sid)
                if not sids:
                    del pending[namespace]


class Server(ProtocolServer):
    """The Socket.IO server of the gateway.

    Args:
        namespace: the namespace whose clients the lifecycle serves.
        admissions: most clients that may be connecting at a time; more wait their turn, so
            that a storm of returning clients does not starve those that are connected.

    Attributes:
        lifecycle: what is told of connections.
        at_once: handles a packet of a session by a call, or says that it needs a task.
    """

    lifecycle: Lifecycle

    def __init__(self, *, namespace: str = "/", admissions: int = 200, **options: Any) -> None:
        super().__init__(client_manager=Manager(), **options)
        self._served = namespace
        self._admission = asyncio.Semaphore(admissions)
        self._connecting: set[str] = set()
        self.at_once: Callable[[str, str], bool] | None = None
        self._to_begin = 0
        self.eio.message_at_once = self._at_once

    def _engineio_server_class(self) -> type[Engine]:
        return Engine

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> None:
        # What authentication may want to see; the rest, the whole request with it, would stay in memory.
        kept = {name: environ[name] for name in KEPT_ENVIRON if name in environ}
        scope = environ["asgi.scope"]
        if scope.get("client"):
            kept["REMOTE_ADDR"] = scope["client"][0]
        raw = scope.get("extensions", {}).get(SCOPE_KEY)
        if raw is not None and (certificate := peer_certificate(raw.transport)) is not None:
            kept[CERTIFICATE] = certificate
        kept[CONNECTION] = peer_of(scope)
        kept[VISIT] = self.eio.sockets[eio_sid].visit
        await super()._handle_eio_connect(eio_sid, kept)

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        if (namespace or "/") != self._served:
            await super()._handle_connect(eio_sid, namespace, data)
            return
        if eio_sid in self._connecting:
            return  # the first CONNECT is answered; a second one at once says nothing new
        self._connecting.add(eio_sid)
        try:
            await self._admit(eio_sid, namespace, data)
        finally:
            self._connecting.discard(eio_sid)

    async def _admit(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        async with self._admission:
            if eio_sid not in self.environ:
                return  # it left while it waited
            try:
                if isinstance(data, dict) and isinstance(data.get("pid"), str):
                    sid = await self.lifecycle.returning(eio_sid, data, self.environ[eio_sid])
                    if sid is not None:
                        self.manager.returning[eio_sid] = sid
                await super()._handle_connect(eio_sid, namespace, data)
            except GaplessError as error:  # such as a log that takes no writes now
                # Left unanswered the stock client waits for ever, and after a refusal it never comes again:
                # only the end of its connection brings it back.
                logger.warning("client %s cannot connect now, and is dropped to come again: %s", eio_sid, error)
                sid = self.manager.sid_from_eio_sid(eio_sid, self._served)
                if sid is not None:
                    await self.manager.disconnect(sid, self._served, ignore_queue=True)
                await self.eio.drop(eio_sid, self.reason.TRANSPORT_ERROR)
            finally:
                self.manager.returning.pop(eio_sid, None)
                self.lifecycle.settled(eio_sid)

    def _at_once(self, eio_sid: str, data: str) -> bool:
        if self.at_once is None or self._to_begin or eio_sid in self._binary_packet or self._served != "/":
            return False
        sid = self.manager.sid_from_eio_sid(eio_sid, self._served)
        return sid is not None and self.at_once(sid, data)

    async def _handle_event(self, eio_sid: str, namespace: str, number: int | None, data: list[Any]) -> None:
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace or "/")
        if self.manager.is_connected(sid, namespace or "/"):  # else the library does nothing
            self._to_begin += 1  # it makes a task: until that runs, no later packet may take the short way
        await super()._handle_event(eio_sid, namespace, number, data)

    async def _handle_event_internal(self, *args: Any) -> None:
        self._to_begin -= 1
        await super()._handle_event_internal(*args)

    async def _send_packet(self, eio_sid: str, pkt: Any) -> None:
        served = pkt.packet_type == sio.CONNECT and (pkt.namespace or "/") == self._served
        if served:
            pkt.data.update(self.lifecycle.connect_data(pkt.data["sid"]))
        if pkt.packet_type == sio.CONNECT_ERROR and isinstance(pkt.data, str):
            pkt.data = {"message": pkt.data}  # the JavaScript client reads `.message`
        await super()._send_packet(eio_sid, pkt)
        if served:
            # After this turn: the library notes the client as connected right after this call.
            asyncio.get_running_loop().call_soon(self.lifecycle.connected, pkt.data["sid"])

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        # The stock polling client posts an Engine.IO CLOSE after a mere network error; only
        # Socket.IO's own DISCONNECT packet says that the client means it.
        if reason == self.reason.CLIENT_DISCONNECT:
            reason = self.reason.TRANSPORT_CLOSE
        await super()._handle_eio_disconnect(eio_sid, reason)
