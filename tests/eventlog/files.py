"""A log's files on disk, made, copied and damaged."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from gapless.eventlog.sqlite import SqliteLog
from tests.eventlog.events import make_events


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, but the lock's and the shared memory's, which hold no data."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.endswith((".lock", "-shm"))
    }


async def make_log(path: Path, count: int = 500, **options: Any) -> str:
    """A closed log with events; returns its epoch."""
    log = SqliteLog(path, **options)
    await log.open(lambda _: None)
    await log.append(make_events(count))
    await log.close()
    return log.epoch


async def make_crashed_log(folder: Path, count: int = 500) -> Path:
    """A log as a killed process leaves it: not closed, its last event in the write-ahead log.

    The files are copied while nobody writes, so they are what SIGKILL would have left.
    """
    live = folder / "live"
    crashed = folder / "crashed"
    live.mkdir()
    crashed.mkdir()
    await make_log(live / "log.db", count - 1)
    log = SqliteLog(live / "log.db")
    await log.open(lambda _: None)
    await log.append(make_events(1, start=count))
    for name in ("log.db", "log.db-wal", "log.db.lock"):
        shutil.copyfile(live / name, crashed / name)
    await log.close()
    return crashed / "log.db"


def with_sql(*statements: str) -> Callable[[Path], None]:
    """Damage by SQL: what no crash makes, but a mistaken hand may."""

    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    return damage


def cut_to(share: float) -> Callable[[Path], None]:
    """Keep the first part of the file."""

    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.truncate(int(path.stat().st_size * share))

    return damage


def write_at(position: int, data: bytes) -> Callable[[Path], None]:
    """Overwrite bytes in the middle."""

    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(position)
            file.write(data)

    return damage
