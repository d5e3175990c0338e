"""Where cursor and outbox are kept: in memory, or in a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from gapless.client.hybrid.errors import StorageFailed, StoreInUse
from gapless.client.hybrid.outbox import Entry

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cursor (owner TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (owner TEXT, seq INTEGER, id TEXT NOT NULL, body BLOB NOT NULL,
                                   PRIMARY KEY (owner, seq)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outbox_id ON outbox (owner, id);
"""
_VERSION = 1
_BUSY = 1.0
"""Seconds to wait for another client that is just closing the file."""


class Store(Protocol):
    """One user's cursor and outbox at one gateway. All calls may block: they come from one thread, one at a time.

    Each raises `StorageFailed` where it cannot do it.
    """

    def open(self, owner: str) -> tuple[str | None, list[Entry]]:
        """Take up what is there: the cursor, and the outbox in order.

        Args:
            owner: the gateway's URL and the user.

        Raises:
            StoreInUse: another client has it open.
        """

    def keep_cursor(self, position: str) -> None:
        """Replace the cursor. It need not survive a power cut: an older one only brings repeats."""

    def keep(self, entries: Sequence[Entry]) -> None:
        """Add to the outbox. They are on disk when it returns."""

    def forget(self, ids: Sequence[str]) -> None:
        """Remove from the outbox."""

    def close(self) -> None:
        """End."""


class MemoryStore:
    """Keeps nothing over the end of the process; one object may serve several lives of a client in turn."""

    def __init__(self) -> None:
        self._cursors: dict[str, str] = {}
        self._outboxes: dict[str, dict[str, Entry]] = {}
        self._owner = ""

    def open(self, owner: str) -> tuple[str | None, list[Entry]]:
        """See `Store`."""
        self._owner = owner
        return self._cursors.get(owner), list(self._outboxes.setdefault(owner, {}).values())

    def keep_cursor(self, position: str) -> None:
        """See `Store`."""
        self._cursors[self._owner] = position

    def keep(self, entries: Sequence[Entry]) -> None:
        """See `Store`."""
        self._outboxes[self._owner].update((entry.id, entry) for entry in entries)

    def forget(self, ids: Sequence[str]) -> None:
        """See `Store`."""
        for identity in ids:
            self._outboxes[self._owner].pop(identity, None)

    def close(self) -> None:
        """See `Store`."""


class SqliteStore:
    """A file, for several users and gateways in turn; for one client at a time, which keeps it locked.

    The lock is the operating system's, and ends with the process, also by SIGKILL.

    Args:
        path: the file; it and its folder are made where they are missing.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._owner = ""

    def open(self, owner: str) -> tuple[str | None, list[Entry]]:
        """See `Store`."""
        self._owner = owner
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            self._connection = connection
            self._prepare(connection)
            found = connection.execute("SELECT position FROM cursor WHERE owner = ?", (owner,)).fetchone()
            rows = connection.execute("SELECT id, seq, body FROM outbox WHERE owner = ? ORDER BY seq", (owner,))
            return (found[0] if found else None), [Entry(*row) for row in rows]
        except (OSError, sqlite3.Error) as error:
            self.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise StoreInUse(
                    f"another client has {self._path} open",
                    hint="give each client, and each process, a file of its own",
                ) from error
            raise self._failed(error) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Before the first access: then the lock is held from it to the end, and no memory is shared.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise sqlite3.DatabaseError(f"it is of a later version ({version})")
        if version < _VERSION:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")

    def keep_cursor(self, position: str) -> None:
        """See `Store`."""
        query = "INSERT INTO cursor VALUES (?, ?) ON CONFLICT (owner) DO UPDATE SET position = excluded.position"
        self._write("NORMAL", query, [(self._owner, position)])

    def keep(self, entries: Sequence[Entry]) -> None:
        """See `Store`."""
        rows = [(self._owner, entry.seq, entry.id, entry.body) for entry in entries]
        self._write("FULL", "INSERT INTO outbox VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def forget(self, ids: Sequence[str]) -> None:
        """See `Store`."""
        rows = [(self._owner, identity) for identity in ids]
        self._write("NORMAL", "DELETE FROM outbox WHERE owner = ? AND id = ?", rows)

    def _write(self, synchronous: str, query: str, rows: Sequence[tuple[object, ...]]) -> None:
        connection = self._connection
        if connection is None:
            raise StorageFailed(f"{self._path} is not open")
        try:
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(query, rows)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """See `Store`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _failed(self, error: Exception) -> StorageFailed:
        return StorageFailed(
            f"{self._path} cannot be used: {error}",
            hint="give a file that can be written; until then nothing outlives this process",
        )
