"""The hybrid client for programs without asyncio: the same, on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from gapless.client.hybrid.client import Client
from gapless.client.hybrid.errors import Closed
from gapless.client.hybrid.inbox import Gap
from gapless.client.hybrid.members import Presence
from gapless.client.hybrid.options import ClientOptions, EventOptions
from gapless.client.hybrid.presence import Present
from gapless.client.hybrid.publication import Publication
from gapless.client.hybrid.status import ConnectionState, Status
from gapless.client.hybrid.subscription import Subscription
from gapless.client.model import ClientEvent, Published
from gapless.errors import InvalidRequest

T = TypeVar("T")
_LAST_WORDS = 5.0
"""Seconds for calls of other threads to end, once the client is closed: they do at once."""


class SyncClient:
    """`Client`, blocking; safe to use from several threads.

        with SyncClient("http://127.0.0.1:8080") as rt:
            rt.publish("lead:updated", {"leadId": "123"})
            for event in rt.subscribe("lead:123"):
                print(event)

    Takes the same arguments. A token's function, and `on_error` and `on_sent`, are called on the client's own thread:
    they must not call the client. Closing it from another thread ends iterations, and lets other calls raise `Closed`.
    """

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        self._client = Client(url, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise InvalidRequest("the client was opened before", hint="make a new one")
        self._loop = loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="gapless-client", daemon=True)
        self._thread.start()
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self._is_closed = True
            self._stop(loop, self._thread)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(handled=error is None)

    def close(self, *, handled: bool = True) -> None:
        """See `Client.close`. From any thread; a second call does nothing."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._check_thread()
        with self._lock:
            closed_before, self._is_closed = self._is_closed, True
        if closed_before:
            return
        try:
            asyncio.run_coroutine_threadsafe(self._client.close(handled=handled), loop).result()
        finally:
            self._stop(loop, thread)

    def _stop(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        asyncio.run_coroutine_threadsafe(_end_tasks(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def subscribe(self, *rooms: str) -> SyncSubscription:
        """See `Client.subscribe`."""

        async def subscribe() -> Subscription:
            return self._client.subscribe(*rooms)

        return SyncSubscription(self, self._run(subscribe()))

    def presence(self, room: str) -> SyncPresence:
        """See `Client.presence`."""

        async def presence() -> Presence:
            return self._client.presence(room)

        return SyncPresence(self, self._run(presence()))

    def publish(
        self,
        type: str | None = None,  # noqa: A002 the wire's name
        data: Any = None,
        *,
        ephemeral: bool = False,
        **options: Unpack[EventOptions],
    ) -> Published:
        """See `Client.publish`."""
        return self._run(self._client.publish(type, data, ephemeral=ephemeral, **options))

    def enqueue(
        self,
        type: str | None = None,  # noqa: A002 the wire's name
        data: Any = None,
        **options: Unpack[EventOptions],
    ) -> Future[Published]:
        """See `Client.enqueue`: returns once it is on disk; the future is the gateway's answer."""
        return self._begin(_answer(self._run(self._client.enqueue(type, data, **options))))

    @property
    def status(self) -> Status:
        """See `Client.status`."""
        return self._client.status

    def changes(self) -> Iterator[Status]:
        """See `Client.changes`."""
        changes = self._client.changes()
        status: Status | None = None
        while status is None or status.connection is not ConnectionState.closed:
            try:
                status = self._run(_next_of(changes))
            except Closed:
                assert self._thread is not None
                self._thread.join()
                status = self.status
            yield status

    def ready(self, *, timeout: float | None = None) -> None:
        """See `Client.ready`."""
        self._run(self._client.ready(timeout=timeout))

    def reconnect(self) -> None:
        """See `Client.reconnect`."""
        self._soon(self._client.reconnect)

    def network_changed(self) -> None:
        """See `Client.network_changed`."""
        self._soon(self._client.network_changed)

    # --- from this thread to the client's

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = self._begin(work)
        try:
            return future.result()
        except CancelledError:
            raise Closed("the client was closed") from None
        except BaseException:
            future.cancel()  # Ctrl-C
            raise

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            loop = self._check_open()
            with self._lock:
                if self._is_closed:
                    raise Closed("the client was closed")
                return asyncio.run_coroutine_threadsafe(work, loop)
        except BaseException:
            work.close()
            raise

    def _soon(self, call: Any) -> None:
        loop = self._check_open()
        with self._lock:
            if not self._is_closed:
                loop.call_soon_threadsafe(call)

    def _check_open(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise InvalidRequest("the client was not opened", hint="with SyncClient(…) as rt")
        self._check_thread()
        return self._loop

    def _check_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise InvalidRequest(
                "this is the client's own thread, which cannot wait for itself",
                hint="call the client from another thread than its callbacks",
            )


class SyncSubscription:
    """`Subscription`, for `for`; for one thread at a time. It ends with `close`, with `with`, or with its client."""

    def __init__(self, client: SyncClient, stream: Subscription) -> None:
        self._client = client
        self._stream = stream
        self._is_on_its_way = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ClientEvent | Gap:
        item = self.get()
        if item is None:
            raise StopIteration
        return item

    def get(self, *, timeout: float | None = None) -> ClientEvent | Gap | None:
        """The next one; None where the subscription, or the client, was closed.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: nothing came. Nothing is lost, nor with Ctrl-C (`KeyboardInterrupt`).
            GaplessError: all of the rooms are refused; see `Subscription`.
        """
        try:
            item = self._client._run(self._next(timeout))
        except Closed:
            return None
        except BaseException:
            self._client._soon(self._give_back)
            raise
        self._is_on_its_way = False
        return item

    async def _next(self, timeout: float | None) -> ClientEvent | Gap | None:
        async with asyncio.timeout(timeout):
            item = await anext(self._stream, None)
        self._is_on_its_way = item is not None
        return item

    def _give_back(self) -> None:
        """Ctrl-C came after it was taken, and before the application had it."""
        if self._is_on_its_way:
            self._is_on_its_way = False
            self._stream.give_back()

    def ready(self) -> None:
        """See `Subscription.ready`."""
        self._client._run(self._stream.ready())

    def close(self) -> None:
        """Leave the rooms."""
        try:
            self._client._run(self._stream.aclose())
        except Closed:
            pass  # with its client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()


class SyncPresence:
    """`Presence`, for `for`; for one thread at a time. It ends with `close`, with `with`, or with its client."""

    def __init__(self, client: SyncClient, presence: Presence) -> None:
        self._client = client
        self._presence = presence

    @property
    def room(self) -> str:
        """The room."""
        return self._presence.room

    @property
    def now(self) -> Present | None:
        """See `Presence.now`."""
        return self._presence.now

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Present:
        present = self.get()
        if present is None:
            raise StopIteration
        return present

    def get(self, *, timeout: float | None = None) -> Present | None:
        """The next one; None where it, or the client, was closed.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: nothing changed.
            GaplessError: it may not be known; see `Presence`.
        """
        try:
            return self._client._run(self._next(timeout))
        except Closed:
            return None

    async def _next(self, timeout: float | None) -> Present | None:
        async with asyncio.timeout(timeout):
            return await anext(self._presence, None)

    def close(self) -> None:
        """Want to know it no more."""
        try:
            self._client._run(self._presence.aclose())
        except Closed:
            pass  # with its client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


async def _answer(publication: Publication) -> Published:
    return await publication


async def _next_of(changes: AsyncIterator[Status]) -> Status:
    return await anext(changes)


async def _end_tasks() -> None:
    """Let what other threads wait for end, so that none of them waits for ever."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        _, stuck = await asyncio.wait(tasks, timeout=_LAST_WORDS)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
