"""A disk that fails, and a writer that dies: nothing hangs, nothing is told twice, nothing is made up."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import pytest
import pytest_asyncio

from gapless.errors import LogCorrupt, LogUnavailable
from gapless.event import Event, Record
from gapless.eventlog import EVERYTHING, Retention, StateKind, StateWrite
from gapless.eventlog.sqlite import SqliteLog, check
from gapless.eventlog.sqlite.jobs import OneJob, WriteJob
from gapless.eventlog.sqlite.transaction import Transaction
from tests.eventlog.events import answers_of, make_event, make_events, offsets_of
from tests.eventlog.faults import FailsOnce

PUMP = StateKind.PUMP


@pytest.fixture
def heard() -> list[Record]:
    return []


@pytest_asyncio.fixture
async def log(tmp_path: Path, heard: list[Record]) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log.db", retention=Retention(None, 0))
    await log.open(heard.extend)
    yield log
    await log.close()


def pages(log: SqliteLog, pragma: str) -> int:
    """Ask the writer's connection, while the writer has nothing to do."""
    assert log._database is not None
    return int(log._database.connection.execute(f"PRAGMA {pragma}").fetchone()[0])


async def fill(log: SqliteLog) -> LogUnavailable:
    """Append until the disk is full."""
    for number in range(1000, 2000):
        try:
            await log.append([make_event(number, data=b"x" * 10_000)])
        except LogUnavailable as error:
            return error
    raise AssertionError("the disk did not fill")


async def test_what_must_survive_a_power_cut_is_synced(log: SqliteLog) -> None:
    normal, full = 1, 2
    writes: list[tuple[Callable[[], Awaitable[object]], int]] = [
        (lambda: log.append([make_event(1)]), full),
        (lambda: log.write_state([StateWrite(PUMP, "a", b"1")], durable=False), normal),
        (lambda: log.write_state([StateWrite(PUMP, "a", b"2")], durable=True), full),
        (lambda: log.write_retained("t", make_event(2, topic="t")), normal),
        (lambda: log.append([], state=[StateWrite(PUMP, "a", b"3")]), full),
    ]
    for write, expected in writes:
        await write()
        assert pages(log, "synchronous") == expected
    # One that must be synced takes the others of its commit with it.
    await asyncio.gather(log.write_state([StateWrite(PUMP, "a", b"4")], durable=False), log.append([make_event(3)]))
    assert pages(log, "synchronous") == full


async def test_full_disk(log: SqliteLog, heard: list[Record]) -> None:
    await log.append(make_events(10))
    plenty = pages(log, "max_page_count")
    pages(log, f"max_page_count = {pages(log, 'page_count') + 20}")
    error = await fill(log)
    assert error.message == "the disk is full; nothing of this call was stored"
    assert error.retryable
    assert log.status() == "the disk is full"
    head = log.head
    assert offsets_of(heard) == list(range(1, head + 1))

    refused = log.append([make_event(5000, data=b"x" * 50_000)], state=[StateWrite(PUMP, "a", b"1")])
    with pytest.raises(LogUnavailable):
        await refused
    assert (log.head, len(heard)) == (head, head)
    assert await log.read_state(PUMP, "a") is None
    assert log.status() == "the disk is full", "a read does not mend the disk"
    assert len((await log.read(EVERYTHING, 0)).records) == head

    pages(log, f"max_page_count = {plenty}")
    assert answers_of(await log.append([make_event(5000)])) == [(head + 1, False)]
    assert log.status() is None
    assert offsets_of(heard) == list(range(1, head + 2))


async def test_full_disk_fails_all_that_share_the_commit(log: SqliteLog, heard: list[Record]) -> None:
    pages(log, f"max_page_count = {pages(log, 'page_count') + 20}")
    await fill(log)
    told = len(heard)
    futures = [log.append([make_event(n, data=b"x" * 30_000)]) for n in range(5000, 5040)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(result) for result in results} == {LogUnavailable}
    assert (len(heard), log.head) == (told, told)


