from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gapless.errors import LogCorrupt, LogUnavailable
from gapless.eventlog import Retention
from gapless.eventlog.sqlite import SqliteLog, check
from tests.eventlog.events import make_event, make_events
from tests.eventlog.files import contents, make_crashed_log, make_log, with_sql, write_at


async def test_whole_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    epoch = await make_log(path, 100)
    before = sorted(entry.name for entry in tmp_path.iterdir())
    found = check(path)
    assert (found.epoch, found.oldest, found.head, found.events) == (epoch, 1, 100, 100)
    assert (found.bytes, found.problems) == (path.stat().st_size, ())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


async def test_beside_a_gateway(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = SqliteLog(path, retention=Retention(None, 3 * make_event(1).size))
    await log.open(lambda _: None)
    await log.append(make_events(9))
    await log.trim(now=0)
    found = check(path)
    assert (found.epoch, found.oldest, found.head, found.events, found.problems) == (log.epoch, 7, 9, 3, ())
    assert len(await log.append([make_event(10)])) == 1
    await log.close()


async def test_crashed_log_is_left_as_it_is(tmp_path: Path) -> None:
    path = await make_crashed_log(tmp_path)
    before = contents(path.parent)
    found = check(path)
    assert (found.head, found.problems) == (500, ())
    assert contents(path.parent) == before


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (with_sql("DELETE FROM event_rooms WHERE room = 'lead:7'"), "event 7: it is not indexed under room 'lead:7'"),
        (with_sql("DELETE FROM event_topics WHERE offset = 7"), "event 7: it is not indexed under topic 'crm/"),
        (with_sql("UPDATE events SET body = x'c1' WHERE offset = 5"), "event 5: a stored event cannot be read"),
        (with_sql("UPDATE events SET topic = 'other' WHERE offset = 5"), "event 5: its row says"),
        (with_sql("DELETE FROM events WHERE offset = 5"), "some are missing"),
        (write_at(12 * 4096, b"\0" * 4096), "age"),
    ],
)
async def test_problems_are_named(tmp_path: Path, damage: Callable[[Path], None], problem: str) -> None:
    path = tmp_path / "log.db"
    await make_log(path)
    damage(path)
    before = contents(tmp_path)
    try:
        problems = check(path).problems
    except LogCorrupt as error:
        problems = (error.message,)
    assert any(problem in line for line in problems)
    assert contents(tmp_path) == before


async def test_many_problems_are_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await make_log(path)
    with_sql("DELETE FROM event_rooms")(path)
    assert len(check(path).problems) == 20


async def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="no log"):
        check(tmp_path / "log.db")


@pytest.mark.parametrize("text", [b"", b"notes", os.urandom(3000)])
async def test_no_log(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "log.db").write_bytes(text)
    with pytest.raises(LogCorrupt):
        check(tmp_path / "log.db")
    assert (tmp_path / "log.db").read_bytes() == text
