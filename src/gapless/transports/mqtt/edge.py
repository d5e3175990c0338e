"""The edge: the gateway as an MQTT server for devices."""

from __future__ import annotations

import asyncio
import ssl as _ssl
import time as _time
from asyncio import Future
from collections.abc import Callable, Iterable
from typing import Protocol

from gapless.auth import Gate
from gapless.errors import ConfigError
from gapless.eventlog import EVERYTHING, EventLog, StateWrite
from gapless.hub import Hub
from gapless.ingress import Ingress
from gapless.limits import Limiter
from gapless.mqtt import ReasonCode
from gapless.presence import CoveredRooms, Presence
from gapless.transports.broadcast import Broadcast
from gapless.transports.mqtt.connection import Connection, effective_expiry
from gapless.transports.mqtt.fanout import MqttFanout
from gapless.transports.mqtt.feed import Feeder
from gapless.transports.mqtt.groups import ShareGroups, share_key
from gapless.transports.mqtt.options import EdgeOptions, EdgeStats
from gapless.transports.mqtt.output import Flusher
from gapless.transports.mqtt.resent import RecentPublishes
from gapless.transports.mqtt.sessions import SessionStore, steady_time
from gapless.transports.mqtt.tasks import Tasks
from gapless.transports.mqtt.tcp import Server, listen
from gapless.transports.mqtt.websocket import make_websocket_app
from gapless.transports.mqtt.wills import Wills

_RECALLED = 20_000
"""Events at the log's end in which resent publishes are known again after a restart."""
_HEADROOM = 64 * 1024
_LIST_ITEMS = 1000  # filters, or user properties, of one packet: more than any session may have is nobody's need


class _Socket(Protocol):
    def abort(self) -> None: ...


