"""Does the machine's I/O on the running event loop: HTTP, connections, storage, the application's token."""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from gapless.client.connect import TransportName
from gapless.client.hybrid.doors import ListeningDoor, offer_of
from gapless.client.hybrid.errors import NotAGateway, TokenFailed, cause_of
from gapless.client.hybrid.keeper import Keeper
from gapless.client.hybrid.process import Later, Scheduler, nothing
from gapless.client.hybrid.status import Status
from gapless.client.hybrid.world import Description, Listener, Offer, Page
from gapless.client.model import ClientEvent, Published
from gapless.errors import GaplessError

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger("gapless.client")

Token = str | Callable[[], str | Awaitable[str | None] | None] | None
"""A token, or how to get one."""

_SLEPT = 5.0
"""Seconds by which the clock on the wall is ahead of the loop's after the machine slept."""

_JSON = {"Content-Type": "application/json"}


class Sink:
    """What the shell tells the client; all do nothing here."""

    def told(self, status: Status) -> None:
        """The status changed."""

    def failed(self, error: GaplessError, room: str | None) -> None:
        """An error that belongs to no call."""

    def sent(self, identity: str, outcome: Published | GaplessError) -> None:
        """A publication of an earlier life has its answer."""


class Shell:
    """`World` on asyncio.

    Args:
        url: the gateway.
        mqtt_url: its MQTT server, in place of what it offers.
        token: what the application gave.
        scheduler: the machine's, set once there is one.
    """

    scheduler: Scheduler

    def __init__(
        self, url: str, *, mqtt_url: str | None, token: Token, tls: ssl.SSLContext | None, keeper: Keeper, sink: Sink
    ) -> None:
        self._url = url
        self._mqtt_url = mqtt_url
        self._token = token
        self._tls = tls
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._http = self._make_http()
        self._timer: asyncio.TimerHandle | None = None
        self._drift = self._clock_drift()
        self.on_wake: Callable[[], None] = lambda: None
        self.told = sink.told
        self.failed = sink.failed
        self.sent = sink.sent

    # --- time

    def wake(self) -> None:
        """Let the machine do what is due, now and later."""
        self.scheduler.run()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.scheduler.due
        if due is not None:
            self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        drift = self._clock_drift()
        slept, self._drift = drift - self._drift > _SLEPT, drift
        if slept:
            self.on_wake()
        self.wake()

    def _clock_drift(self) -> float:
        return time.time() - self._loop.time()

    # --- tasks

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> Later:
        """Run a coroutine as a task; see `doors.Start`."""
        task = self._loop.create_task(work, name=name)
        later = Later(on_abandon=lambda: nothing(task.cancel()))
        self._tasks.add(task)

        def done(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                later.cancel()
            elif (error := task.exception()) is not None:
                if not isinstance(error, GaplessError | OSError):
                    logger.warning("%s failed unexpectedly", name, exc_info=error)
                later.fail(cause_of(error))
            else:
                later.resolve(task.result())
            self.wake()

        task.add_done_callback(done)
        return later

    async def close(self) -> None:
        """End what is under way; the machine was closed before."""
        if self._timer is not None:
            self._timer.cancel()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await self._http.aclose()
        await self._keeper.close()

    # --- the gateway

    def describe(self, rooms: Sequence[str], token: str | None) -> Later:
        """See `World`."""
        query = {"partial": "1"} | ({"rooms": ",".join(rooms)} if rooms else {})
        return self.start(self._ask("/api/connect", query, token, Description), "gapless-describe")

    def history(self, rooms: Sequence[str], after: str, limit: int, token: str | None) -> Later:
        """See `World`."""
        query = {"rooms": ",".join(rooms), "after": after, "limit": str(limit)}
        return self.start(self._page(query, token), "gapless-history")

    async def _page(self, query: dict[str, str], token: str | None) -> Page:
        page = await self._ask("/api/events", query, token, _WirePage)
        return Page(tuple(map(ClientEvent.from_envelope, page.events)), page.position, page.complete)

    def presence(self, room: str, token: str | None) -> Later:
        """See `World`."""
        return self.start(self.ask("/api/presence", {"room": room}, token), "gapless-presence")

    def publish(self, bodies: Sequence[bytes], token: str | None) -> Later:
        """See `World`."""
        return self.start(self._publish(b"[" + b",".join(bodies) + b"]", token), "gapless-publish")

    async def _publish(self, body: bytes, token: str | None) -> list[Published]:
        from gapless.client.http import decode_answer, wire_errors

        with wire_errors(self._url):
            answer = await self._http.post("/api/events", content=body, headers=_JSON | _bearer(token))
        published: _WirePublished = _convert(decode_answer(answer), _WirePublished)
        return published.events

    async def ask(self, path: str, query: dict[str, str], token: str | None) -> Any:
        """GET: the JSON of the answer."""
        from gapless.client.http import decode_answer, wire_errors

        with wire_errors(self._url):
            answer = await self._http.get(path, params=query, headers=_bearer(token))
        return decode_answer(answer)

    async def _ask(self, path: str, query: dict[str, str], token: str | None, kind: type[Any]) -> Any:
        return _convert(await self.ask(path, query, token), kind)

    def _make_http(self) -> httpx.AsyncClient:
        from gapless.client.http import make_client  # late: it takes its time

        # The machine bounds every request by itself.
        return make_client(self._url, None, read_timeout=60.0, tls=self._tls)

    def token(self) -> Later:
        """See `World`."""
        return self.start(self.ask_token(), "gapless-token")

    async def ask_token(self) -> str | None:
        """Ask the application.

        Raises:
            TokenFailed: it failed.
        """
        if self._token is None or isinstance(self._token, str):
            return self._token
        try:
            token = self._token()
            return (await token if inspect.isawaitable(token) else token) or None
        except Exception as error:
            raise TokenFailed(
                f"token failed: {type(error).__name__}: {error}",
                hint="asked again by and by; to open a client without a token, name its user",
            ) from error

    # --- connections

    def can(self, transport: TransportName, offers: Sequence[Offer]) -> bool:
        """See `World`."""
        return self._offer(transport, offers) is not None

    def connection(
        self, transport: TransportName, offers: Sequence[Offer], token: str | None, listener: Listener
    ) -> ListeningDoor:
        """See `World`."""
        return ListeningDoor(
            transport,
            url=self._url,
            mqtt_url=self._mqtt_url or (self._offer("mqtt", offers) or Offer("mqtt", "")).url,
            token=token,
            tls=self._tls,
            listener=listener,
            start=self.start,
            settled=self.wake,
        )

    def _offer(self, transport: TransportName, offers: Sequence[Offer]) -> Offer | None:
        return offer_of(transport, offers, secure=self._url.startswith("https"))

    # --- storage

    def keep_cursor(self, position: str) -> None:
        """See `World`."""
        self._keeper.keep_cursor(position)

    def forget(self, ids: Sequence[str]) -> None:
        """See `World`."""
        self._keeper.forget(ids)


class _WirePage(msgspec.Struct, frozen=True):
    events: list[dict[str, Any]]
    position: str
    complete: bool


class _WirePublished(msgspec.Struct, frozen=True):
    events: list[Published]


def _convert(answer: object, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise NotAGateway(f"the answer is in another form: {error}", hint="is this a Gapless gateway's URL?") from error


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}
