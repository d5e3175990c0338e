from __future__ import annotations

import json
import logging
import sys

from gapless.cli.logs import JsonFormatter, TextFormatter


def record(message: str = "read %d pages", *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("gapless.hub", logging.INFO, __file__, 1, message, arguments or (3,), None)
    made.created = 1_769_851_800.125
    vars(made).update(extra)
    return made


def test_text_has_time_level_logger_message_and_what_was_given_as_extra() -> None:
    line = TextFormatter().format(record(connection="a1", reason="has gone"))
    assert line == "2026-01-31T09:30:00.125Z INFO gapless.hub read 3 pages connection=a1 reason='has gone'"


def test_a_line_of_text_stays_one_line() -> None:
    assert "\n" not in TextFormatter().format(record(reason="two\nlines"))


def test_json_has_the_same_as_fields() -> None:
    assert json.loads(JsonFormatter().format(record(connection="a1", error=ValueError("x")))) == {
        "time": "2026-01-31T09:30:00.125Z",
        "level": "info",
        "logger": "gapless.hub",
        "message": "read 3 pages",
        "connection": "a1",
        "error": "ValueError('x')",
    }


def test_an_exception_is_shown() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        made = record()
        made.exc_info = sys.exc_info()
    assert "ValueError: broken" in TextFormatter().format(made)
    assert "ValueError: broken" in json.loads(JsonFormatter().format(made))["exception"]
