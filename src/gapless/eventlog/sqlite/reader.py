"""Reading pages of history, on a few threads with read-only connections of their own.

Rows are gathered into one result row by SQL aggregates wherever there may be many, because
every row that SQLite hands over costs a turn at the interpreter's lock (see `schema.pack`).
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from gapless.errors import LogCorrupt, LogUnavailable
from gapless.event import Event
from gapless.eventlog.contract import Selector
from gapless.eventlog.encoding import decode_event
from gapless.eventlog.sqlite.handoff import Handoff
from gapless.eventlog.sqlite.schema import BLOCK_BITS, as_json, connect_reader
from gapless.mqtt.filters import matches

T = TypeVar("T")

#: Most index look-ups and topics looked at in one call; the page then ends early.
_MOST_LOOKED_AT = 20_000
#: Most bytes of stored events in one page; the page then ends early.
_PAGE_BYTES = 4 << 20
_TOPICS_AT_ONCE = 2000
#: Where fewer than one event in so many matches, the index by topic is read in place of the events.
_SPARSE = 16
_MOST_ENTRIES_AT_ONCE = 4000
_MOST_BLOCKS_AT_ONCE = 16

_SELECT_BY_ROOM = """
SELECT json_group_array(found) FROM (
    SELECT DISTINCT entries."offset" AS found
    FROM json_each(?1) AS blocks CROSS JOIN json_each(?2) AS wanted CROSS JOIN event_rooms AS entries
        ON entries.block = blocks.value AND entries.room = wanted.value
    WHERE entries."offset" > ?3 AND entries."offset" <= ?4
    ORDER BY found LIMIT ?5
)
"""
# Ranges of topics, which filters are tested on afterwards.
_SELECT_BY_TOPIC = """
SELECT json_group_array(entries.topic), json_group_array(entries."offset")
FROM json_each(?1) AS blocks CROSS JOIN json_each(?2) AS wanted CROSS JOIN event_topics AS entries
    ON entries.block = blocks.value AND entries.topic BETWEEN wanted.value ->> 0 AND wanted.value ->> 1
WHERE entries."offset" > ?3 AND entries."offset" <= ?4
"""
_SELECT_TOPICS = """
SELECT json_group_array(topic) FROM (
    SELECT topic FROM events WHERE "offset" > ? AND "offset" <= ? ORDER BY "offset"
)
"""
# group_concat joins blobs as the bytes they are in a database of UTF-8 encoding.
_SELECT_BODIES = """
SELECT json_group_array("offset"), json_group_array(length(body)), CAST(group_concat(body, '') AS BLOB) FROM (
    SELECT events."offset", events.body
    FROM json_each(?1) AS wanted CROSS JOIN events ON events."offset" = wanted.value
)
"""
_integers = msgspec.json.Decoder(list[int]).decode
_strings = msgspec.json.Decoder(list[str]).decode


class Events(NamedTuple):
    """A page, before its records are made: events with their offsets."""

    events: list[tuple[int, Event]]
    through: int
    complete: bool


class Readers:
    """A bounded pool of reading threads.

    Args:
        path: the database, open in the writer already.
        handoff: helps the threads to a turn beside a busy event loop.
        threads: how many.
    """

    def __init__(self, path: Path, handoff: Handoff, *, threads: int) -> None:
        self._path = path
        self._handoff = handoff
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._executor = ThreadPoolExecutor(threads, "gapless-log-reader")

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            self._local.connection = connection = connect_reader(self._path)
            self._connections.append(connection)
        return connection

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` within one read transaction, on one of the threads.

        Cancelling the caller leaves the work to end by itself, unheard.

        Raises:
            LogCorrupt: the file turned out to be damaged.
            LogUnavailable: it cannot be read.
        """
        self._handoff.begin()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, work)
        finally:
            self._handoff.end()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("COMMIT")
                self._handoff.worked()
        except sqlite3.OperationalError as error:
            raise LogUnavailable(f"the log cannot be read: {error}") from error
        except sqlite3.Error as error:
            raise LogCorrupt(
                f"the log's file is damaged: {error}", hint="stop the gateway and restore the log from a backup"
            ) from error

    def close(self) -> None:
        """Wait for what is being read, then close. Blocks for milliseconds."""
        self._executor.shutdown(wait=True)
        for connection in self._connections:
            connection.close()


def read_page(connection: sqlite3.Connection, selector: Selector, after: int, *, limit: int, upto: int) -> Events:
    """Matching events with `after < offset <= upto`, within one read transaction.

    The work of one call is bounded; the page then ends early, with `through < upto`.
    """
    (trimmed,) = connection.execute("SELECT value FROM meta WHERE key = 'trimmed'").fetchone()
    start = max(after, trimmed)
    complete = after >= trimmed
    if start >= upto:
        return Events([], max(after, upto), complete)
    if selector.everything:
        through = min(upto, start + limit)
        offsets = list(range(start + 1, through + 1))
    else:
        offsets, through = _find_offsets(connection, selector, start, limit=limit, upto=upto)
    events = _load(connection, offsets)
    if len(events) < len(offsets):
        through = events[-1][0]  # the page is full by bytes
    return Events(events, through, complete)


def find_event(connection: sqlite3.Connection, event_id: str) -> tuple[int, Event] | None:
    """The event with this id and its offset."""
    row = connection.execute('SELECT "offset", body FROM events WHERE id = ?', (event_id,)).fetchone()
    return None if row is None else (row[0], decode_event(row[1]))