class MqttEdge:
    """MQTT 3.1.1 and 5 for devices, over TCP, TLS and WebSocket, on the event log.

    Every event is delivered once per client and in the log's order at QoS 1 and 2; a
    persistent session goes on where it was, also after the server was killed.

    Args:
        broadcast: writes an event to many connections; None writes to one after the other.
        clock: seconds since the Unix epoch.
        steady: seconds by a clock that nobody sets; see `SessionStore`.

    Attributes:
        stats: what is counted.
        connected: connections with a session, by client id.
        websocket_app: the ASGI application to mount at `/mqtt`.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        *,
        ingress: Ingress,
        hub: Hub,
        log: EventLog,
        gate: Gate,
        presence: Presence | None = None,
        options: EdgeOptions | None = None,
        limiter: Limiter | None = None,
        broadcast: Broadcast | None = None,
        clock: Callable[[], float] = _time.time,
        steady: Callable[[], float] = steady_time,
    ) -> None:
        self.options = options or EdgeOptions()
        self.options.check()
        self.ingress = ingress
        self.hub = hub
        self.log = log
        self.gate = gate
        self._presence = presence or Presence(gate=gate)
        self._covered = CoveredRooms(ingress.topic_map)
        self.limiter = Limiter(ingress.limits) if limiter is None else limiter  # an empty one is false
        self.stats = EdgeStats()
        self.tasks = Tasks(self.stats)
        self.flusher = Flusher()
        self.feeder = Feeder(hub, self.tasks)
        self.fanout = MqttFanout(hub, self.stats, lambda: int(clock() * 1000), broadcast)
        self.groups = ShareGroups(
            self.feeder,
            self.stats,
            now_ms=lambda: int(clock() * 1000),
            on_added=self.fanout.add_group,
            on_removed=self.fanout.remove_group,
        )
        self.sessions = SessionStore(
            log,
            hub,
            self.groups,
            options=self.options,
            stats=self.stats,
            tasks=self.tasks,
            wills=Wills(ingress, gate, self.stats, self.tasks),
            limiter=self.limiter,
            clock=clock,
            steady=steady,
        )
        self.recent = RecentPublishes(self.options.receive_maximum)
        self.connected: dict[str, Connection] = {}
        self.sockets: set[_Socket] = set()
        self.stopping = False
        self.websocket_app = make_websocket_app(self)
        payload = ingress.limits.payload_bytes + _HEADROOM
        self.max_packet_size = self.options.maximum_packet_size or payload
        self.max_list_items = max(_LIST_ITEMS, self.options.max_subscriptions)
        self._servers: list[Server] = []

    # Life

    async def start(self) -> None:
        """Load sessions and groups, publish the wills of sessions that ended while we were down.

        The log must be open and the hub started.

        Raises:
            LogCorrupt: a stored session cannot be read.
        """
        await self._recall_publishes()
        self.hub.add(self.fanout)
        await self.sessions.load()

    async def listen(self, host: str, port: int, ssl: _ssl.SSLContext | None = None) -> Server:
        """Listen for TCP, or TLS with `ssl`; port 0 takes a free one (see `Server.port`).

        Raises:
            ConfigError: the port is in use.
        """
        if self.stopping:
            raise ConfigError("the edge is stopping")
        server = await listen(self, host, port, ssl=ssl)
        self._servers.append(server)
        return server

    async def stop(self) -> None:
        """Say goodbye to every client (0x8B), store every session, close every socket.

        Wills are kept, and published at the next start, after their delay.
        """
        self.stopping = True
        for server in self._servers:
            server.close()
        for connection in list(self.connected.values()):
            connection.close_with(ReasonCode.SERVER_SHUTTING_DOWN, will=True, defer=True)
        await self.sessions.stop()
        await self._sockets_closed()
        self.hub.remove(self.fanout)
        await self.tasks.stop()

    async def _sockets_closed(self) -> None:
        """Give the sockets a moment to take what was written, then drop them."""
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.0
        while self.sockets and loop.time() < end:  # noqa: ASYNC110 at shutdown only, and bounded
            await asyncio.sleep(0.01)
        for socket in list(self.sockets):
            socket.abort()
        await asyncio.sleep(0)

    async def _recall_publishes(self) -> None:
        after = max(self.log.oldest - 1, self.hub.head - _RECALLED)
        while after < self.hub.head:
            page = await self.hub.page(EVERYTHING, after, limit=1000)
            for record in page.records:
                self.recent.learn(record)
            after = page.through

    # Figures

    @property
    def behind(self) -> int:
        """Connected clients that are fed from the log now."""
        return sum(not connection.reader.live for connection in self.connected.values())

    @property
    def held(self) -> int:
        """Bytes that wait for the sockets of connected clients."""
        return sum(connection.output.held for connection in self.connected.values())

    @property
    def failed_handshakes(self) -> int:
        """TLS handshakes that failed or took too long."""
        return sum(server.failed_handshakes for server in self._servers)

    # For connections

    def limit_expiry(self, asked: int) -> int:
        """The session expiry, in seconds, that a client gets for the one it asks for."""
        return effective_expiry(asked, self.options.max_session_expiry)

    def take_over(self, client_id: str) -> None:
        """End the connection that has this client id now [MQTT-3.1.4-3]."""
        old = self.connected.get(client_id)
        if old is not None:
            self.stats.taken_over += 1
            old.close_with(ReasonCode.SESSION_TAKEN_OVER)

    def attach(self, connection: Connection) -> None:
        """A connection has its session: live events may go to it."""
        reader = connection.reader
        self.connected[connection.client_id] = connection
        self.stats.connections = len(self.connected)
        for sub in reader.session.subscriptions.values():
            if not sub.shared:
                self.fanout.add(reader, sub)
                continue
            group = self.groups.add(share_key(sub.filter), position=reader.position)
            group.enter(reader.client_id, sub, persistent=reader.session.persistent)
            reader.groups += (group,)
            group.connect(reader)
        self._presence.arrived(connection.identity)
        self.subscriptions_changed(connection, reader.session.subscriptions)

    def subscriptions_changed(self, connection: Connection, changed: Iterable[str]) -> None:
        """A connection has, or has no more, subscriptions to these filters: it may be in other rooms now."""
        before, subscriptions = connection.rooms, connection.reader.session.subscriptions
        connection.rooms = rooms = self._covered.after(changed, subscriptions.keys(), before)
        if rooms is not before:
            self._presence.entered(connection.identity, rooms - before)
            self._presence.left(connection.identity, before - rooms)

    def detach(self, connection: Connection) -> None:
        """A connection has ended; its session is stored or ended by the session store."""
        reader = connection.reader
        reader.closed = True
        del self.connected[connection.client_id]
        self.stats.connections = len(self.connected)
        for name, sub in reader.session.subscriptions.items():
            if not sub.shared:
                self.fanout.remove(reader, name)
        for group in reader.groups:
            group.disconnect(reader.client_id)
        self._presence.departed(connection.identity, connection.rooms)

    def write_durably(self, writes: list[StateWrite]) -> Future[None]:
        """Store state values on disk."""
        return self.log.write_state(writes, durable=True)
