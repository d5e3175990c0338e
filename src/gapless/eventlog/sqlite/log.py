"""The event log in an SQLite file: the side that the event loop sees."""

from __future__ import annotations

import asyncio
import logging
import time as _time
from asyncio import Future
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from gapless.errors import GaplessError, LogUnavailable, Overloaded
from gapless.event import Event, Record
from gapless.eventlog.answers import refuse, resolve, tell
from gapless.eventlog.contract import (
    Answer,
    Appended,
    CommittedListener,
    Page,
    Retention,
    Selector,
    StateKind,
    StateWrite,
    Trimmed,
)
from gapless.eventlog.encoding import check_state, encode_event
from gapless.eventlog.sqlite.checkpoint import Checkpoints
from gapless.eventlog.sqlite.database import Database
from gapless.eventlog.sqlite.handoff import Handoff
from gapless.eventlog.sqlite.jobs import (
    AppendJob,
    Job,
    OneJob,
    Outcome,
    ReadRetainedJob,
    ReadStateJob,
    RetainedJob,
    StateJob,
    StopJob,
    TrimJob,
    waiting_for,
)
from gapless.eventlog.sqlite.reader import Readers, find_event, read_page
from gapless.eventlog.sqlite.trim import CHUNK
from gapless.eventlog.sqlite.writer import Writer, unavailable

T = TypeVar("T")
logger = logging.getLogger("gapless.eventlog")

_CLOSED = "the log is closed"
#: So many jobs are handed to the writer before the step of the loop ends, so that it can begin.
_AT_ONCE = 64