def _find_offsets(
    connection: sqlite3.Connection, selector: Selector, start: int, *, limit: int, upto: int
) -> tuple[list[int], int]:
    """At most `limit` matching offsets, and how far every match is among them."""
    rooms = as_json(sorted(selector.rooms))
    topics = _TopicTest(selector.filters)
    found: list[int] = []
    looked_at = 0
    blocks_at_once = 1
    topics_at_once = min(limit, _TOPICS_AT_ONCE)  # where most match, no more are looked at than are wanted
    many_match = bool(selector.filters)
    position = start
    while position < upto and looked_at < _MOST_LOOKED_AT:
        scan = many_match or (bool(selector.filters) and not topics.ranges)
        if scan:
            end = min(upto, position + topics_at_once)
            topics_at_once = min(4 * topics_at_once, _TOPICS_AT_ONCE)
        else:
            first_block = (position + 1) >> BLOCK_BITS
            end = min(upto, ((first_block + blocks_at_once) << BLOCK_BITS) - 1)
            blocks_at_once = min(2 * blocks_at_once, _MOST_BLOCKS_AT_ONCE)
        matching: set[int] = set()
        wanted = limit - len(found)
        blocks = list(range((position + 1) >> BLOCK_BITS, (end >> BLOCK_BITS) + 1))
        if selector.rooms:
            matching.update(_by_room(connection, rooms, blocks, position, end, limit=wanted))
            looked_at += len(selector.rooms) * len(blocks) + len(matching)
        if scan:
            of_topics = _by_scan(connection, topics, position, end)
            looked_at += end - position
            many_match = len(of_topics) * _SPARSE > end - position
            matching.update(of_topics)
        elif selector.filters:
            of_topics, entries = _by_topic(connection, topics, blocks, position, end)
            looked_at += len(topics.ranges) * len(blocks) + entries
            if entries > _MOST_ENTRIES_AT_ONCE:
                blocks_at_once = 1
            matching.update(of_topics)
        if len(matching) >= wanted:
            found.extend(sorted(matching)[:wanted])
            return found, found[-1]
        found.extend(sorted(matching))
        position = end
    return found, position


def _by_room(
    connection: sqlite3.Connection, rooms: str, blocks: list[int], start: int, end: int, *, limit: int
) -> list[int]:
    (found,) = connection.execute(_SELECT_BY_ROOM, (as_json(blocks), rooms, start, end, limit)).fetchone()
    return _integers(found)


def _by_topic(
    connection: sqlite3.Connection, test: _TopicTest, blocks: list[int], start: int, end: int
) -> tuple[list[int], int]:
    """Matching offsets, and how many entries of the index were looked at."""
    ranges = as_json(test.ranges)
    topics, offsets = connection.execute(_SELECT_BY_TOPIC, (as_json(blocks), ranges, start, end)).fetchone()
    names = _strings(topics)
    found = [offset for topic, offset in zip(names, _integers(offsets), strict=True) if test(topic)]
    return found, len(names)


def _by_scan(connection: sqlite3.Connection, test: _TopicTest, start: int, end: int) -> list[int]:
    (gathered,) = connection.execute(_SELECT_TOPICS, (start, end)).fetchone()
    topics = _strings(gathered)
    if len(topics) != end - start:
        raise LogCorrupt(f"events between {start} and {end} are missing", hint="restore the log from a backup")
    return [offset for offset, topic in enumerate(topics, start + 1) if test(topic)]


class _TopicTest:
    """Whether any filter matches a topic; remembers its answers, as topics repeat.

    Attributes:
        ranges: of topics, in the order of their bytes, first and last: all that match are within. Empty where they
            can be anywhere.
    """

    def __init__(self, filters: tuple[str, ...]) -> None:
        self._exact = frozenset(f for f in filters if "+" not in f and "#" not in f)
        self._patterns = tuple(f for f in filters if f not in self._exact)
        self._answers: dict[str, bool] = {}
        self.ranges = [(topic, topic) for topic in sorted(self._exact)]
        for pattern in self._patterns:
            levels = list(takewhile(lambda level: level not in ("+", "#"), pattern.split("/")))
            if not levels:
                self.ranges.clear()
                break
            above = "/".join(levels)
            self.ranges += [(above, above), (above + "/", above + "0")]  # 0 is what follows the slash in ASCII

    def __call__(self, topic: str) -> bool:
        answer = self._answers.get(topic)
        if answer is None:
            answer = topic in self._exact or any(matches(pattern, topic) for pattern in self._patterns)
            self._answers[topic] = answer
        return answer


def _load(connection: sqlite3.Connection, offsets: list[int]) -> list[tuple[int, Event]]:
    """The events at these offsets, all or as many of the first as fit a page, but one at least."""
    events: list[tuple[int, Event]] = []
    loaded_bytes = 0
    at_once = 50  # a first taste of how large they are
    while len(events) < len(offsets) and loaded_bytes < _PAGE_BYTES:
        wanted = offsets[len(events) : len(events) + at_once]
        found, lengths, bodies = connection.execute(_SELECT_BODIES, (as_json(wanted),)).fetchone()
        if _integers(found) != wanted:
            raise LogCorrupt("events are missing from the log", hint="restore it from a backup")
        position = 0
        for offset, length in zip(wanted, _integers(lengths), strict=True):
            events.append((offset, decode_event(bodies[position : position + length])))
            position += length
        loaded_bytes += position
        at_once = max(1, min(1000, (_PAGE_BYTES - loaded_bytes) * len(events) // loaded_bytes))
    return events
