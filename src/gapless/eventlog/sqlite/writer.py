"""The writer: one thread that owns the write connection and commits whatever waits, at once."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from gapless.errors import GaplessError, LogCorrupt, LogUnavailable
from gapless.eventlog.contract import Retention, Trimmed
from gapless.eventlog.sqlite.checkpoint import Checkpoints
from gapless.eventlog.sqlite.jobs import (
    AppendJob,
    Job,
    OneJob,
    Outcome,
    StopJob,
    TrimJob,
    WriteJob,
    waiting_for,
)
from gapless.eventlog.sqlite.transaction import Tip, Transaction
from gapless.eventlog.sqlite.trim import trim_chunk

logger = logging.getLogger("gapless.eventlog")

#: Most of one transaction, so that its answers do not hold the event loop for long.
_BATCH_BYTES = 8 << 20
_BATCH_EVENTS = 4096
_FULL = "the disk is full"
#: After these the write-ahead log is as good as before.
_HARMLESS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM)
#: Errors that no disk makes: something in one of the jobs cannot be stored, or read back.
_OF_ONE_JOB = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
    GaplessError,
    ValueError,
    TypeError,
    OverflowError,
)


class Writer:
    """Group commit: a lone append waits for nothing, under load a commit takes all that waits.

    Each transaction's outcome goes to `post`, in order, from the writer's thread. A crash
    before the commit loses what nobody was told of; a crash after it, before the answer,
    leaves events that publishers send again, and the log then knows by their ids.

    When a transaction cannot be written the writer stands still until the event loop has taken back
    what waits (`drain`), refused all of it together, and says `go_on`: a later event must not come
    before one that its publisher sends again.

    Args:
        connection: the write connection; the writer closes it.
        tip: the log's end as it is on disk.
        checkpoints: told of each commit.
        trimmed: offset through which retention has deleted.
        before_close: called in the writer's thread when all is committed.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        tip: Tip,
        *,
        checkpoints: Checkpoints,
        trimmed: int,
        epoch: str,
        retention: Retention,
        clock: Callable[[], float],
        post: Callable[[Outcome], None],
        before_close: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._tip = tip
        self._checkpoints = checkpoints
        self._trimmed = trimmed
        self._epoch = epoch
        self._retention = retention
        self._clock = clock
        self._post = post
        self._before_close = before_close
        self._queue: SimpleQueue[Sequence[Job]] = SimpleQueue()
        self._jobs: deque[Job] = deque()  # taken from the queue
        self._alone = 0  # so many of the next jobs are committed one by one
        self._current: list[Job] = []  # not answered yet
        self._told = threading.Event()
        self._synchronous = "FULL"
        self._suspect = False
        # A daemon: a process that ends without closing the log must not hang; WAL survives it.
        self._thread = threading.Thread(target=self._run, name="gapless-log-writer", daemon=True)

    def start(self) -> None:
        """Begin to work on jobs."""
        self._checkpoints.start()
        self._thread.start()

    def put(self, jobs: Sequence[Job]) -> None:
        """Queue jobs; who waits for them is answered through `post`. The caller bounds the queue."""
        self._queue.put(jobs)

    def drain(self) -> list[Job]:
        """Take back the jobs of a writer that is dead, or stands still."""
        self._take_all()
        left = list(self._jobs)
        self._jobs.clear()
        self._alone = 0
        return left

    def go_on(self) -> None:
        """What was called before a transaction failed is refused."""
        self._told.set()

    def _run(self) -> None:
        try:
            while not self._round():
                pass
        except BaseException as error:
            fault = error.message if isinstance(error, LogCorrupt) else f"the log's writer ended by a defect: {error!r}"
            logger.critical("%s; nothing more is written", fault, exc_info=True)
            self._abandon()
            self._answer(
                Outcome(
                    refused=[(waiting_for(job), unavailable(error, fault)) for job in self._current],
                    size=sum(job.size for job in self._current),
                    fault=fault,
                    dead=True,
                )
            )

    def _round(self) -> bool:
        """Work on what waits; says whether it was the last."""
        jobs = self._jobs
        if not jobs:
            jobs.extend(self._queue.get())
        first = jobs.popleft()
        if isinstance(first, StopJob):
            self._current = [first]
            self._stop(first)
            return True
        if isinstance(first, TrimJob):
            self._current = [first]
            self._answer(self._trim(first))
        else:
            batch = self._batch(first)
            self._current = list(batch)
            self._commit(batch)
        self._current = []
        return False

    def _answer(self, outcome: Outcome) -> None:
        """Tell what became of the current jobs: once, whatever happens next."""
        self._current = []
        self._post(outcome)

    def _batch(self, first: WriteJob) -> list[WriteJob]:
        batch = [first]
        if self._alone:
            self._alone -= 1
            return batch
        size = first.size
        events = len(first.events) if isinstance(first, AppendJob) else 1
        self._take_all()
        jobs = self._jobs
        while jobs and size < _BATCH_BYTES and events < _BATCH_EVENTS:
            job = jobs[0]
            if isinstance(job, OneJob):  # most are
                events += 1
            elif isinstance(job, TrimJob | StopJob):
                break
            else:
                events += len(job.events) if isinstance(job, AppendJob) else 1
            batch.append(job)
            jobs.popleft()
            size += job.size
        return batch

    def _take_all(self) -> None:
        while True:
            try:
                self._jobs.extend(self._queue.get_nowait())
            except Empty:
                return

    def _commit(self, batch: list[WriteJob]) -> None:
        try:
            transaction = Transaction(self._connection, self._tip, epoch=self._epoch, now_ms=int(self._clock() * 1000))
            transaction.apply(batch)
            if transaction.writes:
                self._begin(durable=transaction.durable)
                transaction.store()
                self._connection.execute("COMMIT")
        except _OF_ONE_JOB as error:
            self._roll_back(error)  # the one bad job must harm no other
            if len(batch) == 1:
                logger.exception("a write to the log failed by a defect")
                refused = error if isinstance(error, GaplessError) else unavailable(error)
                self._answer(Outcome(refused=[(waiting_for(batch[0]), refused)], size=batch[0].size))
            else:
                self._alone = len(batch)
                self._jobs.extendleft(reversed(batch))
        except sqlite3.Error as error:
            self._roll_back(error)
            self._stop_if_damaged(error)
            self._answer(self._refusal(batch, error, failed=error))
            self._told.wait()
            self._told.clear()
        else:
            self._tip = transaction.tip
            transaction.outcome.wrote = transaction.writes
            self._answer(transaction.outcome)
            if transaction.writes:
                self._copy(transaction.outcome.size)

    def _copy(self, size: int) -> None:
        try:
            self._checkpoints.committed(self._connection, size)
        except sqlite3.Error as error:  # what was committed is durable, and answered
            logger.error("the write-ahead log could not be copied: %s", error)
            self._roll_back(error)

    def _trim(self, job: TrimJob) -> Outcome:
        try:
            self._begin(durable=False)  # what a power cut brings back is trimmed again
            trimmed, held = trim_chunk(
                self._connection,
                self._tip,
                trimmed=self._trimmed,
                retention=self._retention,
                now=job.now,
                keep_after=job.keep_after,
            )
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(error)
            self._stop_if_damaged(error)
            return self._refusal([job], error)
        except GaplessError as error:
            self._roll_back(error)
            return Outcome(refused=[(job.future, error)], size=job.size)
        removed, self._trimmed = trimmed - self._trimmed, trimmed
        answer = Trimmed(removed, held)
        return Outcome(answers=[(job.future, answer)], size=job.size, trimmed=trimmed, wrote=removed > 0)

    def _begin(self, *, durable: bool) -> None:
        if self._suspect:
            self._recover()
        synchronous = "FULL" if durable else "NORMAL"
        if synchronous != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous
        self._connection.execute("BEGIN IMMEDIATE")

    def _recover(self) -> None:
        """After a failed write or fsync: rebuild trust in what lies on the disk.

        A kernel that failed an fsync may drop the pages and report the next fsync as good. So
        nothing is built on that write-ahead log: it is first copied into the database, which
        is written and synced anew, and emptied.
        """
        self._connection.execute("PRAGMA synchronous = FULL")
        self._synchronous = "FULL"
        (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("a reader holds the log while it recovers from a disk error")
        self._suspect = False
        logger.warning("the log recovered from a disk error")

    def _roll_back(self, error: Exception) -> None:
        if isinstance(error, sqlite3.OperationalError) and _code(error) not in _HARMLESS:
            self._suspect = True
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _stop_if_damaged(self, error: sqlite3.Error) -> None:
        if _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise LogCorrupt(
                f"the log's file is damaged: {error}", hint="stop the gateway and restore the log from a backup"
            ) from error

    def _refusal(
        self, jobs: list[WriteJob] | list[TrimJob], error: sqlite3.Error, *, failed: sqlite3.Error | None = None
    ) -> Outcome:
        fault = _FULL if _code(error) == sqlite3.SQLITE_FULL else f"the log cannot be written: {error}"
        logger.error("%s; %d calls refused", fault, len(jobs))
        return Outcome(
            refused=[(waiting_for(job), unavailable(error, fault)) for job in jobs],
            size=sum(job.size for job in jobs),
            fault=fault,
            failed=failed,
        )

    def _stop(self, job: StopJob) -> None:
        self._checkpoints.close()
        self._before_close()
        self._connection.close()
        self._answer(Outcome(answers=[(job.future, None)], fault="the log is closed"))

    def _abandon(self) -> None:
        try:
            self._checkpoints.close()
            self._before_close()
            self._connection.close()
        except (sqlite3.Error, OSError):
            logger.exception("the log's database did not close")


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where the error comes from the module itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def unavailable(error: BaseException | None, fault: str | None = None) -> LogUnavailable:
    """What a caller is told whose job was not stored."""
    fault = fault or "the log cannot take writes"
    refusal = LogUnavailable(
        f"{fault}; nothing of this call was stored",
        hint="free some space, then try again" if fault == _FULL else "see the server's log for the cause",
    )
    refusal.__cause__ = error
    return refusal
