"""What every request and WebSocket passes before it is served: whose page it comes from, by which name, how often.

A browser lets any page send requests to any server, also to one on its own machine or behind its
firewall. Two headers that no page can forge tell them apart: `Origin`, the page's own (RFC 6454), and
`Host`, the name by which the server was found. A page whose name was made to point at this gateway
(DNS rebinding) is of the own origin for the browser; only its `Host` gives it away.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import lru_cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gapless.errors import Forbidden, GaplessError, RateLimited
from gapless.limits import FREE, Limiter, Networks, Visit, forwarded_address
from gapless.transports.http.endpoint import encode, refuse, retry_after
from gapless.transports.http.errors import WrongHost
from gapless.transports.http.options import HttpOptions
from gapless.transports.http.request import VISIT, Request
from gapless.transports.lending import SCOPE_KEY

logger = logging.getLogger("gapless.http")

_SECURE = ("https", "wss")
_NAMES = 256
"""Names that were found good, and are not looked at again."""
_PORTS = {"http": "80", "https": "443"}


class Front:
    """An ASGI application before the others.

    Args:
        app: what is behind it.
        only_local: whether the gateway is open to everybody who reaches it, and only this machine is to:
            then a request must name it as a local one, unless `http.hosts` says otherwise.

    Attributes:
        refused: what was refused here, by error code.
    """

    def __init__(self, app: ASGIApp, *, options: HttpOptions, limiter: Limiter, only_local: bool = False) -> None:
        self.refused: Counter[str] = Counter()
        self._limiter = limiter
        self._proxies = Networks(options.trusted_proxies, setting="http.trusted_proxies")
        self._names = Names(options, only_local=only_local)
        self._app = app
        if options.origins:
            self._app = CORSMiddleware(
                app,
                allow_origins=options.origins,
                allow_methods=("GET", "POST"),
                allow_headers=("authorization", "content-type", "last-event-id"),
                expose_headers=("retry-after",),
                max_age=3600,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        visit: Visit = FREE
        forwarded = False
        try:
            headers = _headers(scope)
            raw = scope.get("extensions", {}).get(SCOPE_KEY)
            if raw is not None:
                visit = raw.visit
            if self._proxies and (address := self._forwarded(scope, headers)) is not None:
                visit = self._limiter.visit(address)
                forwarded = True
                self._count(visit, raw if scope["type"] == "websocket" else None)
            self._names.check(scope, headers)
            visit.check()
            visit.spend(1)
        except GaplessError as error:
            self.refused[error.code] += 1
            if forwarded:
                visit.leave()
            await answer_refusal(scope, receive, send, error)
            return
        if not forwarded:
            await self._app(scope, receive, send)
            return
        scope.setdefault("extensions", {})[VISIT] = visit
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] != "websocket" or raw is None:  # else it leaves with its connection
                visit.leave()

    def _forwarded(self, scope: Scope, headers: dict[bytes, bytes]) -> str | None:
        """The address for which a trusted proxy speaks; the scope then says it, and the scheme too."""
        client = scope.get("client")
        if not client or client[0] not in self._proxies:
            return None
        if b"x-forwarded-proto" in headers:
            secure = headers[b"x-forwarded-proto"].strip().lower() in (b"https", b"wss")
            web = scope["type"] == "websocket"
            scope["scheme"] = ("wss" if secure else "ws") if web else ("https" if secure else "http")
        address = forwarded_address(headers.get(b"x-forwarded-for", b"").decode("latin-1"), self._proxies)
        if address is not None:
            scope["client"] = (address, 0)
        return address

    @staticmethod
    def _count(visit: Visit, raw: Any) -> None:
        entered = visit.enter()
        if raw is not None:
            raw.visit.leave()
            raw.visit = visit
        visit.admit()
        if not entered:
            raise RateLimited("too many connections for one address")


class Names:
    """The names and origins that this gateway answers to."""

    def __init__(self, options: HttpOptions, *, only_local: bool) -> None:
        self._checked = bool(options.hosts) or only_local
        self._hosts = frozenset(name.lower() for name in options.hosts if not name.startswith("*."))
        self._below = (".localhost", *(name[1:].lower() for name in options.hosts if name.startswith("*.")))
        self._admit_host = lru_cache(_NAMES)(self._check_host)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in options.origins)
        if options.public_url is not None:
            public = urlsplit(options.public_url)
            self._hosts |= {public.hostname or ""}
            self._origins |= {f"{public.scheme}://{public.netloc}".lower()}

    def check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Refuse what another name or another site's page leads here.

        Raises:
            WrongHost: the `Host` is none of this gateway's.
            Forbidden: the page is of an origin that is not allowed.
        """
        host = headers.get(b"host", b"").decode("latin-1").strip().lower()
        if self._checked and host:
            self._admit_host(host)
        origin = headers.get(b"origin")
        if origin is not None:
            self._check_origin(origin.decode("latin-1").strip().lower(), host, scope.get("scheme", "http"))

    def _check_host(self, host: str) -> None:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.rstrip(".")
        if name == "localhost" or name in self._hosts or name.endswith(self._below):
            return
        if not _is_address(name):  # an address cannot be made to point elsewhere
            raise WrongHost(f"this gateway is not {name[:100]!r}", hint="add the name to http.hosts on the gateway")

    def _check_origin(self, origin: str, host: str, scheme: str) -> None:
        if "*" in self._origins or origin in self._origins:
            return
        theirs, _, authority = origin.partition("://")
        # Behind a proxy that ends TLS the page is https and the request is not; the other way is an attack.
        downgraded = scheme in _SECURE and theirs == "http"
        if (
            theirs in _PORTS
            and host
            and not downgraded
            and _without_port(authority, theirs) == _without_port(host, theirs)
        ):
            return
        message = f"pages of the origin {origin[:100]!r} may not use this gateway"
        raise Forbidden(message, hint="add it to http.origins on the gateway")


async def answer_refusal(scope: Scope, receive: Receive, send: Send, error: GaplessError) -> None:
    """Answer a request or a WebSocket handshake with an error."""
    if scope["type"] == "http":
        await refuse(Request(scope, receive, send), error)
    elif "websocket.http.response" in scope.get("extensions", {}):
        headers = [(b"content-type", b"application/json"), *retry_after(error)]
        await send({"type": "websocket.http.response.start", "status": error.http_status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": encode({"error": error.to_wire()})})
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": ""})


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])


def _without_port(authority: str, scheme: str) -> str:
    return authority.removesuffix(":" + _PORTS[scheme])


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
