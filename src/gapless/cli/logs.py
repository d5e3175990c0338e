"""Structured logs on standard error, as text or as JSON lines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from gapless.event import format_time

_encode = msgspec.json.Encoder(enc_hook=repr).encode
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

# Below warning these log packets, frames or URLs whole: payloads, tokens and session secrets with them.
_INDISCREET = (
    "gapless.socketio.engine",
    "gapless.socketio.protocol",
    "engineio",
    "socketio",
    "uvicorn",
    "uvicorn.error",
    "websockets",
    "httpx",
    "httpcore",
)


class LogLevel(StrEnum):
    """How much is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class LogFormat(StrEnum):
    """The form of a log line."""

    text = "text"
    json = "json"


class TextFormatter(logging.Formatter):
    """`2026-01-31T09:30:00.125Z INFO gapless.hub message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        extras = "".join(f" {name}={_quoted(value)}" for name, value in extras_of(record).items())
        line = f"{_time_of(record)} {record.levelname} {record.name} {record.getMessage()}{extras}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, what was given as `extra`, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        fields: dict[str, Any] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in extras_of(record).items() if name not in fields}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _encode(fields).decode()


def extras_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """What was passed as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}


def set_up_logs(level: LogLevel, log_format: LogFormat = LogFormat.text) -> None:
    """Send the logs of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.value.upper())
    for name in _INDISCREET:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


def _time_of(record: logging.LogRecord) -> str:
    return format_time(int(record.created * 1000))


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(' "=') & set(text) else repr(text)
