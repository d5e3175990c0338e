"""The topic map as a TOML file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from gapless.errors import ConfigError
from gapless.topicmap.map import TopicMap
from gapless.topicmap.row import Alias, Row
from gapless.topicmap.rules import EVERYTHING_BY_DEFAULT, RoomRule

_TABLES = ("topic", "room", "alias")
_RULES = ("everything", "unmapped_publish", "unmapped_subscribe")


def load_map(path: Path) -> TopicMap:
    """Read a map file: `[[topic]]`, `[[room]]` and `[[alias]]` rows, and what holds for the map as a whole.

    Raises:
        ConfigError: naming the file, the row and the fix.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the topic map {path}: {error.strerror}", hint="check the path") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="see docs/topic-map.md for the form") from error
    try:
        return map_from(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error


def map_from(document: dict[str, Any]) -> TopicMap:
    """A map from the decoded form of a map file.

    Raises:
        ConfigError: naming the row and the fix.
    """
    unknown = sorted(document.keys() - {*_TABLES, *_RULES, "unmapped"})
    if unknown:
        known = ", ".join([*(f"[[{table}]]" for table in _TABLES), "unmapped", *_RULES])
        raise ConfigError(f"unknown key {unknown[0]!r}", hint=f"known: {known}; put keys before the first table")
    unmapped = document.get("unmapped", True)
    if not isinstance(unmapped, bool):
        raise ConfigError(f"unmapped is {unmapped!r}", hint="use true or false")
    rows: list[Row] = _rows(document, "topic", Row)
    aliases: list[Alias] = _rows(document, "alias", Alias)
    if not rows:
        raise ConfigError("the map has no [[topic]] row", hint="add one with 'pattern', 'type' and 'rooms'")
    return TopicMap(
        rows,
        aliases=aliases,
        unmapped=unmapped,
        rooms=_rows(document, "room", RoomRule),
        everything=_rules(document, "everything", EVERYTHING_BY_DEFAULT),
        unmapped_publish=_rules(document, "unmapped_publish"),
        unmapped_subscribe=_rules(document, "unmapped_subscribe"),
    )


def _rules(document: dict[str, Any], key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    rules = document.get(key, list(default))
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise ConfigError(f"{key} is not a list of rules", hint=f'such as {key} = ["role:ADMIN"]')
    return tuple(rules)


def _rows(document: dict[str, Any], table: str, row_type: type[Any]) -> list[Any]:
    entries = document.get(table, [])
    if not isinstance(entries, list):
        raise ConfigError(f"[{table}] is not a list of tables", hint=f"write [[{table}]], with two brackets")
    return [_row(entry, f"{table} row {number}", row_type) for number, entry in enumerate(entries, 1)]


def _row(entry: object, where: str, row_type: type[Any]) -> Any:
    named = entry.get("pattern") or entry.get("event") if isinstance(entry, dict) else None
    name = f" ({named!r})" if named else ""
    try:
        return msgspec.convert(entry, row_type)
    except msgspec.ValidationError as error:
        known = ", ".join(row_type.__struct_fields__)
        field = re.search(r"unknown field `([^`]+)`", str(error))
        text = f"unknown key {field.group(1)!r}" if field else str(error)
        raise ConfigError(f"{where}{name}: {text}", hint=f"known keys: {known}") from error
