"""Is this file a whole log? Looking without changing a byte of it."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from gapless.errors import LogCorrupt, LogError, LogUnavailable
from gapless.eventlog.encoding import decode_event
from gapless.eventlog.sqlite.schema import (
    APPLICATION_ID,
    BLOCK_BITS,
    SCHEMA_VERSION,
    connect_reader,
    is_stored_id,
    wal_path,
)

_RESTORE = "restore it from a backup, or move it away to begin a new log; nothing was changed"
_MOST_PROBLEMS = 20


class Report(msgspec.Struct, frozen=True):
    """What a check found.

    Attributes:
        epoch: the log's epoch.
        oldest: offset of the oldest event kept.
        head: offset of the newest event.
        events: how many are kept.
        bytes: size of the database file, without its write-ahead log.
        problems: one line each, at most 20; empty where the log is whole.
    """

    epoch: str
    oldest: int
    head: int
    events: int
    bytes: int
    problems: tuple[str, ...]


def check(path: Path) -> Report:
    """Check a whole log, every page and every event; reads all of it, and changes nothing.

    It may run beside the gateway that has the log open, and sees what is committed.

    Raises:
        LogUnavailable: there is no file, or it cannot be read.
        LogCorrupt: it is not a log, or too damaged to be looked at.
    """
    if not path.exists():
        raise LogUnavailable(f"there is no log at {path}", hint="name the log's file")
    check_identity(path)
    try:
        with closing(connect_reader(path, immutable=_alone(path))) as connection:
            connection.execute("BEGIN")  # one moment for all that follows
            meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            low, high, count = connection.execute(
                'SELECT min("offset"), max("offset"), count(*) FROM events'
            ).fetchone()
            trimmed = int(meta["trimmed"])
            problems = []
            for problem in _problems(connection, low, high, count, trimmed, by_topic=version > 1):
                problems.append(problem)
                if len(problems) == _MOST_PROBLEMS:
                    break
            return Report(str(meta["epoch"]), trimmed + 1, high or trimmed, count, path.stat().st_size, tuple(problems))
    except (sqlite3.Error, KeyError) as error:
        raise LogCorrupt(f"{path} is damaged: {error}", hint=_RESTORE) from error


def _problems(
    connection: sqlite3.Connection, low: int | None, high: int | None, count: int, trimmed: int, *, by_topic: bool
) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check(20)"):
        if line != "ok":
            yield str(line)
    if low is not None and high is not None and (low != trimmed + 1 or high - low + 1 != count):
        yield f"{count} events are kept between {low} and {high}, with {trimmed} trimmed: some are missing"
    rows = connection.execute('SELECT "offset", id, topic, body FROM events ORDER BY "offset"')
    for offset, event_id, topic, body in rows:
        try:
            event = decode_event(body)
        except LogError as error:
            yield f"event {offset}: {error.message}"
            continue
        if event.topic != topic or not is_stored_id(event_id, event.id):
            yield f"event {offset}: its row says {event_id!r} and {topic!r}, its body {event.id!r} and {event.topic!r}"
        names = [("room", room) for room in event.rooms]
        if by_topic:  # before schema version 2 there was no such index
            names.append(("topic", event.topic))
        for what, name in names:
            indexed = f'SELECT 1 FROM event_{what}s WHERE block = ? AND {what} = ? AND "offset" = ?'
            if not connection.execute(indexed, (offset >> BLOCK_BITS, name, offset)).fetchone():
                yield f"event {offset}: it is not indexed under {what} {name!r}"


def check_identity(path: Path) -> None:
    """Refuse what is not a log of a version that this code knows. Reads 100 bytes.

    Raises:
        LogUnavailable: it is a folder, or cannot be read.
        LogCorrupt: it is something else than a log, or too new, or shorter than a header.
    """
    header = _read_header(path)
    if not header:
        return
    if len(header) < 100 and b"SQLite format 3\0".startswith(header[:16]):
        raise LogCorrupt(f"{path} is cut off after {len(header)} bytes", hint=_RESTORE, size=len(header))
    if header[:16] != b"SQLite format 3\0":
        raise LogCorrupt(
            f"{path} is not a database", hint="choose another path for the log; this file was left as it is"
        )
    version, application = struct.unpack_from(">I4xI", header, 60)
    if application != APPLICATION_ID:
        raise LogCorrupt(
            f"{path} is a database of another application (id {application:#x})",
            hint="choose another path for the log; this file was left as it is",
        )
    if version > SCHEMA_VERSION:
        raise LogCorrupt(
            f"{path} has schema version {version}; this program knows up to {SCHEMA_VERSION}",
            hint="use the newer version of Gapless that wrote it",
            version=version,
        )


def _read_header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(100)
    except OSError as error:
        raise LogUnavailable(
            f"{path} cannot be read: {error.strerror}", hint="name a file that the gateway's user may read and write"
        ) from error


def check_whole(path: Path, *, quick_check_bytes: int) -> None:
    """Refuse a torn or damaged log; call it with the lock held and no connection open.

    Args:
        quick_check_bytes: largest file for which SQLite looks at every page.

    Raises:
        LogCorrupt: it is damaged.
    """
    alone = _alone(path)
    size = path.stat().st_size
    if alone:
        # With a write-ahead log the file may be shorter: a checkpoint was cut short, and is repeated.
        header = _read_header(path)
        page_bytes, change, pages, valid_for = struct.unpack(">H6xII60xI", header[16:96])
        expected = (65536 if page_bytes == 1 else page_bytes) * pages
        if change == valid_for and size < expected:
            raise LogCorrupt(
                f"{path} is cut off: {size} bytes of {expected}", hint=_RESTORE, size=size, expected=expected
            )
    try:
        with closing(connect_reader(path, immutable=alone)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if size + (0 if alone else wal_path(path).stat().st_size) <= quick_check_bytes:
                (line,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if line != "ok":
                    raise LogCorrupt(f"{path} is damaged: {line}", hint=_RESTORE)
            _check_ends(path, connection)
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "unable to open" in str(error):
            raise LogUnavailable(f"{path} cannot be opened: {error}", hint="see who uses the file") from error
        raise LogCorrupt(f"{path} is damaged: {error}", hint=_RESTORE) from error
    except sqlite3.Error as error:
        raise LogCorrupt(f"{path} is damaged: {error}", hint=_RESTORE) from error


def _check_ends(path: Path, connection: sqlite3.Connection) -> None:
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if not isinstance(meta.get("epoch"), str) or not isinstance(meta.get("trimmed"), int):
        raise LogCorrupt(f"{path} has lost its epoch or its trimmed mark", hint=_RESTORE)
    (low,) = connection.execute('SELECT min("offset") FROM events').fetchone()
    if low is not None and low != meta["trimmed"] + 1:
        raise LogCorrupt(f"{path} begins at event {low}, but should at {meta['trimmed'] + 1}", hint=_RESTORE)


def _alone(path: Path) -> bool:
    """Whether there is no write-ahead log with anything in it."""
    wal = wal_path(path)
    return not wal.exists() or wal.stat().st_size == 0