class SqliteLog:
    """An `EventLog` in one SQLite file, with one writer thread and a few readers.

    Acknowledged means on disk: every transaction with events, or with state that asked for
    it, is synced before anybody hears of it. Writes that need only survive the death of the
    process are not synced; they do survive it, being in the system's memory.

    Args:
        path: the database; beside it SQLite keeps `-wal` and `-shm`, and this class `.lock`.
            The folder must exist.
        retention: what `trim` keeps.
        max_waiting_bytes: what may wait to be committed, in bytes by `Event.size`; past it
            calls are refused with `Overloaded`. A lone larger call is taken.
        quick_check_bytes: largest file whose every page is looked at when it is opened.
        readers: threads that read history.
        clock: seconds since the Unix epoch; stamps events for the retention by age.
    """

    def __init__(
        self,
        path: Path,
        *,
        retention: Retention | None = None,
        max_waiting_bytes: int = 64 << 20,
        quick_check_bytes: int = 256 << 20,
        readers: int = 2,
        clock: Callable[[], float] = _time.time,
    ) -> None:
        self._path = Path(path)
        self._retention = retention or Retention()
        self._max_waiting_bytes = max_waiting_bytes
        self._quick_check_bytes = quick_check_bytes
        self._reader_threads = readers
        self._clock = clock
        self._epoch = ""
        self._head = 0
        self._trimmed = 0
        self._waiting_bytes = 0
        self._fault: str | None = _CLOSED  # why writes fail
        self._refusing: str | None = _CLOSED  # why new calls are refused
        self._database: Database | None = None
        self._writer: Writer | None = None
        self._readers: Readers | None = None
        self._handoff: Handoff | None = None
        self._outbox: list[Job] = []  # for the writer, at the end of this step of the loop
        self._on_committed: CommittedListener | None = None
        self._closing: asyncio.Task[None] | None = None
        self._writer_is_dead = False

    @property
    def epoch(self) -> str:
        """Names this life of the log: letters and digits."""
        return self._epoch

    @property
    def head(self) -> int:
        """Offset of the newest durable event; 0 in an empty log."""
        return self._head

    @property
    def oldest(self) -> int:
        """Offset of the oldest event kept; `head + 1` where none is kept."""
        return self._trimmed + 1

    @property
    def waiting_bytes(self) -> int:
        """Bytes accepted and not yet committed."""
        return self._waiting_bytes

    def status(self) -> str | None:
        """Why the log takes no writes, for people; None while the last write went well.

        A full disk is over with the next write that succeeds; a dead writer needs a restart.
        """
        return self._fault

    async def open(self, on_committed: CommittedListener) -> None:
        """Open or create the log. See the contract; the folder must exist.

        Raises:
            LogCorrupt: the file is damaged, torn, not a log, or of a newer version; it is
                left as it was.
            LogUnavailable: another gateway has it open (`pid` in the details), or its folder
                is missing or cannot be written.
        """
        if self._writer is not None:
            raise LogUnavailable("the log is open already")
        opening = asyncio.ensure_future(
            asyncio.to_thread(Database.open, self._path, quick_check_bytes=self._quick_check_bytes)
        )
        try:
            database = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_let_go)
            raise
        loop = asyncio.get_running_loop()
        self._database = database
        self._epoch, self._head, self._trimmed = database.epoch, database.tip.head, database.trimmed
        self._on_committed = on_committed
        self._handoff = handoff = Handoff(loop)
        self._readers = Readers(self._path, handoff, threads=self._reader_threads)
        self._writer = Writer(
            database.connection,
            database.tip,
            checkpoints=Checkpoints(self._path),
            trimmed=database.trimmed,
            epoch=database.epoch,
            retention=self._retention,
            clock=self._clock,
            post=lambda outcome: _post(loop, handoff, self._finish, outcome),
            before_close=database.note_closing,
        )
        self._writer.start()
        self._fault = self._refusing = None
        self._closing = None
        self._writer_is_dead = False

    async def close(self) -> None:
        """Commit what was accepted, then close. Later calls raise `LogUnavailable`.

        Closing twice is fine. Cancelling the caller does not stop the closing.
        """
        if self._writer is None:
            return
        if self._closing is None:
            self._refusing = self._refusing or _CLOSED
            self._closing = asyncio.create_task(self._close(), name="gapless-log-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        assert self._writer is not None
        assert self._readers is not None
        assert self._database is not None
        assert self._handoff is not None
        # Readers first: the last connection to close copies the write-ahead log into the file.
        await asyncio.to_thread(self._readers.close)
        stopped: Future[None] = asyncio.get_running_loop().create_future()
        if self._writer_is_dead:
            stopped.set_result(None)
        else:
            self._put(StopJob(stopped))
        try:
            await stopped
        finally:
            self._database.lock.release()
            self._handoff.close()
            self._fault = _CLOSED
            self._writer = self._readers = self._database = None

    def append(self, events: Sequence[Event], *, state: Sequence[StateWrite] = ()) -> Future[list[Appended]]:
        """Store events, and state values with them. See the contract.

        Raises:
            InvalidRequest: (from the future) an event cannot be stored, and none was.
            LogUnavailable, Overloaded: (from the future) nothing was stored. Where the disk
                failed in the middle of a sync, a power cut soon after may yet bring the
                events back: publish again with the same ids.
        """

        def make(future: Future[list[Appended]]) -> Job:
            kept, writes = tuple(events), tuple(state)
            size = self._check_room(check_state(writes) + sum(event.size for event in kept))
            return AppendJob(future, kept, [encode_event(event) for event in kept], writes, size)

        return self._submit(make)

    def append_one(self, event: Event, answer: Answer, *, state: Sequence[StateWrite] = ()) -> None:
        """Store one event, and tell `answer`. See the contract.

        Raises:
            InvalidRequest, LogUnavailable, Overloaded: nothing was stored. As for `append`.
        """
        if self._refusing is not None:
            raise LogUnavailable(self._refusing)
        size = weight = event.size
        writes: Sequence[StateWrite] = ()
        if state:
            writes = tuple(state)
            size += check_state(writes)
        self._check_room(size)
        self._put(OneJob(answer, event, encode_event(event), weight, writes, size))

    def write_state(self, writes: Sequence[StateWrite], *, durable: bool) -> Future[None]:
        """Store state values. See the contract.

        Raises:
            LogUnavailable, Overloaded: (from the future) nothing was stored.
        """
        values = tuple(writes)
        return self._submit(lambda future: StateJob(future, values, durable, self._check_room(check_state(values))))

    async def read_state(self, kind: StateKind, key: str) -> bytes | None:
        """One value, or None. Sees every earlier write, committed or not."""
        return await self._submit(lambda future: ReadStateJob(future, kind, key))

    async def all_state(self, kind: StateKind) -> dict[str, bytes]:
        """All values of a kind, by key. Sees every earlier write, committed or not."""
        return await self._submit(lambda future: ReadStateJob(future, kind, None))

    def write_retained(self, topic: str, event: Event | None) -> Future[None]:
        """Keep an ephemeral event as its topic's last value; None clears the topic.

        Survives a SIGKILL once the future resolves, and a power cut once an event was
        committed after it.
        """

        def make(future: Future[None]) -> Job:
            size = self._check_room(100 if event is None else event.size)
            return RetainedJob(future, topic, event, b"" if event is None else encode_event(event), size)

        return self._submit(make)

    async def all_retained(self) -> list[Record]:
        """The last value of every topic that has one; offset 0 for ephemeral ones."""
        return await self._submit(ReadRetainedJob)

    async def read(self, selector: Selector, after: int, *, limit: int = 1000, upto: int | None = None) -> Page:
        """Matching events. See the contract. A page also ends early at 4 MiB, or after 20,000
        topics or index entries looked at.

        Raises:
            ValueError: `limit` is not positive.
            LogCorrupt, LogUnavailable: the file cannot be read.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}, and must be 1 or more")
        readers = self._open_readers()
        end = self._head if upto is None else min(upto, self._head)
        found = await readers.run(lambda connection: read_page(connection, selector, after, limit=limit, upto=end))
        return Page([self._record(offset, event) for offset, event in found.events], found.through, found.complete)

    async def find(self, event_id: str) -> Record | None:
        """The event with this id, where the log keeps it."""
        found = await self._open_readers().run(lambda connection: find_event(connection, event_id))
        return None if found is None else self._record(*found)

    async def trim(self, *, now: float, keep_after: int | None = None) -> Trimmed:
        """Apply the retention. See the contract.

        Appends go on between its chunks. The file does not shrink: later events fill the
        pages that became free.
        """
        removed = 0
        while True:
            chunk: Trimmed = await self._submit(lambda future: TrimJob(future, now, keep_after))
            removed += chunk.removed
            if chunk.removed < CHUNK:
                return Trimmed(removed, chunk.held)

    def _record(self, offset: int, event: Event) -> Record:
        return Record(event, offset, f"{self._epoch}:{offset}")

    def _open_readers(self) -> Readers:
        if self._readers is None or self._closing is not None:
            raise LogUnavailable(_CLOSED)
        return self._readers

    def _check_room(self, size: int) -> int:
        waiting = self._waiting_bytes
        if waiting and waiting + size > self._max_waiting_bytes:
            raise Overloaded("too much waits to be committed", size=waiting + size, limit=self._max_waiting_bytes)
        return size

    def _submit(self, make: Callable[[Future[T]], Job]) -> Future[T]:
        future: Future[T] = asyncio.get_running_loop().create_future()
        try:
            if self._refusing is not None:
                raise LogUnavailable(self._refusing)
            job = make(future)
        except GaplessError as error:
            future.set_exception(error)
        else:
            self._put(job)
        return future

    def _put(self, job: Job) -> None:
        """Give the writer a job, together with the others of this step of the loop: waking it costs more
        than an event, and what it is given together it commits together."""
        self._waiting_bytes += job.size
        outbox = self._outbox
        outbox.append(job)
        if len(outbox) == 1:
            asyncio.get_running_loop().call_soon(self._hand_over)
        elif len(outbox) == _AT_ONCE:
            self._hand_over()

    def _hand_over(self) -> None:
        jobs = self._outbox
        if not jobs or self._writer is None or self._handoff is None:
            return
        self._outbox = []
        self._handoff.begin(len(jobs))
        self._writer.put(jobs)

    def _take_back(self, writer: Writer) -> list[Job]:
        """All that was called until now and waits, of a writer that stands still or is dead."""
        assert self._handoff is not None
        self._hand_over()
        left = writer.drain()
        self._handoff.end(len(left))
        self._waiting_bytes -= sum(job.size for job in left)
        return left

    def _refuse_with(self, outcome: Outcome, writer: Writer) -> None:
        """A transaction failed: what waits is refused with it, in this step of the loop, and the writer goes on."""
        for job in self._take_back(writer):
            if isinstance(job, StopJob):
                self._put(job)
            else:
                outcome.refused.append((waiting_for(job), unavailable(outcome.failed, outcome.fault)))
        writer.go_on()

    def _finish(self, outcome: Outcome) -> None:
        """Hear of one transaction: the listener first, then the futures."""
        assert self._handoff is not None
        self._handoff.end(outcome.answered)
        self._waiting_bytes -= outcome.size
        if outcome.failed is not None and self._writer is not None:
            self._refuse_with(outcome, self._writer)
        if outcome.trimmed is not None:
            self._trimmed = outcome.trimmed
        if outcome.wrote or outcome.fault is not None:
            self._fault = outcome.fault
        if outcome.records:
            self._head = outcome.records[-1].offset
            self._tell(outcome.records)
        tell(outcome.stored)
        for future, result in outcome.answers:
            resolve(future, result)
        for waiting, error in outcome.refused:
            refuse(waiting, error)
        if outcome.dead and self._writer is not None:
            self._bury(self._writer)

    def _bury(self, writer: Writer) -> None:
        """The writer is dead: refuse what it left, and whatever comes."""
        self._writer_is_dead = True
        self._refusing = self._fault
        for job in self._take_back(writer):
            if isinstance(job, StopJob):
                resolve(job.future, None)
            else:
                refuse(waiting_for(job), LogUnavailable(f"{self._fault}; nothing of this call was stored"))

    def _tell(self, records: list[Record]) -> None:
        assert self._on_committed is not None
        try:
            self._on_committed(records)
        except Exception:  # the events are stored: their publishers must hear so
            logger.exception("the committed listener failed")


def _post(
    loop: asyncio.AbstractEventLoop, handoff: Handoff, finish: Callable[[Outcome], None], outcome: Outcome
) -> None:
    try:
        loop.call_soon_threadsafe(finish, outcome)
    except RuntimeError:  # the loop was closed without closing the log: nobody listens any more
        logger.warning("%d answers of the log found no event loop", outcome.answered)
    handoff.worked()


def _let_go(opening: Future[Database]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abandon()
