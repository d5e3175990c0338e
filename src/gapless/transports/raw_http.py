"""An HTTP connection: bounded and timed until its request is heard, and lent to a stream of events.

uvicorn keeps the protocol. While an answer of unknown length is open and nothing of it waits,
a part of it may go straight to the socket as a finished chunk (RFC 9112 §7.1), so that one
encoded chunk serves every client.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gapless.errors import GaplessError, InvalidRequest, RateLimited
from gapless.limits import FREE, Limiter, Networks
from gapless.transports.deadlines import Deadlines
from gapless.transports.lending import SCOPE_KEY, Lending, header_lines
from gapless.transports.raw_websocket import BadHandshake, LendingWebSocket, accept_key, has_body

HEAD_BYTES = 64 * 1024
"""Most bytes of a request line with its headers; of trailers too, and of what stands beside a chunk."""
HEADERS = 128
"""Most headers of a request."""
URL_BYTES = 16 * 1024
"""Longest URL."""


class HeadTooLarge(InvalidRequest):
    """The request line with its headers is over the limit (RFC 6585 §5)."""

    code = "head_too_large"
    http_status = 431


class UnsupportedUpgrade(InvalidRequest):
    """The request asks for another protocol, and has a body, which the parser does not read then."""

    code = "unsupported_upgrade"


class RequestTimeout(GaplessError):
    """The request did not come within its time (RFC 9110 §15.5.9)."""

    code = "request_timeout"
    http_status = 408
    retryable = True


def chunk(data: bytes) -> bytes:
    """One chunk of a body in chunked transfer coding (RFC 9112 §7.1); `data` is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _address(found: Any) -> tuple[str, int] | None:
    """Host and port, without what IPv6 says more; None of a socket that has no such address."""
    return (found[0], found[1]) if isinstance(found, tuple) else None


