"""Who is in a room, for `async for`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gapless.client.hybrid.presence import Present, Watch
from gapless.errors import GaplessError


class Presence:
    """Who is in a room: now, and after each change; where they come faster than they are taken, the last one.

        async for present in rt.presence("lead:123"):
            print([member.user_id for member in present.users])

    It ends with `aclose`, with `async with`, with its client, or when nobody refers to it any more.
    """

    def __init__(
        self, watch: Watch, news: asyncio.Event, *, is_closed: Callable[[], bool], end: Callable[[Watch], None]
    ) -> None:
        self._watch = watch
        self._news = news
        self._is_closed = is_closed
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._told: Present | GaplessError | None = None
        self._ended = False

    @property
    def room(self) -> str:
        """The room."""
        return self._watch.room

    @property
    def now(self) -> Present | None:
        """Who is there; None where that is not known (yet)."""
        return self._watch.present

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Present:
        """The next one.

        Raises:
            StopAsyncIteration: it was closed, or the client was.
            GaplessError: it may not be known (`forbidden`, `unknown_room`); raised once. Ask again to wait on.
        """
        while not (self._ended or self._is_closed()):
            known = self._watch.error or self._watch.present
            if known is not None and known is not self._told:
                self._told = known
                if isinstance(known, GaplessError):
                    raise known
                return known
            self._news.clear()
            await self._news.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Want to know it no more."""
        if not self._ended:
            self._ended = True
            self._end(self._watch)
            self._news.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._ended:
            try:
                self._loop.call_soon_threadsafe(self._end, self._watch)
            except RuntimeError:
                pass  # the loop is closed, and the client with it
