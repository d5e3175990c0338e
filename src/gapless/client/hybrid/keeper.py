"""Writes to a store from a thread of its own, in order, many at once; what cannot be stored is told once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from gapless.client.hybrid.errors import StorageFailed
from gapless.client.hybrid.outbox import Entry
from gapless.client.hybrid.store import Store

T = TypeVar("T")


class Keeper:
    """A store, for the event loop.

    Args:
        failed: called with the first failure, and with the first after something was added.
    """

    def __init__(self, store: Store, failed: Callable[[StorageFailed], None]) -> None:
        self._store = store
        self._failed = failed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gapless-store")
        self._is_open = False
        self._is_broken = False
        self._cursor: str | None = None
        self._entries: list[Entry] = []
        self._kept: asyncio.Future[bool] | None = None
        self._gone: list[str] = []
        self._writing: asyncio.Task[None] | None = None

    async def open(self, owner: str) -> tuple[str | None, list[Entry]]:
        """See `Store.open`; empty where it fails."""
        try:
            found = await self._in_thread(lambda: self._store.open(owner))
        except StorageFailed as error:
            self._failed(error)
            return None, []
        self._is_open = True
        return found

    def keep_cursor(self, position: str) -> None:
        """Store it soon."""
        self._cursor = position
        self._write_soon()

    async def keep(self, entry: Entry) -> bool:
        """Store a publication; whether it could be. Those that come together share a commit."""
        if not self._is_open:
            return False
        self._entries.append(entry)
        if self._kept is None:
            self._kept = asyncio.get_running_loop().create_future()
        kept = self._kept
        self._write_soon()
        return await asyncio.shield(kept)

    def forget(self, ids: Sequence[str]) -> None:
        """Remove publications soon."""
        self._gone += ids
        self._write_soon()

    async def close(self) -> None:
        """Write what is to be written, and close."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
        self._is_open = False
        await self._in_thread(self._store.close)
        self._thread.shutdown()  # its last work is done: it ends at once

    def _write_soon(self) -> None:
        if self._writing is None and self._is_open:
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="gapless-store")

    async def _write(self) -> None:
        try:
            while self._cursor is not None or self._entries or self._gone:
                cursor, self._cursor = self._cursor, None
                entries, self._entries = self._entries, []
                kept, self._kept = self._kept, None
                gone, self._gone = self._gone, []
                if entries:
                    ok = await self._try(partial(self._store.keep, entries))
                    if kept is not None and not kept.done():
                        kept.set_result(ok)
                if gone:
                    await self._try(partial(self._store.forget, gone), adds=False)
                if cursor is not None:
                    await self._try(partial(self._store.keep_cursor, cursor))
        finally:
            self._writing = None

    async def _try(self, call: Callable[[], None], *, adds: bool = True) -> bool:
        try:
            await self._in_thread(call)
        except StorageFailed as error:
            if not self._is_broken:
                self._failed(error)
            self._is_broken = True
            return False
        if adds:  # what takes away works on a full disk too, and says nothing of it
            self._is_broken = False
        return True

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
