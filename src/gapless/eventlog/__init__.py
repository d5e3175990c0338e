"""The durable event log: contract and implementations."""

from gapless.eventlog.contract import (
    EVERYTHING,
    Appended,
    CommittedListener,
    EventLog,
    Page,
    Retention,
    Selector,
    StateKind,
    StateWrite,
)

__all__ = [
    "EVERYTHING",
    "Appended",
    "CommittedListener",
    "EventLog",
    "Page",
    "Retention",
    "Selector",
    "StateKind",
    "StateWrite",
]
