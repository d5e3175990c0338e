"""Engine.IO 4 over HTTP: which requests are taken, long polling, and what ends a session.

python-engineio's own way differs from the protocol in places (see
`docs/socketio-conformance.md`); these overridden methods follow the document.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any
from urllib.parse import parse_qs

import engineio
from engineio import packet as eio
from engineio.async_socket import AsyncSocket
from engineio.exceptions import ContentTooLongError, EngineIOError, UnknownPacketError

from gapless.errors import InvalidRequest, PayloadTooLarge, RateLimited
from gapless.limits import FREE, Visit
from gapless.transports.body import read_body
from gapless.transports.raw_http import RequestTimeout
from gapless.transports.socketio.packets import decode_payload, encode_payload

logger = logging.getLogger("gapless.socketio")

PROTOCOL = "4"
"""The `EIO` that every request names."""

BODY_WITHIN = 10.0
"""Seconds within which the body of a POST must come, and one more for each 16 KiB of it."""

PATIENCE = 60.0
"""Seconds that a client which sent too much waits at most until it is read again."""

TURN = 100
"""Packets of one POST that are handled before others get their turn of the loop."""

FIRST = "gapless.first"
"""The first message of a request, among its environ."""

_HEADERS = {
    name.lower().replace("_", "-").encode(): f"HTTP_{name}"
    for name in (
        "ACCEPT_ENCODING",
        "ACCESS_CONTROL_REQUEST_HEADERS",
        "AUTHORIZATION",
        "COOKIE",
        "HOST",
        "ORIGIN",
        "X_FORWARDED_HOST",
        "X_FORWARDED_PROTO",
    )
}

# code and message of a refused request, as Node's server has them
_UNKNOWN_TRANSPORT = 0, "Transport unknown"
_UNKNOWN_SESSION = 1, "Session ID unknown"
_BAD_HANDSHAKE = 2, "Bad handshake method"
_BAD_REQUEST = 3, "Bad request"
_FORBIDDEN = 4, "Forbidden"
_UNSUPPORTED_PROTOCOL = 5, "Unsupported protocol version"


class PollingSocket(AsyncSocket):  # type: ignore[misc]
    """python-engineio's connection, as Engine.IO 4 wants it on HTTP long-polling.

    Attributes:
        polled: whether a GET waits for packets.
        posted: whether the packets of a POST are being handled.
        visit: what the session counts as.
    """

    # Of the class, so that a connection on WebSocket has none of its own.
    polled = False
    posted = False
    visit: Visit = FREE

    @property
    def over(self) -> bool:
        """Whether the session has ended, or is about to: a ping was left unanswered for too long."""
        if self.closing or not self.last_ping:
            return bool(self.closing)
        return bool(asyncio.get_running_loop().time() - self.last_ping >= self.server.ping_timeout)

    async def handle_get_request(self, environ: dict[str, Any]) -> Any:
        """A request for packets, or for an upgrade to WebSocket (Engine.IO 4, receiving data; upgrade).

        Raises:
            EngineIOError: the request is refused. A second GET at once ends the session, and so
                does a client that leaves: packets may have been on their way to it.
        """
        if environ["asgi.scope"]["type"] == "websocket":
            return await self._upgrade_websocket(environ)
        if self.polled:
            await self.close(reason=self.server.reason.TRANSPORT_ERROR)
            raise EngineIOError("two polls at once")
        if self.upgrading:  # what waits is for the WebSocket
            return [eio.Packet(eio.NOOP)]
        self.polled = True
        try:
            return await self._poll_while_there(environ["asgi.receive"])
        finally:
            self.polled = False

    async def _poll_while_there(self, receive: Callable[[], Awaitable[dict[str, Any]]]) -> list[Any]:
        polling = asyncio.ensure_future(self.poll())
        leaving = asyncio.ensure_future(_until_left(receive))
        try:
            await asyncio.wait((polling, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            polling.cancel()
            leaving.cancel()
        if leaving.done() and not leaving.cancelled():
            await self.close(abort=True, reason=self.server.reason.TRANSPORT_CLOSE)
            raise EngineIOError("the client left its poll")
        return polling.result()

    async def poll(self) -> list[Any]:
        """The packets that wait, once there are any; CLOSE where the session ended."""
        queue = self.queue
        packets = [await queue.get()]
        while packets[-1] is not None and not queue.empty():
            packets.append(queue.get_nowait())
        if packets[-1] is None:
            packets.pop()
        return packets or [eio.Packet(eio.CLOSE)]

    def end_poll(self) -> None:
        """Let a GET that waits return with a NOOP."""
        if self.polled:
            self.queue.put_nowait(eio.Packet(eio.NOOP))

    async def handle_post_request(self, environ: dict[str, Any]) -> None:
        """Packets of the client (Engine.IO 4, sending data), handled in order before the answer.

        Raises:
            ContentTooLongError, EngineIOError: they are too large, malformed, or come while others
                are being handled: the session is at its end.
        """
        if self.posted:
            await self.close(reason=self.server.reason.TRANSPORT_ERROR)
            raise EngineIOError("two POSTs at once")
        self.posted = True
        try:
            body = await _read_body(environ, self.server.max_http_buffer_size)
            if self.visit.limited and (wait := self.visit.spend(0, len(body))):
                await asyncio.sleep(min(wait, PATIENCE))  # and with it the answer, after which the next may come
            await self._receive_all(decode_payload(body))
        except (ValueError, EngineIOError) as error:
            await self.close(reason=self.server.reason.TRANSPORT_ERROR)
            if isinstance(error, EngineIOError):
                raise
            raise EngineIOError("malformed packets") from error
        finally:
            self.posted = False

    async def _receive_all(self, packets: list[Any]) -> None:
        for number, packet in enumerate(packets, 1):
            await self.receive(packet)
            if self.closing:
                if packet.packet_type != eio.CLOSE:
                    raise EngineIOError("the session ended")
                return
            if number % TURN == 0:
                await asyncio.sleep(0)

    async def receive(self, pkt: Any) -> None:
        """Handle a packet of the client (Engine.IO 4, protocol); none once the session has ended.

        Raises:
            UnknownPacketError: it is one that only a server may send, or that has no place here.
        """
        if self.closing:
            return
        match pkt.packet_type:
            case eio.MESSAGE:
                await self.server._trigger_event("message", self.sid, pkt.data, run_async=False)
            case eio.PONG:
                self.schedule_ping()
            case eio.CLOSE:
                self.end_poll()
                await self.close(abort=True, reason=self.server.reason.CLIENT_DISCONNECT)
            case eio.NOOP:
                pass
            case _:
                raise UnknownPacketError

    async def send(self, pkt: Any) -> None:
        """Send a packet; none but CLOSE to a session that is at its end."""
        if not self.closing or pkt.packet_type == eio.CLOSE:
            await self.queue.put(pkt)

    async def close(self, wait: bool = False, abort: bool = False, reason: str | None = None) -> None:
        """End the session; a client that is there is told so, unless `abort`. Waits for nobody."""
        if self.closing or self.closed:
            return
        await super().close(wait=False, abort=abort, reason=reason)
        self.server.sockets.pop(self.sid, None)
        self.visit.leave()


class PollingServer(engineio.AsyncServer):  # type: ignore[misc]
    """python-engineio's server, as Engine.IO 4 wants it for HTTP; without JSONP and cookies."""

    async def handle_request(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Any request to the path of Engine.IO, as an ASGI application."""
        first = await receive()
        if first["type"] not in ("http.request", "websocket.connect"):
            return  # the client left before it was heard
        environ = _environ(scope, receive, send, first)
        response = await self._respond(environ)
        if isinstance(response, dict):  # else a WebSocket was accepted
            self._compress(response, environ)
            await self._make_response(response, environ)

    async def _respond(self, environ: dict[str, Any]) -> Any:
        """Check a request (Engine.IO 4, transports) and handle it."""
        method, query = environ["REQUEST_METHOD"], parse_qs(environ["QUERY_STRING"])
        if not self._origin_may(environ):
            return _refusal(*_FORBIDDEN)
        if method == "OPTIONS":
            return self._ok()
        transport = query.get("transport", [""])[0]
        if transport not in self.transports:
            return _refusal(*_UNKNOWN_TRANSPORT)
        if query.get("EIO") != [PROTOCOL]:
            return _refusal(*_UNSUPPORTED_PROTOCOL)
        if (transport == "websocket") != (environ["asgi.scope"]["type"] == "websocket"):
            return _refusal(*_BAD_REQUEST)
        if "sid" not in query:
            return await self._handle_connect(environ, transport) if method == "GET" else _refusal(*_BAD_HANDSHAKE)
        socket = self.sockets.get(query["sid"][0])
        if socket is None or socket.over or not socket.connected:
            return _refusal(*_UNKNOWN_SESSION)
        if transport == "websocket" and (socket.upgraded or socket.upgrading):
            return await _close_websocket(environ)
        if socket.upgraded or (transport == "websocket" and not self.allow_upgrades):
            return _refusal(*_BAD_REQUEST)
        return await self._converse(socket, method, environ)

    async def _converse(self, socket: PollingSocket, method: str, environ: dict[str, Any]) -> Any:
        try:
            if method == "GET":
                packets = await socket.handle_get_request(environ)
                return self._ok(packets) if isinstance(packets, list) else packets
            if method == "POST":
                await socket.handle_post_request(environ)
                return self._ok()
        except ContentTooLongError:
            return _refusal(*_BAD_REQUEST, status="413 CONTENT TOO LARGE")
        except EngineIOError as error:
            logger.debug("a request of connection %s is refused: %s", socket.sid, error)
        return _refusal(*_BAD_REQUEST)

    async def _trigger_event(self, event: str, *args: Any, run_async: bool = False) -> Any:
        """See the library, whose way takes several functions more, and looks at each handler anew."""
        handler = self.handlers.get(event)
        if handler is None:
            return None
        try:
            answer = handler(*args)
            return await answer if isawaitable(answer) else answer
        except Exception:
            logger.exception("the handler of %s failed", event)
            return False if event == "connect" else None

    def _origin_may(self, environ: dict[str, Any]) -> bool:
        if self.cors_allowed_origins == [] or "HTTP_ORIGIN" not in environ:
            return True
        allowed = self._cors_allowed_origins(environ)
        return allowed is None or environ["HTTP_ORIGIN"] in allowed

    def _ok(self, packets: Any = None, headers: Any = None, jsonp_index: Any = None) -> dict[str, Any]:
        """`ok`, or the packets of a poll (Engine.IO 4, sending and receiving data)."""
        return {
            "status": "200 OK",
            "headers": [("Content-Type", "text/plain; charset=UTF-8"), ("Cache-Control", "no-store")],
            "response": b"ok" if packets is None else encode_payload(packets),
        }

    def _compress(self, response: dict[str, Any], environ: dict[str, Any]) -> None:
        if not self.http_compression or len(response["response"]) < self.compression_threshold:
            return
        accepted = {part.split(";")[0].strip() for part in environ.get("HTTP_ACCEPT_ENCODING", "").split(",")}
        if "gzip" in accepted:
            response["response"] = self._gzip(response["response"])
            response["headers"].append(("Content-Encoding", "gzip"))

    async def _make_response(self, response: dict[str, Any], environ: dict[str, Any]) -> None:
        kind = "http.response"
        if environ["asgi.scope"]["type"] == "websocket":
            if "websocket.http.response" not in environ["asgi.scope"].get("extensions", {}):
                await environ["asgi.send"]({"type": "websocket.close"})
                return
            kind = "websocket.http.response"
        headers = [(name.encode(), value.encode()) for name, value in response["headers"] + self._cors_headers(environ)]
        status = int(response["status"].split()[0])
        await environ["asgi.send"]({"type": f"{kind}.start", "status": status, "headers": headers})
        await environ["asgi.send"]({"type": f"{kind}.body", "body": response["response"]})


def _environ(scope: dict[str, Any], receive: Any, send: Any, first: dict[str, Any]) -> dict[str, Any]:
    """A request in WSGI's names (PEP 3333), as python-engineio has it: as much of it as anybody looks at."""
    environ = {
        "REQUEST_METHOD": scope.get("method", "GET"),
        "QUERY_STRING": scope["query_string"].decode(errors="replace"),
        "asgi.scope": scope,
        "asgi.receive": receive,
        "asgi.send": send,
        FIRST: first,
    }
    for name, value in scope["headers"]:
        key = _HEADERS.get(name)
        if key is not None:
            text = value.decode(errors="replace")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
    environ["wsgi.url_scheme"] = environ.get("HTTP_X_FORWARDED_PROTO", "http")
    return environ


def too_many(error: RateLimited) -> dict[str, Any]:
    """The answer to a handshake beyond the limits (RFC 6585 §4)."""
    answer = _refusal(*_FORBIDDEN, status="429 TOO MANY REQUESTS")
    answer["response"] = json.dumps({"code": _FORBIDDEN[0], "message": error.message}).encode()
    answer["headers"].append(("Retry-After", str(error.details.get("retry_after", 1))))
    return answer


def _refusal(code: int, message: str, *, status: str = "400 BAD REQUEST") -> dict[str, Any]:
    return {
        "status": status,
        "headers": [("Content-Type", "application/json")],
        "response": json.dumps({"code": code, "message": message}).encode(),
    }


async def _close_websocket(environ: dict[str, Any]) -> None:
    """A second WebSocket of one session (Engine.IO 4, WebSocket): closed, not refused."""
    await environ["asgi.send"]({"type": "websocket.accept"})
    await environ["asgi.send"]({"type": "websocket.close"})


async def _read_body(environ: dict[str, Any], limit: int) -> bytes:
    """The whole body of a POST, of which the driver has taken the first part.

    Raises:
        ContentTooLongError: it has more than `limit` bytes.
        EngineIOError: the client left before it was complete.
    """
    try:
        return await read_body(environ["asgi.receive"], first=environ[FIRST], limit=limit, timeout=BODY_WITHIN)
    except PayloadTooLarge as error:
        raise ContentTooLongError from error
    except (InvalidRequest, RequestTimeout) as error:
        raise EngineIOError(error.message) from error


async def _until_left(receive: Callable[[], Awaitable[dict[str, Any]]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
