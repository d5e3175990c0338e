"""A disk that fails when a test says so."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from gapless.eventlog.sqlite.transaction import Transaction

_PATIENCE = 20.0


class FailsOnce:
    """The next transaction of any log waits for `fail`, and finds the disk full; those after it are stored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._began, self._may_fail, self._failed = threading.Event(), threading.Event(), threading.Event()
        store = Transaction.store

        def fail_once(transaction: Transaction) -> None:
            if self._failed.is_set():
                return store(transaction)
            self._began.set()
            assert self._may_fail.wait(_PATIENCE)
            self._failed.set()
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        monkeypatch.setattr(Transaction, "store", fail_once)

    async def began(self) -> None:
        """Once the transaction waits."""
        async with asyncio.timeout(_PATIENCE):
            while not self._began.is_set():
                await asyncio.sleep(0)

    def fail(self) -> None:
        """Let it fail; the event loop, which is blocked until it did, has not heard of it when this returns."""
        self._may_fail.set()
        assert self._failed.wait(_PATIENCE)
