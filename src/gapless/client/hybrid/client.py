"""The hybrid client for asyncio."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack
from urllib.parse import urlsplit

from gapless.client.connect import TRANSPORTS, TransportName
from gapless.client.hybrid.bounds import Bounds
from gapless.client.hybrid.errors import Closed, NoAnswer, Offline
from gapless.client.hybrid.keeper import Keeper
from gapless.client.hybrid.machine import LADDER, Machine
from gapless.client.hybrid.members import Presence
from gapless.client.hybrid.options import EventOptions, OnError, OnSent
from gapless.client.hybrid.outbox import Entry, OutboxBounds
from gapless.client.hybrid.presence import Watch
from gapless.client.hybrid.process import Later
from gapless.client.hybrid.publication import Publication, encode_event, outcome_of
from gapless.client.hybrid.shell import Shell, Sink, Token
from gapless.client.hybrid.status import ConnectionState, Status
from gapless.client.hybrid.store import MemoryStore, SqliteStore, Store
from gapless.client.hybrid.subscription import Subscription
from gapless.client.hybrid.tokens import claims_of
from gapless.client.model import Published
from gapless.errors import ConfigError, GaplessError, InvalidRequest
from gapless.event import EventIds, Position

logger = logging.getLogger("gapless.client")


class Client(Sink):
    """Hears the events of rooms over whichever transport is alive: each once, in order; and publishes.

        async with Client("http://127.0.0.1:8080") as rt:
            async for event in rt.subscribe("lead:123"):
                print(event)

    It connects with the first subscription, by itself changes between transports, and never gives up.
    What it promises, and how it decides, is in docs/client-protocol.md.

    Args:
        url: the gateway, `http(s)://host:port`.
        token: what the gateway asks for: text, or a function (also a coroutine function) that gives one. It
            is asked again before the token ends.
        store: a file for cursor and outbox, or a `Store`; None keeps them in memory. One client at a time.
        user: whose cursor and outbox these are; default: the token's `sub`, else `anonymous`.
        after: where a client without a stored cursor begins: `now`, `start` (the oldest event kept) or a
            position. A position goes before the stored cursor: for an application that keeps its place itself.
        transports: the ladder, best first.
        outbox: bounds of the outbox.
        bounds: upper limits of what it waits for; default: what the latency and the rate of events suggest.
        mqtt_url: the MQTT server, in place of the one that the gateway offers on its HTTP port.
        tls: how to verify the gateway; None trusts the system's authorities.
        on_error: called with errors that belong to no call, and the room they concern or None; default: they are
            logged, and so is why there is no connection. It must not raise.
        on_sent: called with the answers to publications that were left over from an earlier life.

    Raises:
        ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        store: Store | Path | str | None = None,
        user: str | None = None,
        after: str = "now",
        transports: Sequence[TransportName] = LADDER,
        outbox: OutboxBounds | None = None,
        bounds: Bounds | None = None,
        mqtt_url: str | None = None,
        tls: ssl.SSLContext | None = None,
        on_error: OnError | None = None,
        on_sent: OnSent | None = None,
    ) -> None:
        self._url = _checked_url(url)
        _check_ladder(transports)
        if after not in ("now", "start"):
            Position.parse(after)
        self._token = token or None  # an empty one is none
        self._store: Store = SqliteStore(store) if isinstance(store, str | Path) else store or MemoryStore()
        self._user = user
        self._after = after
        self._ladder = tuple(transports)
        self._outbox_bounds = outbox
        self._bounds = bounds
        self._mqtt_url = mqtt_url
        self._tls = tls
        self._on_error = on_error or _log_error
        self._why: str | None = None
        self._on_sent = on_sent
        self._new_id = EventIds()
        self._news = asyncio.Event()
        self._presence_news: set[asyncio.Event] = set()
        self._is_closed = False
        self._machine: Machine
        self._shell: Shell
        self._keeper: Keeper
        self._loop: asyncio.AbstractEventLoop

    # --- life

    async def __aenter__(self) -> Self:
        """Open the store.

        Raises:
            StoreInUse: another client has it open.
            TokenFailed: without a token nobody knows whose cursor and outbox these are; name the `user` to go without.
        """
        self._loop = asyncio.get_running_loop()
        self._keeper = Keeper(self._store, lambda error: self.failed(error, None))
        self._shell = Shell(
            self._url, mqtt_url=self._mqtt_url, token=self._token, tls=self._tls, keeper=self._keeper, sink=self
        )
        try:
            await self._open()
        except BaseException:
            await self._shell.close()
            raise
        return self

    async def _open(self) -> None:
        token: Any = ... if self._user is not None and callable(self._token) else await self._shell.ask_token()
        user = self._user if self._user is not None else claims_of(None if token is ... else token).sub or "anonymous"
        cursor, leftovers = await self._keeper.open(f"{self._url} {user}")
        own_place = self._after not in ("now", "start")
        self._machine = machine = Machine(
            self._shell,
            clock=self._loop.time,
            ladder=self._ladder,
            cursor=self._after if own_place else cursor,
            begin=self._after,
            leftovers=leftovers,
            bounds=self._bounds,
            outbox=self._outbox_bounds,
            token=token,
            fixed_token=not callable(self._token),
        )
        self._shell.scheduler = machine.scheduler
        self._shell.on_wake = self.network_changed
        machine.start()
        self._shell.wake()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(handled=error is None)

    async def close(self, *, handled: bool = True) -> None:
        """End. What is in the outbox stays in the store; publications without an answer are refused (`closed`).

        Args:
            handled: whether events that are in hand count as handled. False, as when `async with` is left by an
                exception, hands them out again to the next client with this store.
        """
        if self._is_closed:
            return
        if handled:
            for line in self._machine.inbox.lines:
                line.finish()
        self._is_closed = True
        self._machine.close()
        self._shell.wake()
        for line in list(self._machine.inbox.lines):
            line.changed()
        for news in [self._news, *self._presence_news]:
            news.set()
        await self._shell.close()

    # --- hearing

    def subscribe(self, *rooms: str) -> Subscription:
        """Hear rooms (`lead:123`, `org:global`), as one stream in the log's order.

        With a stored cursor, what was missed comes first; without one, it begins now. Subscribe to all rooms that
        are to go on from the cursor before anything is awaited: a room that is added to a
        connection begins where the log stands then.

        Raises:
            InvalidRequest: no room is named.
            Closed: the client was closed.
        """
        self._check_rooms(*rooms)
        self._check_open()
        news = asyncio.Event()
        line = self._machine.subscribe(frozenset(rooms), news.set)
        self._loop.call_soon(self._shell.wake)
        return Subscription(line, news, is_closed=lambda: self._is_closed, end=self._end_line)

    def _end_line(self, line: Any) -> None:
        if not self._is_closed:
            self._machine.unsubscribe(line)
            self._shell.wake()

    def presence(self, room: str) -> Presence:
        """Who is in a room. One does not have to hear it; the right to suffices.

        Told at once over Socket.IO, asked for every 15 s over other transports; see docs/presence.md.

        Raises:
            InvalidRequest: it is no room's name.
            Closed: the client was closed.
        """
        self._check_rooms(room)
        self._check_open()
        news = asyncio.Event()
        watch = self._machine.watches.add(room, news.set)
        self._machine.connector.start()
        self._presence_news.add(news)
        self._loop.call_soon(self._shell.wake)

        def end(watch: Watch) -> None:
            self._presence_news.discard(news)
            if not self._is_closed:
                self._machine.watches.end(watch)
                self._shell.wake()

        return Presence(watch, news, is_closed=lambda: self._is_closed, end=end)

    # --- publishing

    async def publish(
        self,
        type: str | None = None,  # noqa: A002 the wire's name
        data: Any = None,
        *,
        ephemeral: bool = False,
        **options: Unpack[EventOptions],
    ) -> Published:
        """Publish an event, and wait until it is in the gateway's log.

        It is kept in the store first, and sent in order whenever the gateway can be reached, by this client or
        the next. Cancelling does not call it back.

        Args:
            type: event type (`lead:updated`); the gateway makes the topic of it and the data.
            data: what JSON can say; or bytes.
            ephemeral: never kept, at most once: for cursors and typing.
            options: see `EventOptions`.

        Raises:
            GaplessError: what the gateway says (`payload_too_large`, `forbidden`, …).
            OutboxFull: too much waits.
            Offline: an ephemeral one without a connection.
            Closed: the client was closed before there was an answer.
        """
        if ephemeral:
            return await self._publish_now(type, data, options)
        return await (await self.enqueue(type, data, **options))

    async def enqueue(
        self,
        type: str | None = None,  # noqa: A002 the wire's name
        data: Any = None,
        **options: Unpack[EventOptions],
    ) -> Publication:
        """As `publish`, but return once the event is on this machine's disk; await the result for the answer."""
        self._check_open()
        identity, body = encode_event(type, data, options, new_id=self._new_id)
        entry, answer = self._machine.outbox.reserve(identity, body)
        return await asyncio.shield(self._keep_and_send(entry, answer))

    async def _keep_and_send(self, entry: Entry, answer: Later) -> Publication:
        is_stored = await self._keeper.keep(entry)
        self._machine.outbox.flush()
        self._shell.wake()
        return Publication(entry.id, answer, is_stored=is_stored)

    async def _publish_now(self, kind: str | None, data: Any, options: EventOptions) -> Published:
        self._check_open()
        if not self.status.is_whole:
            raise Offline("there is no connection", hint="ephemeral events are not kept")
        _, body = encode_event(kind, data, {**options, "qos": 0}, new_id=self._new_id)
        answers: list[Published] = await outcome_of(self._machine.scheduler.spawn(self._send_now(body)).outcome)
        return answers[0]

    def _send_now(self, body: bytes) -> Generator[Later, Any, Any]:
        token = yield from self._machine.tokens.get()
        return (yield self._shell.publish([body], token))

    # --- status

    @property
    def status(self) -> Status:
        """How it is connected; a new value at each change."""
        self._check_opened()
        return self._machine.status

    @property
    def cursor(self) -> str | None:
        """The last position up to which everything is handled; None before there is one."""
        self._check_opened()
        return self._machine.inbox.cursor

    async def changes(self) -> AsyncIterator[Status]:
        """The status now, and after each change; where they come faster than they are taken, the last one."""
        told: Status | None = None
        while True:
            if self.status is not told:
                told = self.status
                yield told
            elif self._is_closed:
                return
            else:
                await self._changed()

    async def ready(self, *, timeout: float | None = None) -> None:
        """Connect, and wait until everything is here that the gateway has.

        Args:
            timeout: seconds; None waits until the first round of attempts has failed.

        Raises:
            GaplessError: why it could not connect: `unauthorized`, `network`, `not_a_gateway`, … It goes on trying.
        """
        self._check_open()
        self._machine.connector.start()
        self._loop.call_soon(self._shell.wake)
        try:
            async with asyncio.timeout(timeout):
                while not self.status.is_whole:
                    if self._is_closed:
                        raise Closed("the client was closed")
                    error = self.status.error
                    if timeout is None and error is not None and self.status.connection is ConnectionState.offline:
                        raise error
                    await self._changed()
        except TimeoutError:
            raise self.status.error or NoAnswer(f"not connected within {timeout} s") from None

    async def _changed(self) -> None:
        self._news.clear()
        await self._news.wait()

    def reconnect(self) -> None:
        """Connect anew, now, and ask again for rooms that were refused."""
        self._machine.reconnect()
        self._shell.wake()

    def network_changed(self) -> None:
        """Tell it that the network may be another, or is back: it checks at once. It notices by itself, later."""
        self._machine.connector.signal("online")
        self._loop.call_soon(self._shell.wake)

    def _check_rooms(self, *rooms: str) -> None:
        if not rooms or not all(room and "," not in room for room in rooms):
            raise InvalidRequest(f"these are no rooms: {rooms!r}", hint="name rooms such as 'lead:123'")

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed("the client was closed")
        self._check_opened()

    def _check_opened(self) -> None:
        if not hasattr(self, "_machine"):
            raise InvalidRequest("the client was not opened", hint="async with Client(…) as rt")

    # --- what the shell tells

    def told(self, status: Status) -> None:
        """See `Sink`."""
        self._news.set()
        error, before = status.error, self._why
        self._why = None if error is None else error.code
        if error is not None and error.code != before and self._on_error is _log_error:
            hint = f" ({error.hint})" if error.hint else ""
            logger.warning("not connected, tries again: %s: %s%s", error.code, error.message, hint)

    def failed(self, error: GaplessError, room: str | None) -> None:
        """See `Sink`."""
        self._on_error(error, room)

    def sent(self, identity: str, outcome: Published | GaplessError) -> None:
        """See `Sink`."""
        if self._on_sent is not None:
            self._on_sent(identity, outcome)
        elif isinstance(outcome, GaplessError):
            logger.warning("the publication %s of an earlier life was refused: %s", identity, outcome.code)


def _log_error(error: GaplessError, room: str | None) -> None:
    logger.warning("%s%s: %s", error.code, "" if room is None else f" for {room}", error.message)


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is not the URL of a gateway", hint="use http://HOST:PORT or https://HOST")
    return url.rstrip("/")


def _check_ladder(transports: Sequence[TransportName]) -> None:
    if not transports or len(set(transports)) != len(transports) or not set(transports) <= set(TRANSPORTS):
        raise ConfigError(f"{transports!r} is no list of transports", hint=f"use some of {', '.join(TRANSPORTS)}")
