"""A WebSocket, lent to a fan-out so that one encoded frame serves every client.

The HTTP connection on which it was asked for hands itself over (`raw_http`); `websockets` reads the
frames. What a transport of ours sends goes straight to the socket, as finished frames: data frames may
be written between the frames of others at any time (RFC 6455 §5.4, no fragments are sent here), and
uncompressed frames are allowed where compression was negotiated (RFC 7692 §6). It is negotiated
without context takeover, so that a message is compressed once for every client, and nothing is kept
for a connection.

An ASGI application decides whether it is accepted, and may take it over: messages then go to a
receiver by calls, the application returns, and what it held (a task, the request) is freed: an idle
connection costs a third of the memory.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import struct
import zlib
from collections import deque
from collections.abc import Iterable, MutableMapping
from http import HTTPStatus
from typing import Any, Protocol

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.exceptions import WebSocketException
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.headers import build_extension, parse_extension
from websockets.protocol import Protocol as Frames
from websockets.protocol import Side, State

from gapless.errors import InvalidRequest
from gapless.transports.lending import SCOPE_KEY, Lending, WriterEvents, header_lines

logger = logging.getLogger("gapless.http")
_unheard = logging.getLogger("gapless.http.frames")
_unheard.setLevel(logging.INFO)  # `websockets` tells each frame at DEBUG, with the tokens in it

TEXT, BINARY = 0x81, 0x82
DEFLATED = 0x40
"""Added to the opcode of a frame whose payload is compressed (RFC 7692 §6)."""

_HEAD_7, _HEAD_16, _HEAD_64 = (struct.Struct(form).pack for form in (">BB", ">BBH", ">BBQ"))
_WINDOW_BITS = 15
_DEFLATE = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)

_VERSION = b"13"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3

_CLOSE_WITHIN = 10.0
"""Seconds that a client has for answering our close, or for reading what was written before."""
_STOP_GRACE = 1.0
"""Seconds in which it must read what was written, as the server stops."""
_UNREAD_PONGS = 64 << 10
"""Bytes that may wait for a client before its pings are not answered any more."""


class BadHandshake(InvalidRequest):
    """A request for a WebSocket that is none (RFC 6455 §4.2.1).

    Attributes:
        headers: lines that the answer needs.
    """

    code = "bad_handshake"
    headers = b""


class UnsupportedVersion(BadHandshake):
    """It asks for another version of the protocol (RFC 6455 §4.4)."""

    code = "unsupported_websocket_version"
    http_status = 426
    headers = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: %b\r\n" % _VERSION


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """A whole, unmasked, final frame (RFC 6455 §5.2): `BINARY` or `TEXT`."""
    size = len(payload)
    if size < 126:
        return _HEAD_7(opcode, size) + payload
    if size < 65536:
        return _HEAD_16(opcode, 126, size) + payload
    return _HEAD_64(opcode, 127, size) + payload


def first_payload(frames: bytes) -> bytes:
    """What the first of some frames carries; they were made by `frame`."""
    size, start = frames[1], 2
    if size == 126:
        start = 4
    elif size == 127:
        start = 10
    if start > 2:
        size = int.from_bytes(frames[2:start])
    return frames[start : start + size]


def deflate(payload: bytes) -> bytes:
    """A message's payload, compressed by itself (RFC 7692 §7.2.1)."""
    compressor = zlib.compressobj(wbits=-_WINDOW_BITS)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def accept_key(scope: MutableMapping[str, Any]) -> bytes:
    """What the answer to a handshake shows (RFC 6455 §4.2.2), as base64.

    Raises:
        BadHandshake: the request asks for no WebSocket that there is.
    """
    found = {name: value for name, value in scope["headers"] if name.startswith(b"sec-websocket-")}
    if scope["method"] != "GET" or scope["http_version"] != "1.1" or has_body(scope["headers"]):
        raise BadHandshake("a WebSocket is asked for by GET of HTTP/1.1, without a body")
    if found.get(b"sec-websocket-version", b"").strip() != _VERSION:
        raise UnsupportedVersion(
            "this server speaks version 13 of the WebSocket protocol", hint="send Sec-WebSocket-Version: 13"
        )
    key = found.get(b"sec-websocket-key", b"").strip()
    try:
        valid = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        valid = False
    if not valid:
        raise BadHandshake("Sec-WebSocket-Key is no 16 bytes in base64", hint="send a random one (RFC 6455 §4.1)")
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request announces a body (RFC 9112 §6.3); the names of its headers are in lower case."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0") for name, value in headers
    )


