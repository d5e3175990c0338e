"""The Socket.IO door: clients subscribe to rooms, publish, and receive events."""

from __future__ import annotations

import asyncio
import logging
import time as _time
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Any

import msgspec
import socketio

from gapless.auth import Credentials, Gate, Identity, review
from gapless.delivery import Cursor
from gapless.errors import (
    GaplessError,
    InvalidPosition,
    InvalidRequest,
    LogUnavailable,
    Overloaded,
    RateLimited,
    Unauthorized,
)
from gapless.event import Position, format_time
from gapless.eventlog import EVERYTHING, EventLog
from gapless.hub import Hub
from gapless.ingress import Ingress
from gapless.presence import Presence
from gapless.topicmap import Alias
from gapless.topicmap.row import as_text, fill
from gapless.transports.broadcast import Broadcast
from gapless.transports.socketio.access import Access
from gapless.transports.socketio.client import REVOKED, Client, Stats, encode_event
from gapless.transports.socketio.fanout import RoomFanout
from gapless.transports.socketio.publishing import PUBLISH, Publishing, refusal
from gapless.transports.socketio.server import CERTIFICATE, CONNECTION, VISIT, Server
from gapless.transports.socketio.sessions import SessionStore, StoredSession, new_pid, subscriptions_of

logger = logging.getLogger("gapless.socketio")

PING = "gapless:ping"
"""Request by which a client learns that its connection is alive, and how long an answer takes."""

TEND_INTERVAL = 3600.0
"""Seconds between two looks at what sessions may be forgotten."""


class SocketIoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the Socket.IO door.

    Attributes:
        path: where it is on the HTTP port.
        ping_interval, ping_timeout: seconds between server pings, and until a silent client is gone.
        max_message_bytes: largest message from a client, in bytes.
        max_rooms: most rooms one client may subscribe to.
        recovery_seconds: how long a disconnected client's rooms are remembered, in seconds.
        max_waiting_messages, max_waiting_bytes: what may wait for one client, in packets (polling) and
            bytes; past either it gets no live events, and is fed from the log once it has taken these.
        admissions: clients connecting at a time; others wait.
    """

    path: str = "/socket.io"
    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    max_message_bytes: int = 1_000_000
    max_rooms: int = 1000
    recovery_seconds: float = 7 * 86400.0
    max_waiting_messages: int = 256
    max_waiting_bytes: int = 262_144
    admissions: int = 200


class SocketIoDoor:
    """The Socket.IO transport.

    Delivery: each event once and in order to a client, however many of its rooms match; what
    it missed is read from the log. See `gapless.transports.socketio.server` for recovery.
    """

    def __init__(
        self,
        *,
        ingress: Ingress,
        hub: Hub,
        log: EventLog,
        gate: Gate,
        presence: Presence | None = None,
        options: SocketIoOptions | None = None,
        broadcast: Broadcast | None = None,
        clock: Callable[[], float] = _time.time,
    ) -> None:
        self.options = options or SocketIoOptions()
        self._ingress = ingress
        self._hub = hub
        self._map = ingress.topic_map
        self._gate = gate
        self._clock = clock
        self._sessions = SessionStore(log)
        self._clients: dict[str, Client] = {}
        self._presence = presence = presence or Presence(gate=gate)
        self._fanout = RoomFanout(clock, presence, broadcast)
        self._arrivals: dict[str, _Arrival] = {}  # clients that come back, by Engine.IO session, while connecting
        self._resuming: dict[str, asyncio.Event] = {}  # their pids; set once they are in
        self._tending: asyncio.Task[None] | None = None
        self.stats = Stats()
        self._aliases = {alias.event: alias for alias in self._map.aliases}
        self.server = self._make_server()
        self._access = Access(gate, server=self.server, fanout=self._fanout, save=self._save)
        self._publishing = Publishing(ingress=ingress, gate=gate, access=self._access, clients=self._clients)
        self._serve()
        self.app = socketio.ASGIApp(self.server, socketio_path=self.options.path)

    def _make_server(self) -> Server:
        options = self.options
        server = Server(
            admissions=options.admissions,
            async_mode="asgi",
            cors_allowed_origins=[],  # the front before all doors has seen to that
            ping_interval=options.ping_interval,
            ping_timeout=options.ping_timeout,
            max_http_buffer_size=options.max_message_bytes,
            max_waiting_messages=options.max_waiting_messages,
            max_waiting_bytes=options.max_waiting_bytes,
            logger=_quiet("gapless.socketio.protocol"),
            engineio_logger=_quiet("gapless.socketio.engine"),
        )
        server.lifecycle = self
        return server

    def _serve(self) -> None:
        server = self.server
        server.at_once = self._publishing.at_once
        server.on("connect", self._on_connect)
        server.on("disconnect", self._on_disconnect)
        server.on("subscribe", self._answering(self._on_subscribe))
        server.on("unsubscribe", self._answering(self._on_unsubscribe))
        server.on(PUBLISH, self._answering(self._publishing.request))
        server.on("presence", self._answering(self._on_presence))
        server.on("authenticate", self._answering(self._on_authenticate))
        server.on(PING, self._answering(self._on_ping))
        server.on("*", self._on_unknown)
        for event in self._aliases:
            server.on(event, self._alias_handler(self._aliases[event]))

    async def start(self) -> None:
        """Begin: forget sessions that are too old, then take part in the fan-out."""
        await self.tend_sessions()
        self._tending = asyncio.create_task(self._tend_regularly(), name="socketio-sessions")
        self._hub.add(self._fanout)
        self._hub.after_each_batch(self._fanout.flush)

    async def stop(self) -> None:
        """End every connection; clients come back elsewhere, or after the restart."""
        self._hub.remove(self._fanout)
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait([self._tending])
        await self._access.stop()
        await self.server.eio.close_all()
        await self.server.shutdown()

    async def tend_sessions(self) -> None:
        """Note of those connected that they are; forget sessions that nobody came back for.

        Raises:
            LogUnavailable: the log is closed.
        """
        await self._sessions.save_all((client.pid, self._session_of(client)) for client in self._clients.values())
        before = int((self._clock() - self.options.recovery_seconds) * 1000)
        forgotten = await self._sessions.purge(before=before)
        if forgotten:
            logger.info("forgot %d sessions that nobody came back for", forgotten)

    async def _tend_regularly(self) -> None:
        while True:
            await asyncio.sleep(TEND_INTERVAL)
            try:
                await self.tend_sessions()
            except Exception:
                logger.exception("old sessions could not be removed; trying again")

    @property
    def connections(self) -> int:
        """Clients connected now."""
        return len(self._clients)

    @property
    def behind(self) -> int:
        """Connected clients that are being fed from the log now."""
        return sum(not client.live for client in self._clients.values())

    def counts(self) -> dict[str, int]:
        """What the door counts, for `/metrics`."""
        return {
            "connections": self.connections,
            "behind": self.behind,
            "too_complex": self.server.too_complex,
            **msgspec.structs.asdict(self.stats),
        }

    # --- the life of a connection (see server.Lifecycle)

    async def returning(self, eio_sid: str, auth: dict[str, Any], environ: Mapping[str, Any]) -> str | None:
        """Find the session of a client that comes back; see `Lifecycle.returning`."""
        pid: str = auth["pid"]
        try:
            identity = await self._gate.authenticate(_credentials(auth, environ))
        except Unauthorized:
            return None  # refused in `_on_connect`, and nobody's session was touched
        while (others := self._resuming.get(pid)) is not None:
            await others.wait()  # one at a time: the last one to come keeps the session
        self._resuming[pid] = asyncio.Event()
        arrival = self._arrivals[eio_sid] = _Arrival(pid, identity)
        cursor = self._cursor_from(auth.get("offset"))
        arrival.offset = None if cursor is None else cursor.position
        session = await self._sessions.load(pid)
        if session is not None and (session.owner or "") != identity.owner:
            logger.warning("a client showed the pid of another user's session %s", session.sid)
            session = None
        if session is not None and cursor is None:  # it never got an event: from its connect on
            cursor = self._hub.cursor_at(Position(self._hub.epoch, session.start))
        if session is None or cursor is None or not cursor.complete:
            self.stats.not_recovered += 1
            return None
        predecessor = self._clients.get(session.sid)
        if predecessor is not None and predecessor.pid == pid:
            await self.server.eio.drop(predecessor.eio_sid, self.server.reason.TRANSPORT_ERROR)
        arrival.session, arrival.cursor = session, cursor
        return session.sid

    def settled(self, eio_sid: str) -> None:
        """See `Lifecycle.settled`."""
        arrival = self._arrivals.pop(eio_sid, None)
        if arrival is not None:
            self._resuming.pop(arrival.pid).set()

    def _cursor_from(self, offset: object) -> Cursor | None:
        if not isinstance(offset, str):
            return None
        try:
            return self._hub.cursor_at(Position.parse(offset))
        except InvalidPosition:
            unusable = Cursor(self._hub.head)
            unusable.complete = False
            return unusable

    def connect_data(self, sid: str) -> dict[str, Any]:
        """The `pid` under which the client may come back."""
        client = self._clients.get(sid)
        return {"pid": client.pid} if client is not None else {}

    def connected(self, sid: str) -> None:
        """CONNECT was sent: first what was missed, then live events."""
        client = self._clients.get(sid)
        if client is not None and not client.started:
            client.started = True
            if client.ended is not None:
                self._access.end(client)
                return
            if client.lost:
                client.tell_incomplete(client.start)
            if client.revoked:
                client.queue.send(encode_event(REVOKED, {"rooms": client.revoked}))
                client.revoked = []
            if client.undecided:
                client.undecided = False
                self._access.review(client)
            client.feed()

    async def _on_connect(self, sid: str, environ: Mapping[str, Any], auth: object) -> None:
        eio_sid: str = self.server.manager.eio_sid_from_sid(sid, "/")
        arrival = self._arrivals.get(eio_sid)
        session = None if arrival is None else arrival.session
        try:
            identity = (
                await self._gate.authenticate(_credentials(auth, environ)) if arrival is None else arrival.identity
            )
            environ[VISIT].stay(identity.user_id)
        except (Unauthorized, RateLimited) as error:
            raise self._refusal(error) from error
        client = Client(
            sid=sid,
            eio_sid=eio_sid,
            pid=new_pid() if arrival is None or session is None else arrival.pid,
            access=self._access,
            queue=self.server.eio.sockets[eio_sid].queue,
            hub=self._hub,
            position=self._hub.head if arrival is None or arrival.cursor is None else arrival.cursor.position,
            stats=self.stats,
            changed=self._fanout.changed,
            visit=environ[VISIT],
        )
        client.lost = arrival is not None and session is None
        client.lease = self._gate.hold(identity, client)
        try:
            if arrival is not None and session is not None:
                self.stats.recovered += 1
                await self._restore(client, session, arrival.offset)
            if client.ended is not None:
                raise self._refusal(client.ended)
        except BaseException:
            client.lease.release()
            raise
        self._clients[sid] = client
        self._presence.arrived(client.identity)
        client.queue.add_reader(client)
        self._fanout.join(client, client.subscriptions.since)
        try:
            if session is None or self._has_changed(client, session):
                await self._save(client)
        except BaseException:
            self._forget(client)
            raise

    def _refusal(self, error: GaplessError) -> Exception:
        self.stats.refused += 1
        refusal: Exception = socketio.exceptions.ConnectionRefusedError(error.message, error.to_wire())
        return refusal

    async def _restore(self, client: Client, session: StoredSession, offset: int | None) -> None:
        client.start = session.start
        client.subscriptions = subscriptions_of(session)
        last = None
        if offset and session.windows:
            page = await self._hub.page(EVERYTHING, offset - 1, limit=1)
            last = next((record.event for record in page.records if record.offset == offset), None)
        client.position = client.subscriptions.resume(session.start, offset, last)
        await self._gate.prepare(client.identity, rooms=session.since)
        denied, undecided = review(self._gate.check_subscribe_room, client.identity, session.since)
        client.revoked = denied + undecided
        client.subscriptions.unsubscribe(client.revoked, position=client.position)
        client.visit.hold(len(client.subscriptions.since), force=True)  # granted when they were made

    async def _on_disconnect(self, sid: str, reason: str) -> None:
        client = self._clients.get(sid)
        if client is None:
            return
        self._forget(client)
        try:
            if reason == self.server.reason.CLIENT_DISCONNECT:
                await self._sessions.forget(client.pid)
            else:
                await self._save(client)
        except LogUnavailable as error:  # raised further, it would keep the library from forgetting the client
            logger.warning("session %s stays as it was stored last: %s", sid, error)

    def _forget(self, client: Client) -> None:
        self._clients.pop(client.sid, None)
        client.lease.release()
        client.close()
        self._fanout.leave(client, tuple(client.subscriptions.since))
        self._presence.unwatch(client)
        self._presence.departed(client.identity)
        client.queue.remove_reader(client)

    async def _save(self, client: Client) -> None:
        await self._sessions.save_all([(client.pid, self._session_of(client))])

    def _has_changed(self, client: Client, stored: StoredSession) -> bool:
        session = self._session_of(client)
        session.seen = stored.seen  # noted when the client goes, and while it stays
        return session != stored

    def _session_of(self, client: Client) -> StoredSession:
        subscriptions = client.subscriptions
        return StoredSession(
            sid=client.sid,
            owner=client.identity.owner,
            epoch=self._hub.epoch,
            start=client.start,
            since=subscriptions.since,
            windows=subscriptions.windows,
            seen=int(self._clock() * 1000),
        )

    # --- what clients ask for

    async def _subscribe(self, client: Client, rooms: list[str], after: object = None) -> dict[str, Any]:
        for room in rooms:
            self._map.check_room(room)
        start, complete = await self._access.decided(client, lambda: self._hear(client, rooms, after), rooms=rooms)
        await self._save(client)
        if not client.live:
            asyncio.get_running_loop().call_soon(client.feed)  # after the answer
        return {"ok": True, "rooms": rooms, "position": self._hub.position(start), "complete": complete}

    def _hear(self, client: Client, rooms: list[str], after: object) -> tuple[int, bool]:
        subscriptions = client.subscriptions
        for room in rooms:
            self._gate.check_subscribe_room(client.identity, room)
        wanted = subscriptions.since.keys() | set(rooms)
        _check_count(wanted, self.options.max_rooms)
        start, complete = self._start_of(after)
        client.visit.hold(len(wanted))
        position = client.where
        reached = subscriptions.subscribe(rooms, start=start, position=position)
        if reached < position:
            client.rewind(reached)
        self._fanout.join(client, rooms)
        return start, complete

    def _start_of(self, after: object) -> tuple[int, bool]:
        if after is None:
            return self._hub.head, True
        if not isinstance(after, str):
            raise InvalidPosition("after is not a string", hint="use a position exactly as the server gave it")
        position = Position.parse(after)
        cursor = self._hub.cursor_at(position)
        if cursor.complete or position.epoch != self._hub.epoch:
            return cursor.position, cursor.complete
        return self._ingress.log.oldest - 1, False

    async def _on_subscribe(self, client: Client, document: dict[str, Any]) -> dict[str, Any]:
        return await self._subscribe(client, _rooms(document), document.get("after"))

    async def _on_unsubscribe(self, client: Client, document: dict[str, Any]) -> dict[str, Any]:
        rooms = _rooms(document)
        await self._unsubscribe(client, rooms)
        return {"ok": True, "rooms": rooms}

    async def _unsubscribe(self, client: Client, rooms: list[str]) -> None:
        await self._access.decided(client, lambda: self._access.leave(client, rooms))
        await self._save(client)

    async def _on_presence(self, client: Client, document: dict[str, Any]) -> dict[str, Any]:
        """Who is in rooms: a snapshot of each, and what changes from then on, unless `live` is false."""
        rooms = _rooms(document)
        live = document.get("live", True)
        if not isinstance(live, bool):
            raise InvalidRequest("live is not true or false", hint="leave it out to be told of changes")
        for room in rooms:
            self._map.check_room(room)
        return await self._access.decided(client, lambda: self._who(client, rooms, live=live), rooms=rooms)

    def _who(self, client: Client, rooms: list[str], *, live: bool) -> dict[str, Any]:
        presence = self._presence
        for room in rooms:
            self._gate.check_subscribe_room(client.identity, room)
        if live:
            _check_count(presence.watched_by(client) | set(rooms), self.options.max_rooms)
            presence.watch(client, rooms)
        else:
            presence.unwatch(client, rooms)
        return {"ok": True, "rooms": {room: msgspec.to_builtins(presence.snapshot(room)) for room in rooms}}

    async def _on_authenticate(self, client: Client, document: dict[str, Any]) -> dict[str, Any]:
        """A fresh token on a live connection: its rooms and its place stay."""
        if not isinstance(document.get("token"), str):
            raise InvalidRequest("the token is missing", hint='send {"token": "…"}')
        environ = self.server.environ.get(client.eio_sid, {})
        identity = await self._gate.authenticate(_credentials(document, environ))
        self._access.check(client)
        client.lease.renew(identity)
        self._access.review(client)
        expires = None if identity.expires is None else format_time(int(identity.expires * 1000))
        return {"ok": True, "expires": expires}

    async def _on_ping(self, client: Client, document: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True}

    def _alias_handler(self, alias: Alias) -> Callable[..., Awaitable[dict[str, Any]]]:
        async def run(client: Client, document: dict[str, Any]) -> dict[str, Any]:
            room = _alias_room(alias, document)
            if alias.action == "subscribe":
                answer = await self._subscribe(client, [room], document.get("after"))
            else:
                await self._unsubscribe(client, [room])
                answer = {"ok": True, "rooms": [room]}
            if alias.reply is not None:
                client.queue.send(encode_event(alias.reply, document))
            return answer

        return self._answering(run)

    def _answering(
        self, handler: Callable[[Client, dict[str, Any]], Awaitable[dict[str, Any]]]
    ) -> Callable[..., Awaitable[dict[str, Any]]]:
        async def answer(sid: str, document: object = None, *_: object) -> dict[str, Any]:
            client = self._clients.get(sid)
            try:
                if client is None:
                    raise InvalidRequest("the connection is closing", hint="connect again")
                self._access.check(client)
                client.visit.check()
                client.visit.spend(1)
                if not isinstance(document, dict):
                    raise InvalidRequest("the argument is not an object", hint='send {"rooms": ["org:global"]}')
                return await handler(client, document)
            except Exception as error:
                return refusal(error, sid)

        return answer

    async def _on_unknown(self, event: str, sid: str, *_: object) -> dict[str, Any]:
        error = InvalidRequest(
            f"there is no request {event[:80]!r}",
            hint="known: subscribe, unsubscribe, publish, presence, authenticate and the map's aliases",
        )
        return {"ok": False, "error": error.to_wire()}


def _quiet(name: str) -> logging.Logger:
    """A logger for the library, which would write payloads and pids at its info level, and a warning for whatever a
    client acknowledges that was never sent: anybody could fill the disk with those."""
    library = logging.getLogger(name)
    library.setLevel(max(library.level, logging.ERROR))
    return library


class _Arrival:
    """A client that comes back, while it connects; without a session it could not be recovered."""

    __slots__ = ("cursor", "identity", "offset", "pid", "session")

    def __init__(self, pid: str, identity: Identity) -> None:
        self.pid = pid
        self.identity = identity
        self.session: StoredSession | None = None
        self.cursor: Cursor | None = None
        self.offset: int | None = None


def _credentials(auth: object, environ: Mapping[str, Any]) -> Credentials:
    token = user = None
    if isinstance(auth, dict):
        token, user = auth.get("token"), auth.get("userId")
    header = str(environ.get("HTTP_AUTHORIZATION", ""))
    if token is None and header.lower().startswith("bearer "):
        token = header[7:]
    return Credentials(
        token=token if isinstance(token, str) else None,
        username=user if isinstance(user, str) else None,
        certificate=environ.get(CERTIFICATE),
        address=environ.get("REMOTE_ADDR"),
        door="socketio",
        connection=environ.get(CONNECTION),
    )


def _rooms(document: dict[str, Any]) -> list[str]:
    rooms = document.get("rooms", document.get("room"))
    if isinstance(rooms, str):
        rooms = [rooms]
    if not isinstance(rooms, list) or not rooms or not all(isinstance(room, str) for room in rooms):
        raise InvalidRequest("rooms is not a list of room names", hint='send {"rooms": ["lead:123"]}')
    return list(dict.fromkeys(rooms))


def _check_count(rooms: Set[str], limit: int) -> None:
    if len(rooms) > limit:
        raise Overloaded(f"more than {limit} rooms on one connection", hint="unsubscribe from some", limit=limit)


def _alias_room(alias: Alias, document: dict[str, Any]) -> str:
    captures = {name: text for name, value in document.items() if (text := as_text(value)) is not None}
    room = fill(alias.room, captures, None)
    if room is None:
        raise InvalidRequest(f"{alias.event} needs what its room names: {alias.room}", hint="add it to the object")
    return room