class LendingHttp(Lending, HttpToolsProtocol):
    """uvicorn's HTTP protocol, whose transport can be borrowed.

    It is found in the ASGI scope as `scope["extensions"][SCOPE_KEY]`. Pass this class to
    uvicorn as `http=`.

    Attributes:
        limiter: counts connections by address; None counts none.
        proxies: peers that speak for others, and are not counted themselves.
        deadlines: for the request line and the headers; None waits for ever.
    """

    limiter: Limiter | None = None
    proxies: Networks | None = None
    deadlines: Deadlines | None = None
    _waited = -1  # bytes since the request began, or its body went on; below 0 outside of a request
    _in_head = False
    _went_on = False
    _deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # As uvicorn does it, but for the addresses: it makes two sockets to ask the kernel for what uvloop knows.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server = _address(transport.get_extra_info("sockname"))
        self.client = _address(transport.get_extra_info("peername"))
        self.scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        if self.deadlines is not None:
            self.deadlines.start(self)
        if self.limiter is None or self.client is None or (self.proxies and self.client[0] in self.proxies):
            return
        if self.visit is FREE:  # else it was counted before its TLS handshake
            self.visit = self.limiter.visit(self.client[0])
            if not self.visit.enter():
                transport.abort()
                return
        try:
            self.visit.admit()
        except RateLimited as error:
            self.refuse(error)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        cycle: Any = self.cycle  # None before the first request
        if self.deadlines is not None and (cycle is None or cycle.response_complete):
            self.deadlines.start(self)
        self._went_on = False
        super().data_received(data)
        if self._waited >= 0:
            self._waited = 0 if self._went_on else self._waited + len(data)
            if self._waited > HEAD_BYTES:
                self._refuse_waiting()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._waited = 0
        self._in_head = True
        self._went_on = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer is no header (RFC 9110 §6.5.1): no proxy has looked at it
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._went_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._waited = -1
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._went_on = True
        if self.deadlines is not None:
            self.deadlines.stop(self)
        if len(self.headers) > HEADERS:
            self._refuse_head(f"the request has {len(self.headers)} headers", HEADERS)
        elif len(self.url) > URL_BYTES:
            self._refuse_head(f"the URL has {len(self.url)} bytes", URL_BYTES)
        elsewhere = self.parser.should_upgrade() and not self._should_upgrade()
        if elsewhere and has_body(self.headers):
            self.refuse(UnsupportedUpgrade("this server upgrades to WebSocket alone", hint="send no Upgrade header"))
        if self.transport.is_closing():
            self._drop_request()
            return
        super().on_headers_complete()  # the ASGI task it makes has not run yet
        scope: Any = self.scope
        scope.setdefault("extensions", {})[SCOPE_KEY] = self
        if elsewhere:  # answered as if it had not asked (RFC 9110 §7.8); the parser takes what follows for no body
            self.cycle.keep_alive = False
            self._deaf = True

    def _get_upgrade(self) -> bytes | None:
        upgrade = super()._get_upgrade()
        return upgrade and upgrade.strip()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over. uvicorn's way writes the request anew, for another parser to read it."""
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self.transport.abort()  # it came behind a request whose answer is not over: they would share the connection
            return
        if self.transport.is_closing():
            return
        self.connections.discard(self)
        self.parser: Any = None  # which holds this, and this it
        try:
            request = self._with_path()
            websocket = LendingWebSocket(
                self.transport,
                config=self.config,
                server_state=self.server_state,
                request=request,
                key=accept_key(request),
            )
        except BadHandshake as error:
            self.refuse(error, error.headers)
            return
        websocket.visit, self.visit = self.visit, FREE
        self.scope, self.cycle = _NONE, _NO_CYCLE  # which hold this
        self.transport.set_protocol(websocket)
        websocket.serve()

    def _with_path(self) -> dict[str, Any]:
        """The request for a WebSocket, of which uvicorn has not read the URL.

        Raises:
            BadHandshake: it is none.
        """
        scope: Any = self.scope
        try:
            url = httptools.parse_url(self.url)
            path = unquote((url.path or b"/").decode("ascii"))
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError) as error:
            raise BadHandshake("this is no URL") from error
        raw_path = self.root_path.encode("ascii") + (url.path or b"/")
        scope.update(path=self.root_path + path, raw_path=raw_path, query_string=url.query or b"")
        return scope  # type: ignore[no-any-return]

    def answer(self, send: object, status: int, head: bytes, body: bytes) -> bool:
        """Answer a request in one write, as uvicorn would with a call of `send` for the head and one for the body.

        Args:
            send: what the application was given to answer the request with.
            head: header lines, each with its end; without the length.

        Returns:
            False where nothing was done, because uvicorn or what is between has to do more.
        """
        cycle: Any = self.cycle
        if (
            getattr(send, "__self__", self) != cycle  # another request's, or somebody between adds something
            or cycle.response_started
            or cycle.disconnected
            or cycle.access_log
            or self.flow.write_paused
            or cycle.scope["method"] == "HEAD"
        ):
            return False
        standing = header_lines(cycle.default_headers)
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        self.transport.write(
            b"%b%b%bcontent-length: %d\r\n%b\r\n%b" % (STATUS_LINE[status], standing, head, len(body), close, body)
        )
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    def too_late(self) -> None:
        """See `Late`."""
        self.refuse(RequestTimeout("the request did not come in time", hint="send the whole request at once"))

    def refuse(self, error: GaplessError, more: bytes = b"") -> None:
        """Answer with an error, and with `more` header lines; and close."""
        if self.transport.is_closing():
            return
        body = msgspec.json.encode({"error": error.to_wire()})
        status = HTTPStatus(error.http_status)
        if error.retryable:
            more += b"retry-after: %d\r\n" % error.details.get("retry_after", 1)
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
            % (status.value, status.phrase.encode(), len(body), more, body)
        )
        self.transport.close()

    def _refuse_waiting(self) -> None:
        if self._in_head:
            self._refuse_head(f"the request line and headers have more than {HEAD_BYTES} bytes", HEAD_BYTES)
        else:  # trailers, or what is beside a chunk, without end; its answer may be under way
            self.transport.abort()

    def _refuse_head(self, message: str, limit: int) -> None:
        self.refuse(HeadTooLarge(message, hint="send less", limit=limit))

    def _drop_request(self) -> None:
        """The parser goes on with what it was fed; nothing of it is to be served."""
        self.headers.clear()
        self.cycle = _NO_CYCLE

    def connection_lost(self, exc: Exception | None) -> None:
        if self.deadlines is not None:
            self.deadlines.stop(self)
        super().connection_lost(exc)
        self.scope, self.cycle = _NONE, _NO_CYCLE  # which hold this


class _NoCycle:
    """In place of the request that was refused before it was heard."""

    response_complete = True
    disconnected = False
    more_body = False
    scope = None
    message_event = asyncio.Event()


_NO_CYCLE: Any = _NoCycle()
_NONE: Any = None
