"""Hearing and publishing events over Socket.IO, with the stock python-socketio client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
import msgspec
import socketio
from socketio import exceptions

from gapless.client.http import CONNECT_TIMEOUT, error_of, is_loopback
from gapless.client.model import (
    ClientEvent,
    ConnectionLost,
    Heard,
    Hole,
    Outgoing,
    Published,
    Refused,
    Subscribed,
    Target,
)

_ANSWER_TIMEOUT = 30.0
_QUEUE_LIMIT = 10_000
_WINDOW = 64
_INCOMPLETE = "gapless:incomplete"
_OVERFLOW = "events came faster than they were read"


@asynccontextmanager
async def _session(
    url: str, token: str | None, lost: asyncio.Future[str], tls: ssl.SSLContext | None
) -> AsyncGenerator[Any, None]:
    """A connected stock client over WebSocket; `lost` gets the reason when it ends by itself."""

    def end(reason: object) -> None:
        if not lost.done():
            lost.set_result(str(reason))

    refusals: list[object] = []
    connector = aiohttp.TCPConnector(ssl=True if tls is None else tls)
    async with aiohttp.ClientSession(connector=connector, trust_env=not is_loopback(url)) as http:
        # The client would take over Ctrl-C and reconnect by itself, at the wrong position.
        client = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=http)
        client.on("disconnect", end)
        client.on("connect_error", refusals.append)
        auth = {} if token is None else {"token": token}
        try:
            await client.connect(url, auth=auth, transports=["websocket"], wait_timeout=CONNECT_TIMEOUT)
        except exceptions.ConnectionError as error:
            reason = next((refusal for refusal in refusals if isinstance(refusal, dict)), None)
            if reason is not None:
                raise error_of(_details(reason), "the server refused the Socket.IO connection") from error
            raise ConnectionLost(f"{url}: {_why(error)}") from error
        try:
            yield client
        finally:
            await client.disconnect()


def _why(error: BaseException) -> str:
    """What python-engineio keeps as the cause says more than its "Connection error"."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error)


def _details(refusal: dict[str, Any]) -> object:
    """The server's error: as it is, or as `data` beside a message, as JavaScript clients read it."""
    data = refusal.get("data")
    return data if isinstance(data, dict) else refusal


async def _call(client: Any, event: str, argument: dict[str, Any]) -> dict[str, Any]:
    """An acknowledged request.

    Raises:
        Refused: the answer is `{ok: false, error}`.
    """
    try:
        answer = await client.call(event, argument, timeout=_ANSWER_TIMEOUT)
    except exceptions.TimeoutError as error:
        raise ConnectionLost(f"the server did not answer to {event!r}") from error
    except exceptions.SocketIOError as error:
        raise ConnectionLost(f"the connection was lost: {error}") from error
    if not isinstance(answer, dict):
        raise Refused(f"the server's answer to {event!r} is in another form", hint="is this a Gapless gateway?")
    if answer.get("ok") is not True:
        raise error_of(answer, f"the server refused {event!r}")
    return answer


class SocketIoConnection:
    """The Socket.IO door, over WebSocket.

    The stock client cannot be told to stop reading; where the caller is more than 10,000
    events behind, the connection is given up, to be resumed from the cursor.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    async def listen(self, after: str | None) -> AsyncGenerator[Heard, None]:
        """See `Connection.listen`."""
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        arrived: asyncio.Queue[Hole | ClientEvent | None] = asyncio.Queue(_QUEUE_LIMIT + 1)

        def take(event: str, *arguments: Any) -> None:
            if lost.done():
                return
            if arrived.qsize() >= _QUEUE_LIMIT:
                lost.set_result(_OVERFLOW)
                return
            signal = _signal_of(event, arguments)
            if signal is not None:
                arrived.put_nowait(signal)

        lost.add_done_callback(lambda _: arrived.put_nowait(None))
        async with _session(self._target.url, self._target.token, lost, self._target.tls) as client:
            client.on("*", take)
            request: dict[str, Any] = {"rooms": list(self._target.rooms)}
            if after is not None:
                request["after"] = after
            answer = await _call(client, "subscribe", request)
            position = answer.get("position")
            yield Subscribed(after or position)
            if answer.get("complete") is False:
                yield Hole(position)
            while (signal := await arrived.get()) is not None:
                yield signal
            raise ConnectionLost(f"Socket.IO: {lost.result()}")


def _signal_of(event: str, arguments: tuple[Any, ...]) -> Hole | ClientEvent | None:
    if event == _INCOMPLETE:
        about = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
        return Hole(about.get("position"))
    if len(arguments) < 2 or not isinstance(arguments[1], dict):
        return None  # not one of the gateway's events
    data, meta = arguments[:2]
    position = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], str) else None
    return ClientEvent(
        id=meta.get("id"),
        type=event,
        topic=str(meta.get("topic", "")),
        data=data,
        time=meta.get("time"),
        user_id=meta.get("userId"),
        position=position,
    )


class SocketIoPublisher:
    """The event `publish`, up to 64 unacknowledged at a time, in order."""

    def __init__(self, url: str, token: str | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._token = token
        self._tls = tls
        self._lost: asyncio.Future[str] | None = None
        self._entered: Any = None
        self._client: Any = None

    async def __aenter__(self) -> Self:
        self._lost = asyncio.get_running_loop().create_future()
        self._entered = _session(self._url, self._token, self._lost, self._tls)
        self._client = await self._entered.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._entered.__aexit__(None, None, None)

    async def publish(self, events: Sequence[Outgoing]) -> list[Published]:
        """See `Publisher.publish`."""
        published: list[Published] = []
        for start in range(0, len(events), _WINDOW):
            published += await self._publish_window(events[start : start + _WINDOW])
        return published

    async def _publish_window(self, events: Sequence[Outgoing]) -> list[Published]:
        assert self._lost is not None, "use it as a context manager"
        answers: list[Any] = [None] * len(events)
        missing = len(events)
        done = asyncio.Event()

        def answered(index: int, answer: Any) -> None:
            nonlocal missing
            answers[index] = answer
            missing -= 1
            if not missing:
                done.set()

        try:
            for index, event in enumerate(events):
                await self._client.emit(
                    "publish", event.to_wire(), callback=lambda answer=None, index=index: answered(index, answer)
                )
        except exceptions.SocketIOError as error:
            raise ConnectionLost(f"the connection was lost: {error}") from error
        waiting = asyncio.ensure_future(done.wait())
        either: set[asyncio.Future[Any]] = {waiting, self._lost}
        await asyncio.wait(either, timeout=_ANSWER_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            reason = self._lost.result() if self._lost.done() else "the server did not acknowledge in time"
            raise ConnectionLost(f"Socket.IO: {reason}")
        return [_published(answer) for answer in answers]


def _published(answer: Any) -> Published:
    if not isinstance(answer, dict) or answer.get("ok") is not True:
        raise error_of(answer, "the server refused the event")
    return msgspec.convert(answer, Published)
