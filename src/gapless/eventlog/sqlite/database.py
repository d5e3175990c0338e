"""Opening a log's file: locked, checked, and made where there is none."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from gapless.errors import LogCorrupt, LogUnavailable
from gapless.eventlog.encoding import decode_event
from gapless.eventlog.sqlite.check import check_identity, check_whole
from gapless.eventlog.sqlite.guard import DataLock
from gapless.eventlog.sqlite.schema import connect_writer, create_database, upgrade, wal_path
from gapless.eventlog.sqlite.transaction import Tip

logger = logging.getLogger("gapless.eventlog")

_COUNT_OPENING = "INSERT INTO meta VALUES ('opened', 1) ON CONFLICT DO UPDATE SET value = value + 1"


class Database:
    """An open log: its lock, its write connection, and where it stands.

    Attributes:
        lock: held until `release`.
        connection: the write connection, usable from one other thread.
        epoch: names this life of the log.
        tip: its newest end.
        trimmed: offset through which retention has deleted.
    """

    def __init__(self, path: Path, lock: DataLock) -> None:
        self.lock = lock
        self.connection = connect_writer(path)
        try:
            upgrade(self.connection)
            meta = dict(self.connection.execute("SELECT key, value FROM meta").fetchall())
            self.epoch: str = meta["epoch"]
            self.trimmed: int = meta["trimmed"]
            self.tip = _tip(self.connection, self.trimmed)
            # The write-ahead log now exists, durably: if it is missing later, events are lost.
            self.connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('opened', CAST(strftime('%s', 'now') AS INTEGER))"
            )
            lock.write(epoch=self.epoch, state="open")
        except BaseException:
            self.connection.close()
            raise

    @classmethod
    def open(cls, path: Path, *, quick_check_bytes: int) -> Database:
        """Open the log at `path`, or create it. Blocks.

        Raises:
            LogCorrupt, LogUnavailable: see `EventLog.open`.
        """
        _check_place(path)
        if path.exists():
            check_identity(path)  # before the side file is made, beside a file that may not be ours
        lock = DataLock(path)
        try:
            if _must_create(path, lock):
                logger.info("creating the event log %s", path)
                create_database(path)
            else:
                _check_wal(path, lock)
                check_whole(path, quick_check_bytes=quick_check_bytes)
            return cls(path, lock)
        except (sqlite3.Error, OSError) as error:
            lock.release()
            raise LogUnavailable(
                f"{path} cannot be written: {error}",
                hint="see that the disk has room and the gateway's user may write there",
            ) from error
        except BaseException:
            lock.release()
            raise

    def note_closing(self) -> None:
        """Note, durably, that from now on the write-ahead log may be gone."""
        self.lock.write(epoch=self.epoch, state="closed")

    def abandon(self) -> None:
        """Close without having worked on it."""
        self.note_closing()
        self.connection.close()
        self.lock.release()


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise LogUnavailable(f"{path} is a folder", hint="name a file in it")
    if not path.parent.is_dir():
        raise LogUnavailable(f"the folder {path.parent} does not exist", hint="create it first")


def _must_create(path: Path, lock: DataLock) -> bool:
    """Whether there is no log; refuses what is the rest of one."""
    if path.exists() and path.stat().st_size > 0:
        return False
    wal = wal_path(path)
    if wal.exists() and wal.stat().st_size > 0:
        raise LogCorrupt(
            f"{path} is missing or empty, though its write-ahead log is here",
            hint=f"restore {path.name}; or move {wal.name} away to begin a new log; nothing was changed",
        )
    if path.exists() and lock.previous.epoch:
        raise LogCorrupt(
            f"{path} is empty, but was a log (epoch {lock.previous.epoch})",
            hint="restore it from a backup; or delete the empty file to begin a new log; nothing was changed",
        )
    if lock.previous.epoch:
        logger.warning("the log %s of epoch %s is gone; a new one begins", path, lock.previous.epoch)
    return True


def _check_wal(path: Path, lock: DataLock) -> None:
    if lock.previous.state == "open" and not wal_path(path).exists():
        raise LogCorrupt(
            f"{path} was not closed, and its write-ahead log, with the newest events, is missing",
            hint=f"restore {wal_path(path).name}; or delete {path.name}.lock to go on with what is left",
        )


def _tip(connection: sqlite3.Connection, trimmed: int) -> Tip:
    row = connection.execute(
        'SELECT "offset", total, appended, body FROM events ORDER BY "offset" DESC LIMIT 1'
    ).fetchone()
    if row is None:
        return Tip(trimmed, 0, 0, "")
    offset, total, appended, body = row
    (highest_id,) = connection.execute("SELECT max(id) FROM events").fetchone()
    return Tip(offset, total + decode_event(body).size, appended, highest_id)
