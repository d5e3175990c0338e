"""The hybrid client for programs without asyncio: the same, on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from gapless.client.hybrid.client import Client, Publication
from gapless.client.hybrid.inbox import Gap
from gapless.client.hybrid.status import Status
from gapless.client.hybrid.subscription import Subscription
from gapless.client.model import ClientEvent, Published

T = TypeVar("T")


class SyncClient:
    """`Client`, blocking; safe to use from several threads.

        with SyncClient("http://127.0.0.1:8080") as rt:
            rt.publish("lead:updated", {"leadId": "123"})
            for event in rt.subscribe("lead:123"):
                print(event)

    Takes the same arguments. A token's function, and `on_error` and `on_sent`, are called on the client's thread.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._options = {"url": url, **options}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gapless-client", daemon=True)
        self._client: Client

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._client = self._run(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    async def _open(self) -> Client:
        return await Client(**self._options).__aenter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(handled=error is None)

    def close(self, *, handled: bool = True) -> None:
        """See `Client.close`."""
        if self._loop.is_closed():
            return
        try:
            self._run(self._client.close(handled=handled))
        finally:
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def subscribe(self, *rooms: str) -> SyncSubscription:
        """See `Client.subscribe`."""

        async def subscribe() -> Subscription:
            return self._client.subscribe(*rooms)

        return SyncSubscription(self, self._run(subscribe()))

    def publish(self, type: str | None = None, data: Any = None, **options: Any) -> Published:  # noqa: A002
        """See `Client.publish`."""
        return self._run(self._client.publish(type, data, **options))

    def enqueue(self, type: str | None = None, data: Any = None, **options: Any) -> Future[Published]:  # noqa: A002
        """See `Client.enqueue`: returns once it is on disk; the future is the gateway's answer."""
        publication = self._run(self._client.enqueue(type, data, **options))
        return asyncio.run_coroutine_threadsafe(_answer(publication), self._loop)

    @property
    def status(self) -> Status:
        """See `Client.status`."""
        return self._client.status

    def ready(self, *, timeout: float | None = None) -> None:
        """See `Client.ready`."""
        self._run(self._client.ready(timeout=timeout))

    def reconnect(self) -> None:
        """See `Client.reconnect`."""
        self._loop.call_soon_threadsafe(self._client.reconnect)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C
            raise


class SyncSubscription:
    """`Subscription`, for `for`. It ends with `close`, with `with`, or with its client."""

    def __init__(self, client: SyncClient, stream: Subscription) -> None:
        self._client = client
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ClientEvent | Gap:
        item = self._client._run(self._next(None))
        if item is None:
            raise StopIteration
        return item

    def get(self, *, timeout: float | None = None) -> ClientEvent | Gap | None:
        """The next one; None where the subscription has ended.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: nothing came. Nothing is lost.
        """
        return self._client._run(self._next(timeout))

    async def _next(self, timeout: float | None) -> ClientEvent | Gap | None:
        async with asyncio.timeout(timeout):
            return await anext(self._stream, None)

    def ready(self) -> None:
        """See `Subscription.ready`."""
        self._client._run(self._stream.ready())

    def close(self) -> None:
        """Leave the rooms."""
        self._client._run(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()


async def _answer(publication: Publication) -> Published:
    return await publication
