"""Copying the write-ahead log into the database beside the writer, so that no commit waits for it.

SQLite by itself does it within the commit that makes the write-ahead log too long: at 1,000 single
events a second every second or so one commit took 6 to 15 ms, and what came meanwhile waited with
it. Here a thread with a connection of its own copies most of it while commits go on; the writer
copies the few pages that came meanwhile (0.8 ms, measured), because only a write-ahead log that is
copied whole is begun anew, and does not grow for ever. Nothing here decides what is durable: a
commit is durable by the write-ahead log, which SQLite keeps until its copy is synced.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path

from gapless.eventlog.sqlite.schema import connect_writer

logger = logging.getLogger("gapless.eventlog")

#: Pages after which to copy. Fewer make each copy, and its sync beside the commits' own, shorter.
_PAGES = 500
#: What a commit changes at least: a page or two of each table and index.
_PAGES_OF_A_COMMIT = 7
_PAGE_BYTES = 4096
_COPY = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpoints:
    """Decides when to copy, and does it. All methods belong to the writer's thread.

    Where the thread fails (the disk does), it says so and ends; SQLite's own bound on the
    writer's connection then holds, within commits, as it would without this.

    Args:
        path: the database, open in the writer already.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pages = 0
        self._asked = False
        self._wanted = threading.Event()
        self._copied = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="gapless-log-checkpoint", daemon=True)

    def start(self) -> None:
        """Begin to wait for work."""
        self._thread.start()

    def committed(self, connection: sqlite3.Connection, size: int) -> None:
        """Note a commit of `size` bytes by the writer's connection; finish a copy that is nearly whole."""
        self._pages += _PAGES_OF_A_COMMIT + size // _PAGE_BYTES
        if self._copied.is_set():
            self._copied.clear()
            self._asked = False
            self._pages = 0
            connection.execute(_COPY).fetchone()
        elif self._pages >= _PAGES and not self._asked:
            self._asked = True
            self._wanted.set()

    def close(self) -> None:
        """End the thread, and its connection, before the writer's is closed."""
        self._closing = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            connection = connect_writer(self._path)
            try:
                while True:
                    self._wanted.wait()
                    self._wanted.clear()
                    if self._closing:
                        return
                    connection.execute(_COPY).fetchone()
                    self._copied.set()
            finally:
                connection.close()
        except sqlite3.Error as error:
            logger.error("the write-ahead log cannot be copied beside the commits: %s; commits will do it", error)
