"""One transaction of the writer: from jobs to rows."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, assert_never

from gapless.event import Event, Record
from gapless.eventlog.contract import Appended, StateKind, StateWrite
from gapless.eventlog.encoding import decode_event
from gapless.eventlog.sqlite.jobs import (
    AppendJob,
    OneJob,
    Outcome,
    ReadRetainedJob,
    ReadStateJob,
    RetainedJob,
    StateJob,
    WriteJob,
)
from gapless.eventlog.sqlite.schema import BLOCK_BITS, NAMESAKE, as_json, is_stored_id, pack

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MAX_INTEGER = 2**63 - 1

_COLUMNS = 6
# Many rows by one statement (see `pack`): binding values costs less than taking them out of an array. There is a
# statement for each number of rows; they fit the connection's cache of 128 prepared ones.
_MOST_ROWS = 64
_INSERT_EVENTS = [
    'INSERT INTO events ("offset", id, topic, total, appended, body) VALUES ' + ", ".join(["(?, ?, ?, ?, ?, ?)"] * rows)
    for rows in range(_MOST_ROWS + 1)
]
# By room and topic: nothing must be taken out of an array for each row, and neighbours in the index come together.
# A caller's event may name a room twice.
_INSERT_ROOMS, _INSERT_TOPICS = (
    f"""
INSERT OR IGNORE INTO {table} (block, {name}, "offset")
SELECT offsets.value >> {BLOCK_BITS}, wanted.key, offsets.value
FROM json_each(?1) AS wanted CROSS JOIN json_each(wanted.value) AS offsets
"""
    for table, name in (("event_rooms", "room"), ("event_topics", "topic"))
)
# What is stored under an id, and what authors stored later under the same one (see `stored_id`).
_SELECT_KNOWN = f"""
SELECT wanted.value, events.id, events."offset", events.body
FROM json_each(?1) AS wanted CROSS JOIN events
    ON events.id BETWEEN wanted.value AND wanted.value || '{NAMESAKE}~'
"""
_UPSERT_STATE = """
INSERT OR REPLACE INTO state (kind, key, value)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'),
    substr(?2, json_extract(value, '$[2]'), json_extract(value, '$[3]'))