async def test_what_was_called_before_a_failure_was_told_is_refused_with_it(
    log: SqliteLog, heard: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a later event came before one that its publisher sends again."""
    disk = FailsOnce(monkeypatch)
    calls: list[Awaitable[object]] = [log.append([make_event(1)])]
    await disk.began()
    calls += [log.append([make_event(2)]), log.write_state([StateWrite(PUMP, "a", b"1")], durable=True)]
    await asyncio.sleep(0)  # the writer has them
    disk.fail()
    calls.append(log.append([make_event(3)]))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {LogUnavailable}
    assert await log.read_state(PUMP, "a") is None
    assert (log.head, log.waiting_bytes) == (0, 0)

    assert answers_of(await log.append(make_events(3))) == [(1, False), (2, False), (3, False)]
    assert offsets_of(heard) == [1, 2, 3]
    assert log.status() is None


class Persistent:
    """Publishes events, each again from within the call that tells that it was refused."""

    def __init__(self, log: SqliteLog, event: Event) -> None:
        self._log = log
        self._event = event
        self.refusals: list[type[BaseException]] = []
        self.answer: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()

    def publish(self) -> None:
        self._log.append_one(self._event, self)

    def stored(self, record: Record, *, duplicate: bool) -> None:
        self.answer.set_result((record.offset, duplicate))

    def refused(self, error: BaseException) -> None:
        self.refusals.append(type(error))
        self.publish()


async def test_who_was_told_of_a_failure_may_call_at_once(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FailsOnce(monkeypatch)
    publishers = [Persistent(log, make_event(number)) for number in (1, 2)]
    publishers[0].publish()
    await disk.began()
    publishers[1].publish()
    disk.fail()
    assert await asyncio.gather(*(each.answer for each in publishers)) == [(1, False), (2, False)]
    assert [each.refusals for each in publishers] == [[LogUnavailable], [LogUnavailable]]


async def test_trim_makes_room_on_a_full_disk(log: SqliteLog) -> None:
    pages(log, f"max_page_count = {pages(log, 'page_count') + 50}")
    await fill(log)
    head = log.head
    assert await log.trim(now=0) == (head, 0)
    assert log.status() is None
    assert answers_of(await log.append([make_event(5000, data=b"x" * 10_000)])) == [(head + 1, False)]


LIMITED_FILE_SIZE = """
import asyncio, json, resource, sys
from pathlib import Path
from gapless.errors import LogUnavailable
from gapless.eventlog import EVERYTHING
from gapless.eventlog.sqlite import SqliteLog
from gapless.event import Event, Origin

def make_event(number, data):
    topic = f"t/{number}"
    return Event(
        id=f"id-{number:08d}", type="message", topic=topic, rooms=("all",), data=data, time=1, origin=Origin("rest")
    )

async def main(path):
    heard = []
    log = SqliteLog(path)
    await log.open(heard.extend)
    await log.append([make_event(number, b"x") for number in range(1, 11)])
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name("log.db-wal").stat().st_size + 5000, hard))
    refused = 0
    for number in (11, 12):
        try:
            await log.append([make_event(number, b"x" * 100_000)])
        except LogUnavailable:
            refused += 1
    report = {"refused": refused, "head": log.head, "status": log.status()}
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    [(record, _)] = await log.append([make_event(13, b"x")])
    report |= {"next": record.offset, "status after": log.status(), "heard": [record.offset for record in heard]}
    report["read"] = [record.event.id for record in (await log.read(EVERYTHING, 9)).records]
    await log.close()
    print(json.dumps(report))

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_failing_write_to_the_file(tmp_path: Path) -> None:
    """The system refuses to write (EFBIG): what came before is kept, and it recovers in the same process."""
    path = tmp_path / "log.db"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", LIMITED_FILE_SIZE, str(path)],
        capture_output=True,
        check=False,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["refused"], report["head"]) == (2, 10)
    assert "disk I/O error" in report["status"]
    assert (report["next"], report["status after"]) == (11, None)
    assert report["heard"] == list(range(1, 12))
    assert report["read"] == [make_event(10).id, make_event(13).id]
    found = check(path)
    assert (found.head, found.problems) == (11, ())


