"""The database file: its schema, how it is made, and how connections to it are set.

Tables, in schema version 2 (the first had no `event_topics`):

* `meta`: `epoch`, and `trimmed`, the offset through which retention has deleted.
* `events`: one row per event, offsets without holes. `appended` (milliseconds since the Unix
  epoch) never falls and `total` (bytes of all events before this one) always rises, so both
  bounds of the retention are found by bisection, without an index or a sum.
* `event_rooms`: for reads by room. Its key begins with a *block* of consecutive offsets:
  appends then change the few pages of the newest block instead of one page anywhere per room
  (measured: 68,000 against 34,000 appends/s at 300,000 events, and the gap grows), and
  retention deletes whole blocks.
* `event_topics`: for reads by MQTT filter, in the same way.
* `retained`: the last value of a topic, with the event itself, which may outlive its row in
  `events`.
* `state`: small values of other parts of the gateway.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gapless.eventlog.epoch import new_epoch

logger = logging.getLogger("gapless.eventlog")

#: "GAPL" in ASCII, at byte 68 of the file.
APPLICATION_ID: Final = 0x4741504C
SCHEMA_VERSION: Final = 2
#: Offsets of one block share all bits above this many.
BLOCK_BITS: Final = 12

#: Between an event's id and its offset, in the column `id`, where the id is another author's event's already.
NAMESAKE: Final = "\x1f"

_PAGE_BYTES = 4096
#: The write-ahead log is copied into the database whenever it has grown by this many pages.
_CHECKPOINT_PAGES = 4000

_DDL_TOPICS = """
CREATE TABLE event_topics (
    block INTEGER NOT NULL,
    topic TEXT NOT NULL,
    "offset" INTEGER NOT NULL,
    PRIMARY KEY (block, topic, "offset")
) WITHOUT ROWID;
"""
_DDL = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    "offset" INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    appended INTEGER NOT NULL,
    total INTEGER NOT NULL,
    topic TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE event_rooms (
    block INTEGER NOT NULL,
    room TEXT NOT NULL,
    "offset" INTEGER NOT NULL,
    PRIMARY KEY (block, room, "offset")
) WITHOUT ROWID;
{_DDL_TOPICS}CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    "offset" INTEGER NOT NULL,
    expires INTEGER,
    body BLOB NOT NULL
);
CREATE TABLE state (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
"""
_TOPICS_OF_BEFORE = f"""{_DDL_TOPICS}
INSERT INTO event_topics SELECT "offset" >> {BLOCK_BITS}, topic, "offset" FROM events;
"""


def is_stored_id(stored_id: str, event_id: str) -> bool:
    """Whether the column `id` says so of an event with this id."""
    return stored_id == event_id or (
        stored_id.startswith(event_id + NAMESAKE) and stored_id[len(event_id) + 1 :].isdigit()
    )


def wal_path(path: Path) -> Path:
    """SQLite's write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def create_database(path: Path) -> str:
    """Make an empty log under a temporary name, then move it in place, whole and on disk.

    A process killed in the middle thus leaves nothing that looks like a broken log.

    Returns:
        The new epoch.

    Raises:
        sqlite3.Error, OSError: it cannot be written.
    """
    draft = path.with_name(path.name + ".new")
    for leftover in (draft, wal_path(draft), draft.with_name(draft.name + "-journal")):
        leftover.unlink(missing_ok=True)
    epoch = new_epoch()
    connection = sqlite3.connect(draft, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.executescript(f"BEGIN; {_DDL} COMMIT;")
        connection.executemany("INSERT INTO meta VALUES (?, ?)", [("epoch", epoch), ("trimmed", 0)])
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    draft.replace(path)
    sync_folder(path.parent)
    return epoch


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a log of an earlier schema version up to date: all of it, or, if killed, nothing of it.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < 2:
        logger.info("indexing the log's events by topic, once")
        connection.executescript(f"BEGIN IMMEDIATE; {_TOPICS_OF_BEFORE} PRAGMA user_version = 2; COMMIT;")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def connect_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes. It may be used from another thread than this one."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
    connection.execute("PRAGMA cache_size = -16000")
    # Debian's SQLite overwrites deleted rows with zeros by default: that doubles retention's work.
    connection.execute("PRAGMA secure_delete = OFF")
    return connection


def connect_reader(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """A connection that cannot change the file. It may be used from another thread.

    Args:
        immutable: no other connection exists and there is no write-ahead log; SQLite then
            makes no file beside the database either.
    """
    uri = path.absolute().as_uri() + ("?immutable=1" if immutable else "?mode=ro")
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def pack(rows: Iterable[Sequence[Any]]) -> tuple[str, bytes]:
    """Rows whose last field is bytes, as two parameters for one statement.

    The sqlite3 module lets go of the interpreter's lock at each step of a statement and must
    get it back from a busy event loop, up to 5 ms later. One statement per row then stores
    171 events a second beside a busy thread, one statement per batch 4,981 (both measured).
    The statement unpacks with `json_each(?1)` and `substr(?2, position, length)`.

    Returns:
        A JSON array of `[*fields, position, length]`, positions counted from 1, and all the bytes.
    """
    table = []
    blobs = [b"\0"]  # substr() of an empty blob would be NULL
    position = 2
    for row in rows:
        blob = row[-1]
        table.append((*row[:-1], position, len(blob)))
        blobs.append(blob)
        position += len(blob)
    return as_json(table), b"".join(blobs)


def as_json(value: object) -> str:
    """JSON text for `json_each`."""
    return msgspec.json.encode(value).decode()
