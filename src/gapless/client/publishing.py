"""Publishing with patience: the same events, with the same ids, until the server has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from gapless.client.backoff import Backoff
from gapless.client.model import ConnectionLost, Outgoing, Published, Publisher


class RetryingPublisher:
    """Keeps one publisher connected, and makes a new one where the connection is lost.

    What is published again has the same ids: for the log it is still one event. (Ephemeral
    events are not in the log: one of those may be heard twice.)

    Args:
        make: gives an unconnected publisher.
        retry_for: seconds from the first failure until it gives up; 0 tries once.
        on_retry: told of each failure that is followed by another attempt, and its delay.
        backoff, sleep, clock: for tests.
    """

    def __init__(
        self,
        make: Callable[[], Publisher],
        *,
        retry_for: float,
        on_retry: Callable[[ConnectionLost, float], None] | None = None,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._retry_for = retry_for
        self._on_retry = on_retry
        self._backoff = backoff or Backoff(first=0.2, limit=5.0)
        self._sleep = sleep
        self._clock = clock
        self._publisher: Publisher | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._disconnect()

    async def publish(self, events: Sequence[Outgoing]) -> list[Published]:
        """Publish in order, and wait until the server has them all.

        Raises:
            ConnectionLost: `retry_for` is over; some of them may have arrived.
            Refused: the server does not take one of them.
        """
        deadline: float | None = None
        while True:
            try:
                answers = await (await self._connected()).publish(events)
            except ConnectionLost as error:
                await self._disconnect()
                now = self._clock()
                deadline = now + self._retry_for if deadline is None else deadline
                delay = self._backoff.next()
                if now + delay >= deadline:
                    raise
                if self._on_retry is not None:
                    self._on_retry(error, delay)
                await self._sleep(delay)
            else:
                self._backoff.reset()
                return answers

    async def _connected(self) -> Publisher:
        if self._publisher is None:
            self._publisher = await self._make().__aenter__()
        return self._publisher

    async def _disconnect(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await publisher.__aexit__(None, None, None)
