from __future__ import annotations

from pathlib import Path
from typing import Any

from gapless.eventlog import EventLog
from gapless.eventlog.memory import MemoryLog
from tests.eventlog.contract import EventLogContract


class TestMemoryLog(EventLogContract):
    def create(self, folder: Path, **options: Any) -> EventLog:
        return MemoryLog(**options)

    def restart(self, log: EventLog, folder: Path, **options: Any) -> EventLog:
        return log  # what it holds is the object itself


async def test_status() -> None:
    log = MemoryLog()
    assert log.status() == "the log is closed"
    await log.open(lambda _: None)
    assert log.status() is None
    await log.close()
    assert log.status() == "the log is closed"
