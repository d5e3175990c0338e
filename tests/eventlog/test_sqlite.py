from __future__ import annotations

from pathlib import Path
from typing import Any

from gapless.eventlog import EventLog
from gapless.eventlog.sqlite import SqliteLog
from tests.eventlog.contract import EventLogContract


class TestSqliteLog(EventLogContract):
    def create(self, folder: Path, **options: Any) -> EventLog:
        return SqliteLog(folder / "log.db", **options)

    def restart(self, log: EventLog, folder: Path, **options: Any) -> EventLog:
        return SqliteLog(folder / "log.db", **options)
