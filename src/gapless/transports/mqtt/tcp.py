"""MQTT over TCP and TLS (MQTT 5 §4.2)."""

from __future__ import annotations

import asyncio
import ssl as _ssl
from typing import TYPE_CHECKING, cast

from gapless.limits import FREE, Visit
from gapless.transports.broadcast import Lane
from gapless.transports.listener import bind
from gapless.transports.mqtt.connection import Connection
from gapless.transports.tls_listener import TlsListener

if TYPE_CHECKING:
    from gapless.transports.mqtt.edge import MqttEdge

LINGER = 5.0
"""Seconds that a closing connection has to take what was written to it."""


class TcpProtocol(asyncio.Protocol):
    """The socket of one connection, and its `Writer`."""

    __slots__ = ("_connection", "_edge", "_linger", "_transport", "_visit")

    def __init__(self, edge: MqttEdge, visit: Visit = FREE) -> None:
        self._edge = edge
        self._visit = visit
        self._transport: asyncio.Transport | None = None
        self._connection: Connection | None = None
        self._linger: asyncio.TimerHandle | None = None

    # From asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        transport = cast(asyncio.Transport, transport)  # uvloop's is not derived from asyncio's
        self._transport = transport
        transport.set_write_buffer_limits(self._edge.options.high_water)
        peer = transport.get_extra_info("peername")
        name, address = (f"{peer[0]}:{peer[1]}", peer[0]) if peer else ("tcp", None)
        if self._visit is FREE:  # else it was counted before its TLS handshake
            self._visit = self._edge.limiter.visit(address)
            if not self._visit.enter():
                transport.abort()
        self._connection = Connection(self._edge, self, peer=name, address=address, visit=self._visit)
        self._edge.sockets.add(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        assert self._connection is not None
        self._connection.data_received(data)

    def pause_writing(self) -> None:
        """See asyncio."""
        assert self._connection is not None
        self._connection.writer_paused()

    def resume_writing(self) -> None:
        """See asyncio."""
        assert self._connection is not None
        self._connection.writer_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        if self._linger is not None:
            self._linger.cancel()
        self._edge.sockets.discard(self)
        assert self._connection is not None
        self._connection.connection_lost()
        self._visit.leave()

    # Writer

    @property
    def lane(self) -> Lane:
        """See `Writer`."""
        assert self._transport is not None
        return Lane(self._transport.write, self._transport, plain=True)

    @property
    def transport(self) -> asyncio.BaseTransport | None:
        """See `Writer`."""
        return self._transport

    @property
    def held(self) -> int:
        """See `Writer`."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """See `Writer`."""
        transport = self._transport
        assert transport is not None
        try:
            transport.write(data)
        except RuntimeError:  # uvloop: the handle is closed, connection_lost has not run yet
            if not transport.is_closing():
                raise

    def close(self) -> None:
        """See `Writer`. A peer that does not read is cut off after a while."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._linger = asyncio.get_running_loop().call_later(LINGER, self._transport.abort)

    def abort(self) -> None:
        """See `Writer`."""
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        """See `Writer`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See `Writer`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


class Server:
    """A listening socket.

    Attributes:
        host: the address.
        port: the port, also where 0 was asked for.
    """

    def __init__(self, server: asyncio.Server | TlsListener, host: str) -> None:
        self._server = server
        self.host = host
        self.port: int = server.sockets[0].getsockname()[1]

    @property
    def failed_handshakes(self) -> int:
        """TLS handshakes that failed or took too long."""
        return self._server.failed if isinstance(self._server, TlsListener) else 0

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        self._server.close()


async def listen(edge: MqttEdge, host: str, port: int, *, ssl: _ssl.SSLContext | None) -> Server:
    """Listen for MQTT.

    Raises:
        ConfigError: the port is in use, or may not be used.
    """
    listener = bind(host, port, "mqtt-port" if ssl is None else "mqtts-port")
    loop = asyncio.get_running_loop()
    if ssl is None:
        return Server(await loop.create_server(lambda: TcpProtocol(edge), sock=listener, backlog=4096), host)
    secured = TlsListener(
        listener,
        lambda visit: TcpProtocol(edge, visit),
        ssl,
        limiter=edge.limiter,
        handshake_timeout=edge.options.connect_timeout,
    )
    return Server(secured, host)
