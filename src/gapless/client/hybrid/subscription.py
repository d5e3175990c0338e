"""A stream of events, for `async for`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gapless.client.hybrid.errors import Closed
from gapless.client.hybrid.inbox import Gap, Line
from gapless.client.model import ClientEvent
from gapless.errors import GaplessError


class Subscription:
    """The events of some rooms, each once and in the log's order, and a `Gap` where some are gone.

    An event counts as handled, and the cursor moves, when the next one is asked for, when the subscription ends, and
    when the client is closed. It does not where an exception leaves `async with Client(…)`: then the next
    client with the same store gets it again. For one task at a time. Cancelling who waits loses nothing.

    It ends with `aclose`, with `async with`, or when nobody refers to it any more: `break` ends
    `async for event in rt.subscribe(…)`.
    """

    def __init__(
        self, line: Line, news: asyncio.Event, *, is_closed: Callable[[], bool], end: Callable[[Line], None]
    ) -> None:
        self._line = line
        self._news = news
        self._is_closed = is_closed
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._told: dict[str, GaplessError] = {}
        self._ended = False

    @property
    def rooms(self) -> frozenset[str]:
        """What was asked for."""
        return self._line.rooms

    @property
    def waiting(self) -> int:
        """How many wait to be taken. Past 10,000 over all subscriptions, the client stops hearing for a while."""
        return len(self._line)

    async def ready(self) -> None:
        """Wait until all rooms are heard.

        Raises:
            GaplessError: one is refused (`forbidden`, `unknown_room`).
            Closed: the client was closed.
        """
        while not self._line.rooms <= self._line.heard:
            for error in self._line.refused.values():
                raise error
            if self._ended or self._is_closed():
                raise Closed("the subscription was closed")
            await self._wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ClientEvent | Gap:
        """The next one.

        Raises:
            StopAsyncIteration: the subscription or the client was closed.
            GaplessError: all of the rooms are refused; raised once. Ask again to wait on: they may be allowed later.
        """
        while not (self._ended or self._is_closed()):
            item = self._line.take()
            if item is not None:
                return item
            refused = self._line.refused
            if set(refused) == self._line.rooms:
                if self._told.keys() != refused.keys():
                    self._told = dict(refused)
                    raise next(iter(refused.values()))
            else:
                self._told = {}
            await self._wait()
        raise StopAsyncIteration

    def give_back(self) -> None:
        """What was taken last did not reach the application: it is the next one again."""
        self._line.give_back()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def aclose(self) -> None:
        """Leave the rooms. What was handed out counts as handled, what still waits is dropped."""
        if not self._ended:
            self._ended = True
            self._end(self._line)
            self._news.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.aclose()

    def __del__(self) -> None:
        if not self._ended:
            try:
                self._loop.call_soon_threadsafe(self._end, self._line)
            except RuntimeError:
                pass  # the loop is closed, and the client with it