FROM json_each(?1)
"""
_DELETE_STATE = """
DELETE FROM state WHERE (kind, key) IN (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?1)
)
"""
_UPSERT_RETAINED = """
INSERT OR REPLACE INTO retained (topic, "offset", expires, body)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    substr(?2, json_extract(value, '$[3]'), json_extract(value, '$[4]'))
FROM json_each(?1)
"""
_DELETE_RETAINED = "DELETE FROM retained WHERE topic IN (SELECT value FROM json_each(?1))"


@dataclass(slots=True, frozen=True)
class Tip:
    """The log's newest end, as committed.

    Attributes:
        head: offset of the newest event.
        total: bytes of all events up to it, by `Event.size`, counted from some start.
        appended: milliseconds since the Unix epoch when it was appended.
        highest_id: highest id ever seen; a higher one needs no look-up.
    """

    head: int
    total: int
    appended: int
    highest_id: str


class Transaction:
    """Collects the effects of jobs in their order, then stores them at once.

    Later effects of one transaction see the earlier ones: they are collected in dictionaries
    by key, so each topic and each state value is written once however often it changed.
    """

    def __init__(self, connection: sqlite3.Connection, tip: Tip, *, epoch: str, now_ms: int) -> None:
        self._connection = connection
        self._epoch = epoch
        self._known: dict[str, Record] = {}
        self._namesakes: dict[str, list[Record]] = {}  # further ones with an id
        self._events: list[int | str | bytes] = []  # the values of their rows, one after the other
        self._rooms: defaultdict[str, list[int]] = defaultdict(list)
        self._topics: defaultdict[str, list[int]] = defaultdict(list)
        self._retained: dict[str, tuple[Record, bytes] | None] = {}
        self._state: dict[tuple[StateKind, str], bytes | None] = {}
        self._durable = False
        self._head = tip.head
        self._total = tip.total
        self._appended = max(tip.appended, now_ms)
        self._highest_id = tip.highest_id
        self.outcome = Outcome()

    @property
    def tip(self) -> Tip:
        """The log's end once this is committed."""
        return Tip(self._head, self._total, self._appended, self._highest_id)

    @property
    def durable(self) -> bool:
        """Whether it must survive a power cut (and not only the death of the process)."""
        return self._durable

    @property
    def writes(self) -> bool:
        """Whether there is anything to store."""
        return bool(self._events or self._retained or self._state)

    def apply(self, jobs: list[WriteJob]) -> None:
        """Take the jobs' effects and their answers, in order."""
        self._look_up(_ids(jobs))
        stored = self.outcome.stored
        for job in jobs:
            self.outcome.size += job.size
            if isinstance(job, OneJob):  # most are
                self._durable = True
                if job.state:
                    self._write_state(job.state)
                record, duplicate = self._append(job.event, job.body, job.weight)
                stored.append((job.answer, record, duplicate))
                continue
            match job:
                case AppendJob():
                    self._durable |= bool(job.events or job.state)
                    self._write_state(job.state)
                    appended = [
                        Appended(*self._append(event, body, event.size))
                        for event, body in zip(job.events, job.bodies, strict=True)
                    ]
                    self.outcome.answers.append((job.future, appended))
                case StateJob():
                    self._durable |= job.durable
                    self._write_state(job.writes)
                    self.outcome.answers.append((job.future, None))
                case RetainedJob():
                    self._retain(job.topic, None if job.event is None else Record(job.event), job.body)
                    self.outcome.answers.append((job.future, None))
                case ReadStateJob():
                    kind, key = job.kind, job.key
                    value = self._all_state(kind) if key is None else self._read_state(kind, key)
                    self.outcome.answers.append((job.future, value))
                case ReadRetainedJob():
                    self.outcome.answers.append((job.future, self._all_retained()))
                case _:
                    assert_never(job)

    def store(self) -> None:
        """Write everything within the connection's open transaction.

        Raises:
            sqlite3.Error: it cannot be written; roll back.
        """
        execute = self._connection.execute
        if self._events:
            _insert(execute, self._events)
            execute(_INSERT_TOPICS, (as_json(self._topics),))
        if self._rooms:
            execute(_INSERT_ROOMS, (as_json(self._rooms),))
        kept = [
            (topic, record.offset, _as_integer(record.event.expires), body)
            for topic, (record, body) in _present(self._retained)
        ]
        if kept:
            execute(_UPSERT_RETAINED, pack(kept))
        if len(kept) < len(self._retained):
            execute(_DELETE_RETAINED, (as_json([topic for topic, kept in self._retained.items() if kept is None]),))
        values = [(kind, key, value) for (kind, key), value in _present(self._state)]
        if values:
            execute(_UPSERT_STATE, pack(values))
        if len(values) < len(self._state):
            execute(_DELETE_STATE, (as_json([name for name, value in self._state.items() if value is None]),))

    def _look_up(self, ids: Iterable[str]) -> None:
        """Find which ids the log keeps. Ids above the highest are new: the gateway's own rise."""
        highest = self._highest_id
        wanted = [event_id for event_id in ids if event_id <= highest]
        if not wanted:
            return
        for event_id, stored_id, offset, body in self._connection.execute(_SELECT_KNOWN, (as_json(wanted),)).fetchall():
            if is_stored_id(stored_id, event_id):
                self._note(self._record(decode_event(body), offset))

    def _note(self, record: Record) -> bool:
        """Remember an event by its id; whether it is the first of that id."""
        event_id = record.event.id
        first = self._known.setdefault(event_id, record)
        if first is not record:
            self._namesakes.setdefault(event_id, []).append(record)
        return first is record

    def _record(self, event: Event, offset: int) -> Record:
        return Record(event, offset, f"{self._epoch}:{offset}")

    def _append(self, event: Event, body: bytes, weight: int) -> tuple[Record, bool]:
        """The event's record, and whether it was there before. Hot."""
        event_id = event.id
        known = self._known.get(event_id)
        if known is not None:
            for one in (known, *self._namesakes.get(event_id, ())):
                if event.is_copy_of(one.event):
                    return one, True
        self._head = offset = self._head + 1
        record = Record(event, offset, f"{self._epoch}:{offset}")
        if not self._note(record):
            event_id = f"{event_id}{NAMESAKE}{offset}"
        topic = event.topic
        self._events += (offset, event_id, topic, self._total, self._appended, body)
        for room in event.rooms:
            self._rooms[room].append(offset)
        self._topics[topic].append(offset)
        self._total += weight
        if event_id > self._highest_id:
            self._highest_id = event_id
        if event.retain:
            self._retain(event.topic, record, body)
        self.outcome.records.append(record)
        return record, False

    def _retain(self, topic: str, record: Record | None, body: bytes) -> None:
        cleared = record is None or record.event.mqtt_payload == b""
        self._retained[topic] = None if record is None or cleared else (record, body)

    def _write_state(self, writes: Sequence[StateWrite]) -> None:
        for kind, key, value in writes:
            self._state[kind, key] = value

    def _read_state(self, kind: StateKind, key: str) -> bytes | None:
        if (kind, key) in self._state:
            return self._state[kind, key]
        row = self._connection.execute("SELECT value FROM state WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else bytes(row[0])

    def _all_state(self, kind: StateKind) -> dict[str, bytes]:
        stored = dict(self._connection.execute("SELECT key, value FROM state WHERE kind = ?", (kind,)).fetchall())
        for (other, key), value in self._state.items():
            if other != kind:
                continue
            if value is None:
                stored.pop(key, None)
            else:
                stored[key] = value
        return stored

    def _all_retained(self) -> list[Record]:
        stored: dict[str, Record] = {}
        for topic, offset, body in self._connection.execute('SELECT topic, "offset", body FROM retained').fetchall():
            event = decode_event(body)
            stored[topic] = self._record(event, offset) if offset else Record(event)
        for topic, kept in self._retained.items():
            if kept is None:
                stored.pop(topic, None)
            else:
                stored[topic] = kept[0]
        return list(stored.values())


def _insert(execute: Callable[[str, Sequence[object]], object], values: list[int | str | bytes]) -> None:
    most = _MOST_ROWS * _COLUMNS
    for begin in range(0, len(values), most):
        some = values[begin : begin + most]
        execute(_INSERT_EVENTS[len(some) // _COLUMNS], some)


def _ids(jobs: Iterable[WriteJob]) -> Iterator[str]:
    for job in jobs:
        if isinstance(job, OneJob):
            yield job.event.id
        elif isinstance(job, AppendJob):
            for event in job.events:
                yield event.id


def _present(values: Mapping[K, V | None]) -> list[tuple[K, V]]:
    return [(key, value) for key, value in values.items() if value is not None]


def _as_integer(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else min(milliseconds, _MAX_INTEGER)
