"""Hearing and publishing events over Socket.IO, with the stock python-socketio client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
import engineio
import msgspec
import socketio
from socketio import exceptions

from gapless.client.http import CONNECT_TIMEOUT, error_of, is_loopback
from gapless.client.model import (
    Alive,
    ClientEvent,
    ConnectionLost,
    Heard,
    Hole,
    Outgoing,
    PresenceTold,
    Published,
    Refused,
    Revoked,
    Subscribed,
    Target,
)

_ANSWER_TIMEOUT = 30.0
_QUEUE_LIMIT = 10_000
_WINDOW = 64
_INCOMPLETE = "gapless:incomplete"
_UNAUTHORIZED = "gapless:unauthorized"
_REVOKED = "gapless:revoked"
_PRESENCE = ("gapless:presence", "gapless:present")
_OVERFLOW = "events came faster than they were read"


class _EngineIo(engineio.AsyncClient):  # type: ignore[misc]
    """The stock client, which tells of every packet: pings are signs of life."""

    on_packet: Callable[[], None] = staticmethod(lambda: None)

    async def _receive_packet(self, packet: Any) -> None:
        self.on_packet()
        await super()._receive_packet(packet)


class _SocketIo(socketio.AsyncClient):  # type: ignore[misc]
    def _engineio_client_class(self) -> type[_EngineIo]:
        return _EngineIo


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
        client = _SocketIo(reconnection=False, handle_sigint=False, http_session=http)
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

    heartbeat = 25.0
    """Seconds between two pings of the server, which are signs of life."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._client: Any = None

    async def listen(self, after: str | None) -> AsyncGenerator[Heard, None]:
        """See `Connection.listen`."""
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        refusals: list[ConnectionLost | Refused] = []
        arrived: asyncio.Queue[Heard | None] = asyncio.Queue(_QUEUE_LIMIT + 1)

        def packet() -> None:
            if arrived.empty() and not lost.done():
                arrived.put_nowait(Alive())

        def take(event: str, *arguments: Any) -> None:
            if lost.done():
                return
            if arrived.qsize() >= _QUEUE_LIMIT:
                lost.set_result(_OVERFLOW)
                return
            if event == _UNAUTHORIZED:
                refusals.append(error_of(arguments[0] if arguments else None, "the token has ended"))
            signal = _signal_of(event, arguments)
            if signal is not None:
                arrived.put_nowait(signal)

        lost.add_done_callback(lambda _: arrived.put_nowait(None))
        async with _session(self._target.url, self._target.token, lost, self._target.tls) as client:
            client.on("*", take)
            client.eio.on_packet = packet
            self._client = client
            async for signal in self._subscribe(after):
                yield signal
            while (news := await arrived.get()) is not None:
                yield news
            raise refusals[0] if refusals else ConnectionLost(f"Socket.IO: {lost.result()}")

    async def _subscribe(self, after: str | None) -> AsyncGenerator[Heard, None]:
        if not self._target.rooms:
            yield Subscribed(after)
            return
        request: dict[str, Any] = {"rooms": list(self._target.rooms)}
        if after is not None:
            request["after"] = after
        answer = await _call(self._client, "subscribe", request)
        position = answer.get("position")
        yield Subscribed(after or position)
        if answer.get("complete") is False:
            yield Hole(position)

    # --- while it is listened to

    async def join(self, rooms: Iterable[str]) -> None:
        """Hear further rooms, from now on."""
        await _call(self._client, "subscribe", {"rooms": list(rooms)})

    async def leave(self, rooms: Iterable[str]) -> None:
        """Hear these no more."""
        await _call(self._client, "unsubscribe", {"rooms": list(rooms)})

    async def ping(self) -> None:
        """Wait for an answer of the server."""
        await _call(self._client, "gapless:ping", {})

    async def presence(self, room: str, *, live: bool) -> dict[str, Any]:
        """Who is in a room; `live`: and to be told of changes, or no more."""
        return await _call(self._client, "presence", {"rooms": [room], "live": live})

    async def renew(self, token: str) -> None:
        """Go on with a fresh token of the same user."""
        await _call(self._client, "authenticate", {"token": token})


def _signal_of(event: str, arguments: tuple[Any, ...]) -> Hole | Revoked | PresenceTold | ClientEvent | None:
    if event == _INCOMPLETE:
        about = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
        return Hole(about.get("position"))
    if event == _REVOKED:
        about = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
        return Revoked(tuple(map(str, about.get("rooms", ()))))
    if event in _PRESENCE:
        about = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
        return PresenceTold(event, about)
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
