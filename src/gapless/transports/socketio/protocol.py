"""Socket.IO 5 as its document has it, where python-socketio differs (see `docs/socketio-conformance.md`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import socketio
from socketio import packet as sio

from gapless.errors import TooComplex
from gapless.transports.socketio.packets import Packet, decode_socketio_packet

logger = logging.getLogger("gapless.socketio")

APART = 0.01
"""Seconds between CONNECT and what the application emitted before it."""

CONNECT_WITHIN = 45.0
"""Seconds after which a connection that is in no namespace is closed, as Node's server does."""


class ProtocolManager(socketio.AsyncManager):  # type: ignore[misc]
    """The library's client list, where nothing that is emitted precedes CONNECT."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, list[Callable[[], Awaitable[None]]]] = {}

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        """See the library. A session id names its client, without a room of its own."""
        clients = self.rooms.get(namespace, {}).get(None, {})
        if isinstance(room, str) and room in clients:
            yield room, clients[room]
        else:
            yield from super().get_participants(namespace, room)

    async def emit(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: Any = None,
        skip_sid: Any = None,
        callback: Any = None,
        to: Any = None,
        **options: Any,
    ) -> None:
        """See the library. A client that is connecting gets the event after its CONNECT, in order."""
        room, skipped = to or room, skip_sid if isinstance(skip_sid, list) else [skip_sid]
        pending = self.pending_connect.get(namespace)
        if pending:
            waiting = [sid for sid, _ in self.get_participants(namespace, room) if sid in pending]
            for sid in waiting:
                if sid not in skipped:
                    emit = partial(super().emit, event, data, namespace, room=sid, callback=callback)
                    self._held.setdefault(sid, []).append(emit)
            skipped = skipped + waiting
        await super().emit(event, data, namespace, room=room, skip_sid=skipped, callback=callback, **options)

    async def connect(self, sid: str, namespace: str) -> Any:
        """CONNECT was sent: what was emitted meanwhile follows, in a read of its own.

        Where both come in one read, a client that begins to listen for events once it is told of its
        CONNECT, as the official test suite does, misses what follows.
        """
        if self._held.get(sid):
            await asyncio.sleep(APART)
        while self._held.get(sid):
            await self._held[sid].pop(0)()
        self._held.pop(sid, None)
        return await super().connect(sid, namespace)

    async def disconnect(self, sid: str, namespace: str, **options: Any) -> None:
        """See the library."""
        self._held.pop(sid, None)
        await super().disconnect(sid, namespace, **options)


class ProtocolServer(socketio.AsyncServer):  # type: ignore[misc]
    """The library's server, strict about what clients send.

    Args:
        connect_within: seconds after which a connection that is in no namespace is closed.

    Attributes:
        too_complex: events refused unread; see `Packet.refused`.
    """

    def __init__(self, *, connect_within: float = CONNECT_WITHIN, **options: Any) -> None:
        super().__init__(serializer=Packet, **options)
        self.too_complex = 0
        self._connect_within = connect_within
        self._greetings: dict[str, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()

    # --- the connection below

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> None:
        await super()._handle_eio_connect(eio_sid, environ)
        self._expect_connect(eio_sid)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        self._stop_expecting(eio_sid)
        self._binary_packet.pop(eio_sid, None)
        await super()._handle_eio_disconnect(eio_sid, reason)

    def _expect_connect(self, eio_sid: str) -> None:
        loop = asyncio.get_running_loop()
        self._greetings[eio_sid] = loop.call_later(self._connect_within, self._end_unconnected, eio_sid)

    def _stop_expecting(self, eio_sid: str) -> None:
        greeting = self._greetings.pop(eio_sid, None)
        if greeting is not None:
            greeting.cancel()

    def _end_unconnected(self, eio_sid: str) -> None:
        del self._greetings[eio_sid]
        ending = asyncio.create_task(self._end(eio_sid), name=f"socketio-unconnected-{eio_sid}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end(self, eio_sid: str) -> None:
        await self.eio.drop(eio_sid, self.reason.TRANSPORT_ERROR)

    # --- packets of clients

    async def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> None:
        """A message of Engine.IO: a packet or an attachment. What is neither ends the connection.

        Socket.IO 5, exchange protocol: a connection that does not begin with CONNECT, or sends
        an event without a payload, must be closed.
        """
        try:
            packet = self._read(eio_sid, data)
        except ValueError as error:
            logger.debug("connection %s sent no packet of Socket.IO, and is closed: %s", eio_sid, error)
            await self._end(eio_sid)
            return
        if packet is None:
            return
        namespace = packet.namespace or "/"
        if packet.refused is not None:
            await self._refuse_event(eio_sid, namespace, packet.id, packet.refused)
            return
        match packet.packet_type:
            case sio.CONNECT:
                await self._connect(eio_sid, namespace, packet.data)
            case sio.DISCONNECT:
                await self._handle_disconnect(eio_sid, namespace, self.reason.CLIENT_DISCONNECT)
            case sio.EVENT | sio.BINARY_EVENT:
                await self._handle_event(eio_sid, namespace, packet.id, packet.data)
            case _:
                await self._handle_ack(eio_sid, namespace, packet.id, packet.data)

    def _read(self, eio_sid: str, data: str | bytes) -> Packet | None:
        """A whole packet; None where attachments are still to come.

        Raises:
            ValueError: it is none, or one for a namespace that the client is not in.
        """
        packet: Packet | None = self._binary_packet.get(eio_sid)
        if packet is not None:
            if not packet.add_attachment(data):
                return None
            del self._binary_packet[eio_sid]
            return packet
        packet = decode_socketio_packet(data)
        if packet.packet_type != sio.CONNECT and not self._is_in(eio_sid, packet.namespace or "/"):
            raise ValueError("a packet before CONNECT")
        if packet.attachment_count:
            self._binary_packet[eio_sid] = packet
            return None
        return packet

    def _is_in(self, eio_sid: str, namespace: str) -> bool:
        return self.manager.sid_from_eio_sid(eio_sid, namespace) is not None

    def _serves(self, namespace: str) -> bool:
        served = (*self.handlers, *self.namespace_handlers)
        return namespace in served or self.namespaces == "*" or namespace in self.namespaces

    async def _connect(self, eio_sid: str, namespace: str, data: Any) -> None:
        """CONNECT (Socket.IO 5, connection to a namespace)."""
        self._stop_expecting(eio_sid)
        if not self._serves(namespace):
            await self._refuse(eio_sid, namespace, "Invalid namespace")
        elif self._is_in(eio_sid, namespace):
            sid = self.manager.sid_from_eio_sid(eio_sid, namespace)
            if not self.manager.is_pre_connected(sid, namespace):  # else the first CONNECT will be answered
                await self._refuse(eio_sid, namespace, "Already connected")
        else:
            try:
                await self._handle_connect(eio_sid, namespace, data)
            finally:
                if eio_sid not in self.environ:
                    await self._forget(eio_sid, namespace)
        in_none = not any(self._is_in(eio_sid, namespace) for namespace in self.manager.get_namespaces())
        if in_none and eio_sid in self.environ and eio_sid not in self._greetings:
            self._expect_connect(eio_sid)

    async def _forget(self, eio_sid: str, namespace: str) -> None:
        """The connection ended while its client was connecting, when it could not be told yet."""
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace)
        if self.manager.is_connected(sid, namespace):
            await self._handle_disconnect(eio_sid, namespace, self.reason.TRANSPORT_CLOSE)
        elif sid is not None:
            await self.manager.disconnect(sid, namespace)

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        if eio_sid not in self.environ:
            return  # it left before its turn
        await super()._handle_connect(eio_sid, namespace, data)

    async def _refuse_event(self, eio_sid: str, namespace: str, number: int | None, error: TooComplex) -> None:
        """Acknowledge an event with an error, where its client wants to know; the connection goes on."""
        self.too_complex += 1
        logger.debug("an event of connection %s was refused: %s", eio_sid, error)
        if number is not None:
            answer = [{"ok": False, "error": error.to_wire()}]
            await self._send_packet(eio_sid, Packet(sio.ACK, data=answer, namespace=namespace, id=number))

    async def _refuse(self, eio_sid: str, namespace: str, message: str) -> None:
        refusal = Packet(sio.CONNECT_ERROR, data={"message": message}, namespace=namespace)
        await self._send_packet(eio_sid, refusal)

    def _get_event_handler(self, event: str, namespace: str, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """See the library. An event that a client calls `*` is one like any other."""
        if event == "*":
            handler = self.handlers.get(namespace, {}).get("*")
            return (handler, (event, *args)) if handler is not None else (None, args)
        found: tuple[Any, tuple[Any, ...]] = super()._get_event_handler(event, namespace, args)
        return found
