"""What waits for the writer, and what comes back from it."""

from __future__ import annotations

import sqlite3
from asyncio import Future
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gapless.event import Event, Record
from gapless.eventlog.contract import Answer, Appended, StateKind, StateWrite, Trimmed


@dataclass(slots=True, frozen=True, eq=False)
class AppendJob:
    """Events with their stored forms, and state values with them. `size` in bytes, for the bound."""

    future: Future[list[Appended]]
    events: Sequence[Event]
    bodies: Sequence[bytes]
    state: Sequence[StateWrite]
    size: int


class OneJob(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One event with its stored form, whose publisher is told by a call. `weight` is that of the event alone."""

    answer: Answer
    event: Event
    body: bytes
    weight: int
    state: Sequence[StateWrite]
    size: int


@dataclass(slots=True, frozen=True, eq=False)
class StateJob:
    """State values alone."""

    future: Future[None]
    writes: Sequence[StateWrite]
    durable: bool
    size: int


@dataclass(slots=True, frozen=True, eq=False)
class RetainedJob:
    """An ephemeral event as its topic's last value; None clears the topic."""

    future: Future[None]
    topic: str
    event: Event | None
    body: bytes
    size: int


@dataclass(slots=True, frozen=True, eq=False)
class ReadStateJob:
    """One state value, or with `key` None all of the kind, as of this place in the queue."""

    future: Future[Any]
    kind: StateKind
    key: str | None
    size: int = 100


@dataclass(slots=True, frozen=True, eq=False)
class ReadRetainedJob:
    """All retained messages, as of this place in the queue."""

    future: Future[list[Record]]
    size: int = 100


@dataclass(slots=True, frozen=True, eq=False)
class TrimJob:
    """Delete one chunk of what the retention no longer keeps."""

    future: Future[Trimmed]
    now: float
    keep_after: int | None
    size: int = 100


@dataclass(slots=True, frozen=True, eq=False)
class StopJob:
    """Close: the last job."""

    future: Future[None]
    size: int = 0


WriteJob = OneJob | AppendJob | StateJob | RetainedJob | ReadStateJob | ReadRetainedJob
Job = WriteJob | TrimJob | StopJob


def waiting_for(job: Job) -> Future[Any] | Answer:
    """Who is to be told what became of a job."""
    return job.answer if isinstance(job, OneJob) else job.future


@dataclass(slots=True, eq=False)
class Outcome:
    """What the writer tells the event loop, once per transaction.

    Attributes:
        records: newly committed events, in offset order, duplicates not among them.
        stored: who waits for one event, its record, and whether it was there before; in the order of the calls.
        answers: futures with their results, in the order of the calls.
        refused: futures, and who waits for one event, with their errors.
        size: bytes that wait no longer.
        trimmed: offset through which retention has deleted.
        wrote: whether something was stored: what failed before has passed.
        fault: why writing fails, for people.
        failed: why a transaction could not be written: the writer stands still until `Writer.go_on`.
        dead: whether the writer has ended by a defect and will answer nothing more.
    """

    records: list[Record] = field(default_factory=list)
    stored: list[tuple[Answer, Record, bool]] = field(default_factory=list)
    answers: list[tuple[Future[Any], object]] = field(default_factory=list)
    refused: list[tuple[Future[Any] | Answer, BaseException]] = field(default_factory=list)
    size: int = 0
    trimmed: int | None = None
    wrote: bool = False
    fault: str | None = None
    failed: sqlite3.Error | None = None
    dead: bool = False

    @property
    def answered(self) -> int:
        """How many jobs it is the end of."""
        return len(self.stored) + len(self.answers) + len(self.refused)
