from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gapless.eventlog.sqlite.checkpoint import Checkpoints
from gapless.eventlog.sqlite.schema import connect_writer, create_database, wal_path

SIZE = 100_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_database(tmp_path / "log.db")
    return tmp_path / "log.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect_writer(path)
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # SQLite's own bound must not help
    connection.execute("PRAGMA synchronous = OFF")  # this is about sizes
    yield connection
    connection.close()


def commit(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("INSERT OR REPLACE INTO state VALUES ('test', ?, ?)", (str(number % 3), os.urandom(SIZE)))


def test_commits_without_end_leave_a_short_write_ahead_log(path: Path, connection: sqlite3.Connection) -> None:
    checkpoints = Checkpoints(path)
    checkpoints.start()
    for number in range(300):
        commit(connection, number)
        checkpoints.committed(connection, SIZE)
        if checkpoints._asked:
            assert checkpoints._copied.wait(30)
    checkpoints.close()
    assert wal_path(path).stat().st_size < 300 * SIZE / 5


def test_where_it_cannot_copy_it_says_so_and_commits_go_on(
    path: Path, connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(path.parent / "nowhere" / "log.db")
    with caplog.at_level(logging.ERROR):
        checkpoints.start()
        for number in range(60):
            commit(connection, number)
            checkpoints.committed(connection, SIZE)
        checkpoints.close()
    assert "cannot be copied beside the commits" in caplog.text
    assert connection.execute("SELECT count(*) FROM state").fetchone() == (3,)
