"""One HTTP request, read strictly, and its answer: shared by REST, long poll and SSE.

The doors speak ASGI without a framework's request object in between: a poll, a stream and
a publish cost what they must, and a body is never read past its bound.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import cache
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from gapless.auth import Credentials, Gate, Identity, Operation
from gapless.errors import InvalidPosition, InvalidRequest, NotDecided, Unauthorized
from gapless.event import Position
from gapless.limits import FREE, Visit
from gapless.topicmap import TopicMap
from gapless.transports.body import read_body, too_large
from gapless.transports.lending import SCOPE_KEY, header_lines, peer_of
from gapless.transports.raw_http import LendingHttp
from gapless.transports.tls import peer_certificate

START = "start"
"""The value of `after` that means: from the oldest event kept."""

JSON = b"application/json"
VISIT = "gapless.visit"
"""Where the scope's extensions say what a request counts as, when its connection is a proxy's."""
_PIECE = 64 << 10
"""Bytes of a long answer written at once: what a client that does not read holds here, beside its socket's buffer."""
_PLAIN_HEADERS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))

Headers = Sequence[tuple[bytes, bytes]]


class Request:
    """A request and the way back.

    Attributes:
        scope: the ASGI scope.
        status: the status answered; 0 before.
        identity: whom the gate let in, after `identify`.
    """

    __slots__ = ("_query", "_receive", "_send", "_shown", "identity", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.status = 0
        self.identity = Identity()
        self._receive = receive
        self._send = send
        self._query: dict[str, list[str]] | None = None
        self._shown: tuple[Gate, Credentials] | None = None

    @property
    def raw(self) -> LendingHttp | None:
        """The connection, where the server lends it."""
        raw = self.scope.get("extensions", {}).get(SCOPE_KEY)
        return raw if isinstance(raw, LendingHttp) else None

    @property
    def method(self) -> str:
        """`GET`, `POST`, …"""
        return str(self.scope["method"])

    def header(self, name: bytes) -> str | None:
        """The first header of a name (in lower case), or None."""
        for key, value in self.scope["headers"]:
            if key == name:
                return bytes(value).decode("latin-1")
        return None

    # --- the query

    def values(self, name: str) -> list[str]:
        """All values of a query parameter.

        Raises:
            InvalidRequest: the query is not UTF-8, or has far too many parameters.
        """
        if self._query is None:
            self._query = _parse_query(self.scope["query_string"])
        return self._query.get(name, [])

    def value(self, name: str) -> str | None:
        """The value of a query parameter, None where it is absent.

        Raises:
            InvalidRequest: it is there more than once.
        """
        values = self.values(name)
        if len(values) > 1:
            raise InvalidRequest(f"the query has {name} {len(values)} times", hint="give it once", parameter=name)
        return values[0] if values else None

    def integer(self, name: str, *, default: int, maximum: int) -> int:
        """A count of at least 1; one over `maximum` is taken as `maximum`."""
        text = self.value(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
            raise InvalidRequest(f"{name} is {text[:40]!r}", hint="use a whole number from 1 on", parameter=name)
        return min(int(text), maximum)

    def seconds(self, name: str, *, maximum: float) -> float:
        """A duration in seconds, 0 where it is absent; one over `maximum` is taken as `maximum`."""
        text = self.value(name)
        if text is None:
            return 0.0
        try:
            number = float(text) if text.isascii() else math.nan
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise InvalidRequest(f"{name} is {text[:40]!r}", hint="use seconds, such as 25", parameter=name)
        return min(number, maximum)

    def flag(self, name: str) -> bool:
        """A switch: absent, `0` and `false` are off; `1`, `true` and nothing at all are on."""
        text = self.value(name)
        if text in (None, "0", "false"):
            return False
        if text in ("", "1", "true"):
            return True
        raise InvalidRequest(f"{name} is {text[:40]!r}", hint="use 1 or 0", parameter=name)

    def after(self, text: str | None) -> Position | str | None:
        """A position, `START`, or None where it is absent.

        Raises:
            InvalidPosition: it is something else. (Nothing at all is not taken as absent: it
                would skip history silently.)
        """
        if text is None or text == START:
            return text
        if not text:
            raise InvalidPosition("the position is empty", hint="leave 'after' out to start now, or use 'start'")
        return Position.parse(text)

    # --- who asks

    def token(self, *, query: bool = False) -> str | None:
        """The Bearer token (RFC 6750 §2.1), or, where `query`, the parameter `token`.

        Raises:
            Unauthorized: another scheme than Bearer.
        """
        header = self.header(b"authorization")
        if header is None:
            return self.value("token") if query else None
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("the Authorization header is not a Bearer token", hint="Authorization: Bearer <token>")
        return token.strip()

    @property
    def address(self) -> str | None:
        """Where the client is: its network address, without the port."""
        client = self.scope.get("client")
        return client[0] if client else None

    async def identify(self, gate: Gate, *, door: str, token_in_query: bool = False) -> Identity:
        """Whom the gate lets in. It counts as a request of the user.

        Raises:
            Unauthorized: the token is absent or wrong.
            RateLimited: the user asks too much.
        """
        raw = self.raw
        credentials = Credentials(
            token=self.token(query=token_in_query),
            certificate=None if raw is None else peer_certificate(raw.transport),
            address=self.address,
            door=door,
            connection=peer_of(self.scope),
        )
        self._shown = gate, credentials
        self.identity = await gate.authenticate(credentials)
        self.visit().ask()
        return self.identity

    async def identify_again(self) -> None:
        """After the request had to wait: its access may have ended meanwhile.

        Raises:
            Unauthorized: it has.
        """
        if self._shown is not None:
            gate, credentials = self._shown
            self.identity = await gate.authenticate(credentials)

    def visit(self) -> Visit:
        """What this request counts as, for its user too; after `identify`."""
        extensions = self.scope.get("extensions", {})
        visit: Visit | None = extensions.get(VISIT)
        if visit is None:
            raw = extensions.get(SCOPE_KEY)
            visit = FREE if raw is None else raw.visit
        return visit.of(self.identity.user_id)

    async def require(self, gate: Gate, operation: Operation) -> Identity:
        """Whom the gate lets do what only those who run the gateway do.

        Raises:
            Unauthorized, Forbidden: the gate says no.
        """
        identity = await self.identify(gate, door=operation)
        gate.check_operate(identity, operation)
        return identity

    async def rooms(self, topic_map: TopicMap, gate: Gate, identity: Identity, *, maximum: int) -> frozenset[str]:
        """The rooms of the query (`rooms=a,b`, also repeated, and `room`), each known and allowed.

        Raises:
            InvalidRequest: too many.
            UnknownRoom: no event can be sent to one of them.
            Forbidden, Unauthorized: see `check_rooms`.
        """
        rooms = self.room_names(maximum=maximum)
        for room in sorted(rooms):
            topic_map.check_room(room)
        await self.check_rooms(gate, identity, rooms)
        return rooms

    async def check_rooms(self, gate: Gate, identity: Identity, rooms: frozenset[str]) -> None:
        """Whether all these rooms may be heard; the application is asked where that is needed.

        Raises:
            Forbidden: the identity may not hear one of them.
            Unauthorized: its access ended while the application was asked.
        """
        names = sorted(rooms)
        try:
            for room in names:
                gate.check_subscribe_room(identity, room)
        except NotDecided:
            await gate.prepare(identity, rooms=names)
            await self.identify_again()
            for room in names:
                gate.check_subscribe_room(identity, room)

    def room_names(self, *, maximum: int) -> frozenset[str]:
        """The rooms of the query as they are there, neither known nor allowed.

        Raises:
            InvalidRequest: too many.
        """
        values = (*self.values("rooms"), *self.values("room"))
        rooms = frozenset(room for value in values for room in value.split(",") if room)
        if len(rooms) > maximum:
            raise InvalidRequest(
                f"{len(rooms)} rooms are over the limit", hint="ask for fewer", size=len(rooms), limit=maximum
            )
        return rooms

    # --- the body

    async def body(
        self, limit: int, *, timeout: float = 10.0, grow: Callable[[int], None] = lambda size: None
    ) -> bytes:
        """The whole body, never holding more than `limit` bytes.

        Args:
            timeout: seconds within which it must come, and one more for each 16 KiB.
            grow: told the size of each piece before it is kept; may raise to refuse it.

        Raises:
            PayloadTooLarge: by its Content-Length, before anything is read, or once the limit
                is passed.
            InvalidRequest: the client went away in the middle of it.
            RequestTimeout: it did not come in time.
            Unauthorized: the access ended before it was all there.
        """
        announced = self.content_length()
        if announced > limit:
            raise too_large(announced, limit)
        if not self._is_whole:
            body = await read_body(self._receive, limit=limit, timeout=timeout, grow=grow)
            await self.identify_again()
            return body
        message = await self._receive()
        body = bytes(message.get("body", b""))
        if len(body) > limit:
            raise too_large(len(body), limit)
        grow(len(body))
        return body

    @property
    def _is_whole(self) -> bool:
        """Whether all of the body is here, as of most it is: then nobody needs to watch the time."""
        raw = self.raw
        cycle = None if raw is None else raw.cycle
        return cycle is not None and cycle.scope is self.scope and not cycle.more_body and not cycle.disconnected

    def content_length(self) -> int:
        """The announced size of the body in bytes; 0 where it is not announced."""
        text = self.header(b"content-length") or "0"
        return int(text) if text.isascii() and text.isdigit() else 0

    # --- the answer

    async def answer(self, status: int, body: bytes, *, content_type: bytes = JSON, headers: Headers = ()) -> None:
        """The whole answer at once."""
        raw = self.raw
        if raw is not None and not headers and raw.answer(self._send, status, _plain_head(content_type), body):
            self.status = status
            return
        described = [(b"content-type", content_type), *(headers or _PLAIN_HEADERS)]
        if status != 304:  # it would be that of the 200 (RFC 9110 §8.6)
            described.append((b"content-length", b"%d" % len(body)))
        await self.start(status, described)
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def answer_parts(self, parts: Sequence[bytes]) -> None:
        """A JSON answer of shared parts, joined and written no faster than the client reads."""
        size = sum(map(len, parts))
        await self.start(200, [(b"content-type", JSON), *_PLAIN_HEADERS, (b"content-length", b"%d" % size)])
        pieces: list[bytes] = []
        joined = 0
        for part in parts:
            if joined >= _PIECE:
                await self.write(b"".join(pieces))
                pieces.clear()
                joined = 0
            pieces.append(part)
            joined += len(part)
        await self.write(b"".join(pieces), more=False)

    async def start(self, status: int, headers: Headers) -> None:
        """Begin an answer of unknown length; `write` follows."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """A part of the answer. Waits while the client's socket is full."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def watch(self, gone: Callable[[], None]) -> asyncio.Task[None]:
        """Call `gone` once the client has closed the connection. Cancel the task when done."""
        return asyncio.create_task(self._watch(gone), name="http-disconnect")

    async def _watch(self, gone: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        gone()


@cache
def _plain_head(content_type: bytes) -> bytes:
    return header_lines(((b"content-type", content_type), *_PLAIN_HEADERS))


def _parse_query(raw: bytes) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1000)
    except (UnicodeDecodeError, ValueError) as error:
        raise InvalidRequest(
            "the query cannot be read", hint="percent-encode it as UTF-8 (RFC 3986 §2.1)", reason=str(error)
        ) from error
    query: dict[str, list[str]] = {}
    for name, value in pairs:
        query.setdefault(name, []).append(value)
    return query