async def test_dead_writer_refuses_what_waits_and_what_comes(
    log: SqliteLog, heard: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.append(make_events(3))

    def fail(*_: object) -> NoReturn:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "apply", fail)
        waiting = [log.append([make_event(n)]) for n in range(10, 30)]
        reading = asyncio.ensure_future(log.read_state(PUMP, "a"))
        results = await asyncio.gather(*waiting, reading, return_exceptions=True)
    assert {type(result) for result in results} == {LogUnavailable}
    assert "writer ended by a defect" in (log.status() or "")
    with pytest.raises(LogUnavailable, match="writer ended by a defect"):
        await log.append([make_event(30)])
    assert offsets_of(heard) == [1, 2, 3]
    assert offsets_of((await log.read(EVERYTHING, 0)).records) == [1, 2, 3], "history is still served"
    assert log.waiting_bytes == 0
    await log.close()

    again = SqliteLog(tmp_path / "log.db")
    await again.open(lambda _: None)
    assert again.head == 3
    await again.close()


async def test_what_is_stored_one_by_one_is_told_once_though_the_writer_then_dies(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three has a defect, so each is stored by itself; the disk's damage is found at the second."""
    apply = Transaction.apply
    damage = sqlite3.DatabaseError("database disk image is malformed")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def fail(transaction: Transaction, jobs: list[WriteJob]) -> None:
        if len(jobs) > 1:
            raise ValueError("a defect")
        if isinstance(jobs[0], OneJob) and jobs[0].event.id == make_event(2).id:
            raise damage
        apply(transaction, jobs)

    monkeypatch.setattr(Transaction, "apply", fail)
    told: list[tuple[int, str]] = []
    over = asyncio.Event()
    for number in (1, 2, 3):
        log.append_one(make_event(number), Telling(number, told, over))
    await over.wait()
    assert told == [(1, "stored"), (2, "refused"), (3, "refused")]
    assert log.waiting_bytes == 0


class Telling:
    """Notes what an event's publisher is told; `over` with the third."""

    def __init__(self, number: int, told: list[tuple[int, str]], over: asyncio.Event) -> None:
        self._number = number
        self._told = told
        self._over = over

    def stored(self, record: Record, *, duplicate: bool) -> None:
        self._note("stored")

    def refused(self, error: BaseException) -> None:
        self._note("refused")

    def _note(self, what: str) -> None:
        self._told.append((self._number, what))
        if self._number == 3:
            self._over.set()


async def test_damage_found_while_writing_stops_the_writer(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    await log.append(make_events(3))
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def fail(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(Transaction, "store", fail)
    with pytest.raises(LogUnavailable, match="damaged"):
        await log.append([make_event(4)])
    with pytest.raises(LogUnavailable, match="damaged"):
        await log.append([make_event(5)])
    assert "the log's file is damaged" in (log.status() or "")


async def test_damaged_event_is_reported_by_the_read(log: SqliteLog) -> None:
    await log.append(make_events(3))
    assert log._database is not None
    log._database.connection.execute("UPDATE events SET body = x'c1' WHERE offset = 2")
    with pytest.raises(LogCorrupt, match="cannot be read"):
        await log.read(EVERYTHING, 0)
    with pytest.raises(LogCorrupt):
        await log.append([make_event(2)])
    # The neighbours in the same commit are not harmed by it.
    results = await asyncio.gather(*[log.append([make_event(n)]) for n in (2, 7, 8)], return_exceptions=True)
    assert [type(result) for result in results] == [LogCorrupt, list, list]
    assert log.head == 5


async def test_cancelled_close_closes_all_the_same(log: SqliteLog, tmp_path: Path) -> None:
    appended = log.append(make_events(100))
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await log.close()
    assert len(await appended) == 100
    again = SqliteLog(tmp_path / "log.db")
    await again.open(lambda _: None)
    assert again.head == 100
    await again.close()


async def test_open_close_open_on_one_object(log: SqliteLog, heard: list[Record]) -> None:
    await log.append([make_event(1)])
    await log.close()
    await log.open(heard.extend)
    assert answers_of(await log.append([make_event(1), make_event(2)])) == [(1, True), (2, False)]
    assert offsets_of(heard) == [1, 2]
