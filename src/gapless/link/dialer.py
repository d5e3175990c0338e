"""CONNECT in the right version, with session, will and credentials."""

from __future__ import annotations

import asyncio
import logging
import ssl
from asyncio import Future
from collections.abc import Awaitable, Callable

from gapless.eventlog import EventLog, StateKind, StateWrite
from gapless.eventlog.answers import outcome
from gapless.link.connection import Connection, Handler
from gapless.link.errors import VersionRefused
from gapless.link.options import LinkOptions
from gapless.link.status import StatusMessages
from gapless.mqtt import Connect, Properties, ProtocolVersion

logger = logging.getLogger("gapless.link")


class Dialer:
    """Opens connections for one client id.

    Args:
        client_id: the MQTT client identifier.
        status: gives the last will.
        largest_packet: bytes; an MQTT 5 broker keeps larger messages to itself (§3.1.2.11.4).
        log: keeps that the broker has spoken MQTT 5.
        before_connect: awaited before each CONNECT.
    """

    def __init__(
        self,
        options: LinkOptions,
        *,
        client_id: str,
        status: StatusMessages,
        largest_packet: int,
        log: EventLog,
        before_connect: Callable[[], Awaitable[None]],
    ) -> None:
        self._options = options
        self._log = log
        self._before_connect = before_connect
        self._client_id = client_id
        self._status = status
        self._largest_packet = largest_packet
        self._has_spoken_5 = False

    async def load(self) -> None:
        """Read what is known of the broker; once, before `connect`."""
        self._has_spoken_5 = await self._log.read_state(StateKind.LINK_VERSION, self._options.name) is not None

    def _note_5(self) -> None:
        """Store that the broker speaks MQTT 5; before any event of the connection, as the log keeps to the order."""
        if not self._has_spoken_5:
            self._has_spoken_5 = True
            write = StateWrite(StateKind.LINK_VERSION, self._options.name, b"5")
            self._log.write_state([write], durable=False).add_done_callback(self._noted)

    def _noted(self, done: Future[None]) -> None:
        if (error := outcome(done)) is not None:  # then only this process knows
            logger.warning("link %s: its version of MQTT could not be stored: %s", self._options.name, error)

    async def connect(self, handler: Handler) -> Connection:
        """A connection after CONNACK, not yet started: in MQTT 5, else in 3.1.1.

        Each connection tries MQTT 5 first again, as a broker that only closed may have been
        about to restart. One that spoke MQTT 5 before, also to an earlier process, is believed only if it says
        that it no longer does: 3.1.1 cannot carry ids, and the connection may have been cut.

        Raises:
            LinkError: none could be made.
            LogUnavailable: from `before_connect`.
        """
        tls = await asyncio.to_thread(self._options.tls_context)  # anew: certificates are renewed on disk
        match self._options.protocol:
            case "5":
                return await self._open(ProtocolVersion.V5, tls, handler)
            case "3.1.1":
                return await self._open(ProtocolVersion.V311, tls, handler)
            case "auto":
                try:
                    connection = await self._open(ProtocolVersion.V5, tls, handler)
                    self._note_5()
                    return connection
                except VersionRefused as refusal:
                    if self._has_spoken_5 and refusal.reason is None:
                        raise
                    logger.debug("link %s: trying MQTT 3.1.1: %s", self._options.name, refusal.message)
                    return await self._open(ProtocolVersion.V311, tls, handler)

    async def _open(self, version: ProtocolVersion, tls: ssl.SSLContext | None, handler: Handler) -> Connection:
        connection = Connection(self._options.address, self._packet(version), handler)
        await connection.open(tls, timeout=self._options.connect_timeout, before_connect=self._before_connect)
        return connection

    def _packet(self, version: ProtocolVersion) -> Connect:
        username, password = self._options.credentials
        properties = None
        if version is ProtocolVersion.V5:
            properties = Properties(
                session_expiry_interval=self._options.session_expiry,
                receive_maximum=self._options.receive_maximum,
                maximum_packet_size=self._largest_packet,
            )
        return Connect(
            self._client_id,
            version,
            clean_start=False,
            keep_alive=self._options.keepalive,
            will=self._status.will(version),
            username=username if username is not None or password is None else "",
            password=None if password is None else password.encode(),
            properties=properties,
        )
