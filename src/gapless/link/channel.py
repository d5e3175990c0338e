"""Bytes to and from a broker over TCP, TLS or WebSocket, opened one stage after another.

Nothing blocks the event loop: names are looked up by the loop, connections and TLS are
asyncio's, the WebSocket is the `websockets` package's protocol without I/O.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Protocol, cast

from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from gapless.link.address import BrokerAddress
from gapless.link.errors import dns_failed, tcp_failed, tls_failed, websocket_failed

_BUFFER_HIGH = 256 * 1024  # bytes written and not yet taken by the kernel


class Receiver(Protocol):
    """Who is told what happens on a channel; called in the event loop's thread."""

    def received(self, data: bytes) -> None:
        """Bytes of the MQTT stream have come."""

    def drained(self) -> None:
        """`Channel.writable` has become true again."""

    def ended(self, error: Exception | None) -> None:
        """The channel is closed, once; nothing comes after it. `error` None: in order."""


class Channel(asyncio.Protocol):
    """One byte stream. Made by `open_channel`.

    Attributes:
        writable: False while more is buffered than `_BUFFER_HIGH`; writing stays allowed.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self.writable = True

    @property
    def transport(self) -> asyncio.Transport:
        """The transport below."""
        assert self._transport is not None  # set before anybody sees the channel
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio (and once more where TLS is started)."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_BUFFER_HIGH)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._receiver.received(data)

    def pause_writing(self) -> None:
        """Called by asyncio."""
        self.writable = False

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self.writable = True
        self._receiver.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        if not self._ended:
            self._ended = True
            self._receiver.ended(exc)

    def write(self, data: bytes) -> None:
        """Send bytes of the MQTT stream; nothing after the end."""
        self.transport.write(data)

    def pause(self) -> None:
        """Take no more bytes from the peer, until `resume`."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Go on after `pause`."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def close(self) -> None:
        """Send what is buffered, then close."""
        self.transport.close()

    def abort(self) -> None:
        """Close at once; what is buffered is lost."""
        self.transport.abort()


class WebSocketChannel(Channel):
    """MQTT in the binary frames of a WebSocket (MQTT 5 §6)."""

    def __init__(self, receiver: Receiver, address: BrokerAddress) -> None:
        super().__init__(receiver)
        uri = parse_uri(f"{str(address).removesuffix(address.path)}{address.path}")
        self._protocol = ClientProtocol(uri, subprotocols=[Subprotocol("mqtt")], max_size=None)
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failure: Exception | None = None

    async def handshake(self) -> None:
        """Upgrade the connection (RFC 6455 §4.1). OSError or WebSocketException where that fails."""
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        await self._opened

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._protocol.receive_data(data)
        self._take()

    def eof_received(self) -> None:
        """Called by asyncio."""
        self._protocol.receive_eof()
        self._take()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        if not self._opened.done():
            self._opened.set_exception(exc or ConnectionResetError("connection closed"))
            self._opened.exception()  # perhaps nobody waits any more
        super().connection_lost(exc or self._failure)

    def write(self, data: bytes) -> None:
        """Send bytes as one binary frame."""
        if not self.transport.is_closing():
            self._protocol.send_binary(data)
            self._flush()

    def close(self) -> None:
        """Send the closing frame; the server ends the connection, else we do soon."""
        if self._protocol.state.name == "OPEN" and not self.transport.is_closing():
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        super().close()

    def _take(self) -> None:
        events = self._protocol.events_received()
        self._flush()
        for event in events:
            if isinstance(event, Response):
                self._finish_handshake()
            elif isinstance(event, Frame):
                self._take_frame(event)
        if not self._opened.done() and self._protocol.handshake_exc is not None:
            self._opened.set_exception(self._protocol.handshake_exc)
        if self._protocol.close_expected() and not self._ended:
            self.transport.close()

    def _finish_handshake(self) -> None:
        if self._opened.done():
            return
        error = self._protocol.handshake_exc
        if error is None:
            self._opened.set_result(None)
        else:
            self._opened.set_exception(error)

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.BINARY, Opcode.CONT):
            self._receiver.received(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:  # [MQTT-6.0.0-1]
            self._failure = ConnectionError("the broker sent a text frame")
            self.transport.close()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data and not self.transport.is_closing():
                self.transport.write(data)


AddressInfo = tuple[int, int, int, str, "tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]"]


async def resolve(address: BrokerAddress, *, timeout: float) -> list[AddressInfo]:
    """The addresses of the host, best first.

    Raises:
        LinkError: stage `dns`.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # TimeoutError is an OSError; UnicodeError: no host name at all
        wrapped = error if isinstance(error, OSError) else OSError(str(error))
        raise dns_failed(address, wrapped) from error
    return list(dict.fromkeys(found))


async def connect_tcp(address: BrokerAddress, infos: list[AddressInfo], *, timeout: float) -> socket.socket:
    """A connected socket, to the first of the addresses that answers.

    Raises:
        LinkError: stage `tcp`; it tells the last failure.
    """
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("no address")
    for family, kind, protocol, _, where in infos:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # no IPv6 here
            failure = error
            continue
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(max(1.0, timeout / len(infos))):
                await loop.sock_connect(sock, where)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise tcp_failed(address, failure) from failure


async def start_channel(
    address: BrokerAddress, sock: socket.socket, tls: ssl.SSLContext | None, receiver: Receiver, *, timeout: float
) -> Channel:
    """A channel on a connected socket, after the TLS handshake where `tls` is given.

    The WebSocket handshake is the next stage (`WebSocketChannel.handshake`). The socket is
    closed where this fails.

    Raises:
        LinkError: stage `tls`.
    """
    loop = asyncio.get_running_loop()
    channel = WebSocketChannel(receiver, address) if address.websocket else Channel(receiver)
    try:
        async with asyncio.timeout(timeout):
            await loop.create_connection(
                lambda: channel, sock=sock, ssl=tls, server_hostname=address.host if tls is not None else None
            )
    except OSError as error:  # ssl.SSLError and TimeoutError are OSErrors
        sock.close()
        raise tls_failed(address, error) from error
    except BaseException:
        sock.close()
        raise
    return channel


async def open_websocket(address: BrokerAddress, channel: Channel, *, timeout: float) -> None:
    """The WebSocket handshake, where the address wants one. The channel is closed where it fails.

    Raises:
        LinkError: stage `websocket`.
    """
    if not isinstance(channel, WebSocketChannel):
        return
    try:
        async with asyncio.timeout(timeout):
            await channel.handshake()
    except (OSError, WebSocketException) as error:
        channel.abort()
        raise websocket_failed(address, error) from error
    except BaseException:
        channel.abort()
        raise


async def open_channel(
    address: BrokerAddress, tls: ssl.SSLContext | None, receiver: Receiver, *, timeout: float
) -> Channel:
    """All stages, each within `timeout` seconds. Cancellation closes what was opened.

    Raises:
        LinkError: its `stage` tells how far it came.
    """
    infos = await resolve(address, timeout=timeout)
    sock = await connect_tcp(address, infos, timeout=timeout)
    channel = await start_channel(address, sock, tls, receiver, timeout=timeout)
    await open_websocket(address, channel, timeout=timeout)
    return channel
