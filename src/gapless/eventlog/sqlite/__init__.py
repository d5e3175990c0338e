"""The event log in an SQLite file."""

from gapless.eventlog.sqlite.check import Report, check
from gapless.eventlog.sqlite.log import SqliteLog

__all__ = ["Report", "SqliteLog", "check"]
