"""Retention: what to delete, found by bisection, and deleted in chunks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from gapless.errors import LogCorrupt
from gapless.eventlog.contract import Retention
from gapless.eventlog.sqlite.schema import BLOCK_BITS
from gapless.eventlog.sqlite.transaction import Tip

#: Most events deleted in one transaction, so that appends wait for milliseconds only.
CHUNK = 1000


def trim_chunk(
    connection: sqlite3.Connection, tip: Tip, *, trimmed: int, retention: Retention, now: float, keep_after: int | None
) -> tuple[int, int]:
    """Delete at most one chunk of the oldest events, within the open transaction.

    The pages they fill are used again by later events: the file keeps its largest size. Of
    the indexes by room and topic whole blocks go, once all their events are gone.

    Returns:
        The new offset through which events are deleted (`trimmed` where none was), and how many
        events only `keep_after` keeps.
    """
    cut = _cut(connection, tip, trimmed=trimmed, retention=retention, now=now)
    allowed = cut if keep_after is None else min(cut, max(keep_after, trimmed))
    through = min(allowed, trimmed + CHUNK)
    if through > trimmed:
        connection.execute('DELETE FROM events WHERE "offset" <= ?', (through,))
        connection.execute("DELETE FROM event_rooms WHERE block < ?", ((through + 1) >> BLOCK_BITS,))
        connection.execute("DELETE FROM event_topics WHERE block < ?", ((through + 1) >> BLOCK_BITS,))
        connection.execute("UPDATE meta SET value = ? WHERE key = 'trimmed'", (through,))
    connection.execute("DELETE FROM retained WHERE expires <= ?", (int(now * 1000),))
    return through, cut - allowed


def _cut(connection: sqlite3.Connection, tip: Tip, *, trimmed: int, retention: Retention, now: float) -> int:
    """The offset through which the retention keeps nothing."""

    def too_old(appended: int, _: int) -> bool:
        return retention.seconds is not None and appended < (now - retention.seconds) * 1000

    def too_much(_: int, total: int) -> bool:
        return retention.bytes is not None and tip.total - total > retention.bytes

    return max(_bisect(connection, trimmed, tip.head, test) for test in (too_old, too_much))


def _bisect(connection: sqlite3.Connection, low: int, high: int, gone: Callable[[int, int], bool]) -> int:
    """The last offset in (low, high] whose row is `gone`, or `low`: all before a gone one are gone."""
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.execute('SELECT appended, total FROM events WHERE "offset" = ?', (middle,)).fetchone()
        if row is None:
            raise LogCorrupt(f"event {middle} is missing from the log", hint="restore it from a backup")
        if gone(*row):
            low = middle
        else:
            high = middle - 1
    return low
