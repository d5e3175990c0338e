"""The durable event log: contract and implementations."""

from gapless.eventlog.contract import (
    EVERYTHING,
    Answer,
    Appended,
    CommittedListener,
    EventLog,
    Page,
    Retention,
    Selector,
    StateKind,
    StateWrite,
    Trimmed,
)
from gapless.eventlog.memory import MemoryLog
from gapless.eventlog.sqlite import SqliteLog
from gapless.eventlog.state_cache import StateCache

__all__ = [
    "EVERYTHING",
    "Answer",
    "Appended",
    "CommittedListener",
    "EventLog",
    "MemoryLog",
    "Page",
    "Retention",
    "Selector",
    "SqliteLog",
    "StateCache",
    "StateKind",
    "StateWrite",
    "Trimmed",
]
