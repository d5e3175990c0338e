"""What is not a whole log is refused with a clear error, and left as it is to the byte."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gapless.errors import LogCorrupt, LogError, LogUnavailable
from gapless.eventlog import EVERYTHING, Selector
from gapless.eventlog.sqlite import SqliteLog, check
from gapless.eventlog.sqlite.schema import SCHEMA_VERSION
from tests.eventlog.events import make_event, offsets_of
from tests.eventlog.files import contents, cut_to, make_crashed_log, make_log, with_sql, write_at


async def refusal(path: Path, expected: type[LogError]) -> str:
    """Open it, expect an error with a hint, and that no byte was changed; returns the message."""
    before = contents(path.parent) if path.parent.is_dir() else {}
    log = SqliteLog(path)
    with pytest.raises(expected) as caught:
        await log.open(lambda _: None)
    assert type(caught.value) is expected
    assert caught.value.hint
    assert log.status() == "the log is closed"
    if path.parent.is_dir():
        assert contents(path.parent) == before
    await log.close()
    return caught.value.message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_to(0.5), "is cut off"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "is cut off"),
        (lambda path: os.truncate(path, 50), "is cut off after 50 bytes"),
        (lambda path: os.truncate(path, 0), "is empty, but was a log"),
        (write_at(0, b"\0" * 100), "is not a database"),
        (write_at(0, b"garbage"), "is not a database"),
        (write_at(2 * 4096, os.urandom(4096)), "is damaged"),
        (write_at(9 * 4096, b"\0" * 4096), "is damaged"),
        (with_sql(f"PRAGMA user_version = {SCHEMA_VERSION + 1}"), f"has schema version {SCHEMA_VERSION + 1}"),
        (with_sql("PRAGMA application_id = 7"), "is a database of another application"),
        (with_sql("DROP TABLE events"), "is damaged"),
        (with_sql("DELETE FROM meta WHERE key = 'epoch'"), "has lost its epoch"),
        (with_sql("DELETE FROM events WHERE offset <= 10"), "begins at event 11, but should at 1"),
    ],
)
async def test_damaged_log(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "log.db"
    await make_log(path)
    damage(path)
    assert message in await refusal(path, LogCorrupt)


@pytest.mark.parametrize("text", [b"x", b"# my notes\n", b"SQLite format 2\0" + b"x" * 200, os.urandom(5000)])
async def test_other_file(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(text)
    assert "is not a database" in await refusal(path, LogCorrupt)
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.db"]


async def test_database_of_another_application(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    assert "another application" in await refusal(path, LogCorrupt)
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.db"]


async def test_large_file_is_not_looked_through(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await make_log(path)
    with_sql("CREATE TABLE extra (a)", "INSERT INTO extra VALUES (zeroblob(100000))")(path)
    write_at(path.stat().st_size - 4096, b"\xff" * 4096)(path)  # a page of the extra table
    log = SqliteLog(path, quick_check_bytes=1000)
    await log.open(lambda _: None)
    assert log.head == 500
    await log.close()


async def test_file_lost_under_a_write_ahead_log(tmp_path: Path) -> None:
    path = await make_crashed_log(tmp_path)
    path.unlink()
    assert "is missing or empty, though its write-ahead log is here" in await refusal(path, LogCorrupt)
    path.touch()
    assert "is missing or empty" in await refusal(path, LogCorrupt)


async def test_write_ahead_log_lost(tmp_path: Path) -> None:
    path = await make_crashed_log(tmp_path)
    path.with_name("log.db-wal").unlink()
    assert "its write-ahead log, with the newest events, is missing" in await refusal(path, LogCorrupt)
    # The hint's way out: to go on, knowingly, with what is left.
    path.with_name("log.db.lock").unlink()
    log = SqliteLog(path)
    await log.open(lambda _: None)
    assert log.head == 499
    await log.close()


async def test_damage_under_a_write_ahead_log(tmp_path: Path) -> None:
    path = await make_crashed_log(tmp_path)
    write_at(9 * 4096, b"\0" * 4096)(path)
    assert "is damaged" in await refusal(path, LogCorrupt)


async def test_crashed_log_opens(tmp_path: Path) -> None:
    path = await make_crashed_log(tmp_path)
    log = SqliteLog(path)
    await log.open(lambda _: None)
    assert (log.head, log.oldest) == (500, 1)
    assert offsets_of((await log.read(EVERYTHING, 490)).records) == list(range(491, 501))
    await log.close()


async def test_torn_end_of_the_write_ahead_log_is_what_was_never_acknowledged(tmp_path: Path) -> None:
    path = await make_crashed_log(tmp_path)
    wal = path.with_name("log.db-wal")
    wal.write_bytes(wal.read_bytes() + os.urandom(3000))
    log = SqliteLog(path)
    await log.open(lambda _: None)
    assert log.head == 500
    await log.close()


async def test_empty_file_becomes_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.touch()
    await make_log(path, 3)
    log = SqliteLog(path)
    await log.open(lambda _: None)
    assert log.head == 3
    await log.close()


async def test_deleted_log_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log.db"
    epoch = await make_log(path, 3)
    path.unlink()
    assert await make_log(path, 1) != epoch
    assert f"of epoch {epoch} is gone; a new one begins" in caplog.text


async def test_creation_that_was_killed_leaves_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.with_name("log.db.new").write_bytes(b"half")
    path.with_name("log.db.new-wal").write_bytes(os.urandom(5000))
    await make_log(path, 3)
    assert sorted(contents(tmp_path)) == ["log.db"]


@pytest.mark.parametrize("note", [b"", b"{", b"[1]", b'{"pid":"x"}', os.urandom(5000)])
async def test_unreadable_note_is_no_obstacle(tmp_path: Path, note: bytes) -> None:
    path = tmp_path / "log.db"
    await make_log(path, 3)
    path.with_name("log.db.lock").write_bytes(note)
    log = SqliteLog(path)
    await log.open(lambda _: None)
    assert log.head == 3
    await log.close()


async def test_missing_folder(tmp_path: Path) -> None:
    assert "does not exist" in await refusal(tmp_path / "none" / "log.db", LogUnavailable)


async def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert "does not exist" in await refusal(tmp_path / "file" / "log.db", LogUnavailable)


async def test_path_that_is_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in await refusal(tmp_path, LogUnavailable)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "cannot be written" in await refusal(tmp_path / "log.db", LogUnavailable)
    finally:
        tmp_path.chmod(0o700)


async def test_disk_that_takes_no_lock_file(tmp_path: Path) -> None:
    (tmp_path / "log.db.lock").mkdir()
    assert "log.db.lock cannot be written" in await refusal(tmp_path / "log.db", LogUnavailable)


async def test_second_opener_is_told_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    first = SqliteLog(path)
    await first.open(lambda _: None)
    assert f"another gateway (pid {os.getpid()}) has {path} open" in await refusal(path, LogUnavailable)
    with pytest.raises(LogUnavailable, match="open already"):
        await first.open(lambda _: None)
    assert len(await first.append([make_event(1)])) == 1
    await first.close()
    second = SqliteLog(path)
    await second.open(lambda _: None)
    assert second.head == 1
    await second.close()


async def test_refused_open_lets_the_lock_go(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await make_log(path)
    whole = path.read_bytes()
    cut_to(0.5)(path)
    await refusal(path, LogCorrupt)
    path.write_bytes(whole)  # restored from a backup
    log = SqliteLog(path)
    await log.open(lambda _: None)
    assert log.head == 500
    await log.close()


async def test_cancelled_open_lets_the_lock_go(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    opening = asyncio.create_task(SqliteLog(path).open(lambda _: None))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    log = SqliteLog(path)
    async with asyncio.timeout(20):
        while True:
            try:
                await log.open(lambda _: None)
                break
            except LogUnavailable:  # the abandoned thread still has it
                await asyncio.sleep(0.01)
    assert log.head == 0
    await log.close()


async def test_log_may_move(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    epoch = await make_log(tmp_path / "old" / "log.db", 3)
    shutil.move(tmp_path / "old", tmp_path / "a new ünusual ?place#")
    log = SqliteLog(tmp_path / "a new ünusual ?place#" / "log.db")
    await log.open(lambda _: None)
    assert (log.epoch, log.head) == (epoch, 3)
    assert len((await log.read(EVERYTHING, 0)).records) == 3
    await log.close()


async def test_a_log_without_an_index_by_topic_gets_one(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await make_log(path)
    with_sql("DROP TABLE event_topics", "PRAGMA user_version = 1")(path)
    assert check(path).problems == ()
    for _ in range(2):
        log = SqliteLog(path)
        await log.open(lambda records: None)
        assert offsets_of((await log.read(Selector(filters=("crm/leads/7/+",)), 0, limit=1)).records) == [7]
        await log.close()
    assert check(path).problems == ()
    with_sql("DELETE FROM event_topics WHERE offset = 7")(path)
    assert len(check(path).problems) == 1