def _listed(scope: MutableMapping[str, Any], wanted: bytes) -> Iterable[str]:
    """The values of a header that may come several times, each a list (RFC 9110 §5.6.1)."""
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


class Receiver(WriterEvents, Protocol):
    """Whom a connection's messages go to once it was taken over."""

    def message(self, data: str | bytes) -> None:
        """A whole message: text or binary."""


class LendingWebSocket(Lending):
    """A server's end of a WebSocket, whose transport can be borrowed.

    It is found in the ASGI scope as `scope["extensions"][SCOPE_KEY]`.

    Args:
        transport: the connection, of which the request was read.
        request: the request, as ASGI has it for HTTP, with its path.
        key: see `accept_key`.

    Attributes:
        client: address and port at the other end.
        receiver: who took it over.
        frames: the pieces of a message that is not whole yet.
    """

    high_water: int = 256 * 1024
    """Bytes in the socket's buffer past which a reader counts as slow."""

    receiver: Receiver | None = None
    _disconnected = False
    _paused = False
    _news: asyncio.Future[None] | None = None
    _refusal: tuple[int, Iterable[tuple[bytes, bytes]]] | None = None
    _closing: asyncio.TimerHandle | None = None
    _lingering: asyncio.TimerHandle | None = None

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        config: Config,
        server_state: ServerState,
        request: MutableMapping[str, Any],
        key: bytes,
    ) -> None:
        self.transport = transport
        self.client = request["client"]
        self.conn = Frames(Side.SERVER, max_size=config.ws_max_size, logger=_unheard)
        self.frames: list[bytes | bytearray] = []
        self._came: deque[dict[str, Any]] | None = deque(({"type": "websocket.connect"},))
        self._is_text = False
        self._answered = False
        self._state = server_state
        self._config = config
        self._key = key
        self._extension = self._negotiate(request) if config.ws_per_message_deflate else b""
        self._scope = self._scope_of(request)
        transport.set_write_buffer_limits(self.high_water)
        server_state.connections.add(self)  # type: ignore[arg-type]

    @property
    def deflates(self) -> bool:
        """Whether the client takes what `deflate` made."""
        return any(
            isinstance(extension, PerMessageDeflate) and extension.local_max_window_bits == _WINDOW_BITS
            for extension in self.conn.extensions
        )

    # --- the handshake

    def serve(self) -> None:
        """Ask the application."""
        task = asyncio.get_running_loop().create_task(self._run())
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _scope_of(self, request: MutableMapping[str, Any]) -> dict[str, Any]:
        offered = ",".join(_listed(request, b"sec-websocket-protocol"))
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if request["scheme"] == "https" else "ws",
            "server": request["server"],
            "client": self.client,
            "root_path": request["root_path"],
            "path": request["path"],
            "raw_path": request["raw_path"],
            "query_string": request["query_string"],
            "headers": request["headers"],
            "subprotocols": [name.strip() for name in offered.split(",")] if offered else [],
            "state": request["state"],
            "extensions": {"websocket.http.response": {}, SCOPE_KEY: self},
        }

    def _negotiate(self, request: MutableMapping[str, Any]) -> bytes:
        """Take the first offer of compression that can be met (RFC 7692 §5); the header of the answer."""
        try:
            offers = [
                offer for text in _listed(request, b"sec-websocket-extensions") for offer in parse_extension(text)
            ]
            for name, parameters in offers:
                if name == _DEFLATE.name:
                    answer, extension = _DEFLATE.process_request_params(parameters, [])
                    self.conn.extensions = [extension]
                    return b"sec-websocket-extensions: %b\r\n" % build_extension([(name, answer)]).encode()
        except WebSocketException:
            pass  # an offer that cannot be read, or not be met, is declined
        return b""

    async def _run(self) -> None:
        try:
            await self._config.loaded_app(self._scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            logger.exception("the application failed on a WebSocket")
        self._scope = {}
        if self.receiver is not None or self._closing is not None or self.transport.is_closing():
            return
        if not self._answered:
            self._respond(500, (), b"")
        self._close()

    async def receive(self) -> dict[str, Any]:
        """See ASGI."""
        assert self._came is not None, "the connection was taken over"
        while not self._came:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        event = self._came.popleft()
        if not self._came:
            self._read_on()
        return event

    def _read_on(self) -> None:
        """A message was taken, for which reading was held up."""
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _tell(self, **event: Any) -> None:
        """What `receive` gives, in time; nothing once the connection was taken over."""
        if self._came is None:
            return
        self._came.append(event)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def send(self, message: Any) -> None:
        """See ASGI. It does not wait for the client: who has more to say takes the connection over.

        Raises:
            ClientDisconnected: it is gone.
        """
        if self._disconnected:
            raise ClientDisconnected
        match message["type"]:
            case "websocket.accept" if not self._answered:
                self._accept(message.get("subprotocol"), message.get("headers", ()))
            case "websocket.close" if not self._answered:
                self._respond(403, (), b"")
            case "websocket.http.response.start" if not self._answered:
                self._refusal = (message["status"], message.get("headers", ()))
            case "websocket.http.response.body" if self._refusal is not None and not self._answered:
                self._respond(*self._refusal, message.get("body", b""))
            case "websocket.send" if self._answered and self.conn.state is State.OPEN:
                text = message.get("text")
                self.write(frame(message["bytes"]) if text is None else frame(text.encode(), TEXT))
            case "websocket.close" if self._answered and self._closing is None:
                self._begin_to_close(message.get("code", 1000), message.get("reason") or "")
            case _ if self.transport.is_closing():
                raise ClientDisconnected
            case kind:
                raise RuntimeError(f"{kind!r} has no place here")

    def _accept(self, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]) -> None:
        chosen = b"" if subprotocol is None else b"sec-websocket-protocol: %b\r\n" % subprotocol.encode()
        self._answered = True
        self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-accept: %b\r\n%b%b%b\r\n" % (self._key, self._extension, chosen, self._lines(headers))
        )

    def _respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Refuse it."""
        self._answered = True
        self.write(
            b"HTTP/1.1 %d %b\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, HTTPStatus(status).phrase.encode(), self._lines(headers), len(body), body)
        )
        self._close()

    def _lines(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        return header_lines((*self._state.default_headers, *headers))

    def _begin_to_close(self, code: int, reason: str) -> None:
        """The client has its time to answer: what it wrote meanwhile would reset the connection."""
        if self.conn.state is not State.OPEN:
            return
        self.conn.send_close(code, reason)
        self._write_pending()
        self._closing = asyncio.get_running_loop().call_later(_CLOSE_WITHIN, self.transport.abort)
        self._read_on()

    def take_over(self, receiver: Receiver) -> None:
        """Hand this connection's messages to `receiver` from now on, those that wait here first.

        The ASGI application is to return soon, and must neither receive nor send any more.
        """
        waiting, self._came = self._came, None
        self.receiver = self.borrower = receiver
        self._read_on()
        for event in waiting or ():
            if event["type"] == "websocket.receive":
                text = event.get("text")
                receiver.message(event["bytes"] if text is None else text)
        if self._disconnected:
            self.borrower = None
            receiver.writer_lost()

    # --- from the client

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        conn = self.conn
        conn.receive_data(data)
        if conn.parser_exc is not None:
            self._break_off()
            return
        answers = conn.data_to_send()  # of `websockets`, to pings and to a close, in their order
        for event in conn.events_received():
            if self.transport.is_closing():
                return  # what comes behind an error, or behind the end, counts for nothing (RFC 6455 §7.1.7)
            assert isinstance(event, Frame)
            match event.opcode:
                case Opcode.TEXT | Opcode.BINARY:
                    self._is_text = event.opcode is Opcode.TEXT
                    self.frames = [event.data]  # type: ignore[list-item]
                    if event.fin:
                        self._message()
                case Opcode.CONT:
                    self._continue(event)
                case Opcode.PING:
                    self._pong(answers.pop(0))
                case Opcode.CLOSE:
                    self._closed_by_client(b"".join(answers))

    def _continue(self, event: Frame) -> None:
        """A further piece. All go into one buffer: a message may have any number of them, empty ones too."""
        whole = self.frames[0]
        if not isinstance(whole, bytearray):
            whole = bytearray(whole)
            self.frames = [whole]
        whole += event.data
        if event.fin:
            self._message()

    def _message(self) -> None:
        """A message is whole."""
        (data,), self.frames = self.frames, []
        if self._closing is not None:
            return
        message: str | bytes
        try:
            message = data.decode() if self._is_text else bytes(data)
        except UnicodeDecodeError:
            self.end(1007)
            return
        if self.receiver is not None:
            self.receiver.message(message)
            return
        self._tell(type="websocket.receive", **{"text" if self._is_text else "bytes": message})
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _pong(self, pong: bytes) -> None:
        """Answered by a pong, unless the client does not read those before it (RFC 6455 §5.5.3 lets us)."""
        if self._answered and self.transport.get_write_buffer_size() < _UNREAD_PONGS:
            self.write(pong)

    def _closed_by_client(self, answer: bytes) -> None:
        """The client closes, or answers our close."""
        received = self.conn.close_rcvd
        if self._closing is None and received is not None:
            self._tell_end(received.code, received.reason)
        if self._answered:  # else it waits for another answer
            self.write(answer)
        self._close()

    def _break_off(self) -> None:
        """What came is no frame, or too large a message; `websockets` has said so."""
        sent = self.conn.close_sent
        if sent is not None:
            self._tell_end(sent.code, sent.reason)
        self._write_pending()
        self._close()

    def _tell_end(self, code: int, reason: str) -> None:
        self._tell(type="websocket.disconnect", code=code, reason=reason)

    # --- to the client

    def write(self, frames: bytes) -> bool:
        """Write finished frames; False where the connection is already gone."""
        if self.transport.is_closing():
            return False
        try:
            self.transport.write(frames)
        except RuntimeError:  # uvloop: the handle is closed, connection_lost has not run yet
            return False
        return True

    def _write_pending(self) -> None:
        pending = b"".join(self.conn.data_to_send())
        if self._answered:  # else the client waits for another answer
            self.write(pending)

    def end(self, code: int = 1000) -> None:
        """Close a connection that was taken over, once what was written is sent."""
        if not self.transport.is_closing():
            if self.conn.state is State.OPEN:  # else the client closes it, and was answered
                self.conn.send_close(code)
            self._write_pending()
            self._close()

    def _close(self) -> None:
        """Close once what was written is sent; a client that does not read it is cut off after a while."""
        self.transport.close()
        if self._lingering is None and self.transport.get_write_buffer_size():
            self._lingering = asyncio.get_running_loop().call_later(_CLOSE_WITHIN, self.transport.abort)

    def abort(self) -> None:
        """Drop the connection at once."""
        self.transport.abort()

    # --- the end

    def shutdown(self) -> None:
        """Close as the server stops; a client that does not read what was written is cut after a second."""
        if not self._answered and not self.transport.is_closing():
            self._respond(503, (), b"")
        self._tell_end(1012, "")
        self.end(1012)
        asyncio.get_running_loop().call_later(_STOP_GRACE, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._disconnected = True
        self._state.connections.discard(self)
        for timer in (self._closing, self._lingering):
            if timer is not None:
                timer.cancel()
        self._tell_end(1005 if self._answered else 1006, "")
        super().connection_lost(exc)
        # These hold what holds them.
        self.conn.parser.close()
        self.conn.parser_exc = None
        self.receiver = None
