"""CONNECT in the right version, with session, will and credentials."""

from __future__ import annotations

import asyncio
import logging
import ssl

from gapless.link.connection import Connection, Handler
from gapless.link.errors import VersionRefused
from gapless.link.options import LinkOptions
from gapless.link.status import StatusMessages
from gapless.mqtt import Connect, Properties, ProtocolVersion

logger = logging.getLogger("gapless.link")

_CLOSINGS = 2
"""After so many connections that were closed unanswered, MQTT 3.1.1 is tried."""


class Dialer:
    """Opens connections for one client id.

    Args:
        client_id: the MQTT client identifier.
        status: gives the last will.
        largest_packet: bytes; an MQTT 5 broker keeps larger messages to itself (§3.1.2.11.4).
    """

    def __init__(self, options: LinkOptions, *, client_id: str, status: StatusMessages, largest_packet: int) -> None:
        self._options = options
        self._client_id = client_id
        self._status = status
        self._largest_packet = largest_packet
        self._has_spoken_5 = False
        self._closings = 0

    async def connect(self, handler: Handler) -> Connection:
        """A connection after CONNACK, not yet started: in MQTT 5, else in 3.1.1.

        Each connection tries MQTT 5 first again, as a broker that only closed may have been
        about to restart. As a connection may have been cut, and 3.1.1 cannot carry ids, only closing is taken
        for a refusal of the version where it happened twice in a row, and this broker never spoke MQTT 5.

        Raises:
            LinkError: none could be made.
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
                    self._has_spoken_5 = True
                    return connection
                except VersionRefused as refusal:
                    if refusal.reason is None:
                        self._closings += 1
                        if self._has_spoken_5 or self._closings < _CLOSINGS:
                            raise
                    logger.debug("link %s: trying MQTT 3.1.1: %s", self._options.name, refusal.message)
                    return await self._open(ProtocolVersion.V311, tls, handler)

    async def _open(self, version: ProtocolVersion, tls: ssl.SSLContext | None, handler: Handler) -> Connection:
        connection = Connection(self._options.address, self._packet(version), handler)
        await connection.open(tls, timeout=self._options.connect_timeout)
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
