"""Paths, and what serves one: dispatch by method, and every failure as the error body."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from gapless.errors import GaplessError, Unauthorized
from gapless.transports.http.errors import MethodNotAllowed, NotFound
from gapless.transports.http.request import Request

logger = logging.getLogger("gapless.http")

Handler = Callable[[Request], Awaitable[None]]

encode = msgspec.json.Encoder().encode


class Endpoint:
    """An ASGI application for one path.

    Args:
        answers: counts the answers by status.
        handlers: by method. GET serves HEAD too where `head`.
        head: off for answers that never end or wait.
    """

    def __init__(self, answers: Counter[int], handlers: Mapping[str, Handler], *, head: bool = True) -> None:
        self._answers = answers
        self._handlers = dict(handlers)
        if head and "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._allow = ", ".join(sorted(self._handlers)).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        request = Request(scope, receive, send)
        handler = self._handlers.get(request.method)
        try:
            if handler is None:
                await self._refuse_method(request)
            else:
                await handler(request)
        except GaplessError as error:
            if request.status:
                raise  # too late to tell the client: a defect
            await refuse(request, error)
        except Exception as error:
            if request.status:
                raise
            logger.exception("%s %s failed", request.method, scope["path"])
            await refuse(request, _internal(error))
        finally:
            self._answers[request.status] += 1

    async def _refuse_method(self, request: Request) -> None:
        error = MethodNotAllowed(
            f"{request.scope['path']} does not take {request.method[:20]}", hint=f"use {self._allow.decode()}"
        )
        await refuse(request, error, ((b"allow", self._allow),))


async def refuse(request: Request, error: GaplessError, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Answer with the error's status and `{"error": {code, message, retryable, hint?, details?}}`."""
    headers = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"), *extra]
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b'Bearer realm="gapless"'))  # RFC 9110 §11.6.1
    headers += retry_after(error)
    await request.answer(error.http_status, encode({"error": error.to_wire()}), headers=headers)


def retry_after(error: GaplessError) -> Iterable[tuple[bytes, bytes]]:
    """The header that says when to come again (RFC 9110 §10.2.3), in seconds."""
    return ((b"retry-after", b"%d" % error.details.get("retry_after", 1)),) if error.retryable else ()


class Paths:
    """An ASGI application that hands each request to the one that serves its path.

    Args:
        doors: of HTTP, by path.
        sockets: of WebSockets, by path.
        below: of both, by the path under which they serve all.
    """

    def __init__(
        self,
        doors: Mapping[str, ASGIApp],
        *,
        sockets: Mapping[str, ASGIApp] | None = None,
        below: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        self._by_type = {"http": doors, "websocket": sockets or {}}
        self._below = [(path.rstrip("/") + "/", app) for path, app in (below or {}).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        path = scope["path"]
        app = self._by_type[scope["type"]].get(path)
        if app is None:
            app = next((app for prefix, app in self._below if f"{path}/".startswith(prefix)), _not_found)
        await app(scope, receive, send)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        return
    error = NotFound(f"no such path: {scope['path'][:200]}", hint="see /docs for the paths there are")
    await refuse(Request(scope, receive, send), error)


def _internal(cause: Exception) -> GaplessError:
    error = GaplessError("the gateway failed on this request", hint="its log says why")
    error.__cause__ = cause
    return error
