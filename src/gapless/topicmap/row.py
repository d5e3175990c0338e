"""Rows of the topic map: patterns with captures, room templates, aliases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from gapless.errors import ConfigError
from gapless.event import is_own_name

CAPTURE = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"(data\.)?[A-Za-z_][A-Za-z0-9_]*\Z")
# `userId` may be captured: the envelope's own userId (who caused the event) then goes first.
_ENVELOPE_KEYS = frozenset(
    {"id", "type", "topic", "data", "data_base64", "time", "timestamp", "position", "qos", "retain", "rooms"}
)


class EphemeralIf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which events of a durable row are ephemeral all the same (Yjs awareness beside updates).

    Attributes:
        field: name of a top-level field of the JSON data.
        equals: the value that makes the event ephemeral.
        first_byte: for binary data, the first byte that does (1: awareness in y-protocols).
    """

    field: str
    equals: str
    first_byte: int | None = None


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row: topic pattern ⇄ event type ⇄ rooms.

    Attributes:
        pattern: levels are literals, `{name}` (a capture), `+`, or a final `#`.
        type: the event type, such as `lead:created`.
        rooms: room templates; `{name}` stands for a capture of the topic, `{data.name}` for
            a top-level string or number of the JSON data. A room whose data value is absent
            is left out for that event.
        qos: quality of service of events that do not come by MQTT: 0, 1 or 2.
        retain: whether such events are kept as the topic's last value.
        durable: False makes all of them ephemeral: never logged, at most once.
        ephemeral_if: makes some of them ephemeral.
        publish: rules that say who may publish it; nobody, where none does (and the gateway has keys).
        subscribe: rules that say who may hear it, besides those who may hear one of its rooms.
    """

    pattern: str
    type: str
    rooms: tuple[str, ...] = ()
    qos: int = 1
    retain: bool = False
    durable: bool = True
    ephemeral_if: EphemeralIf | None = None
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()

    @property
    def captures(self) -> tuple[str, ...]:
        """Names of the pattern's captures, in order."""
        return tuple(CAPTURE.findall(self.pattern))


class Alias(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An older Socket.IO event name that subscribes to a room (`lead:subscribe {leadId}`).

    Attributes:
        event: the name that clients emit.
        room: template of the room, filled from the emitted object.
        reply: event name of the answer to the client, carrying the same object; none if None.
        action: `subscribe` or `unsubscribe`.
    """

    event: str
    room: str
    reply: str | None = None
    action: str = "subscribe"


def levels_overlap(one: str, other: str) -> bool:
    """Whether some topic fits both patterns."""
    left, right = one.split("/"), other.split("/")
    for a, b in zip(left, right, strict=False):
        if a == "#" or b == "#":
            return True
        if not (_is_open(a) or _is_open(b) or a == b):
            return False
    if len(left) == len(right):
        return True
    longer = left if len(left) > len(right) else right
    return longer[min(len(left), len(right))] == "#" and len(longer) == min(len(left), len(right)) + 1


def _is_open(level: str) -> bool:
    return level == "+" or level.startswith("{")


def check_row(row: Row, where: str) -> None:
    """Refuse a row that cannot work.

    Raises:
        ConfigError: naming the row, what is wrong and the fix.
    """
    _check_pattern(row, where)
    if not row.type or len(row.type) > 256 or row.type.isspace():
        raise ConfigError(f"{where}: the event type is empty or too long", hint="give it a name such as 'lead:created'")
    if is_own_name(row.type):
        raise ConfigError(
            f"{where}: clients would take {row.type!r} for news of the gateway, or of their connection",
            hint="give it another name, such as 'lead:created'",
        )
    if row.qos not in (0, 1, 2):
        raise ConfigError(f"{where}: qos is {row.qos}", hint="use 0, 1 or 2")
    if row.retain and row.pattern.endswith("#"):
        raise ConfigError(f"{where}: retain on a pattern that ends in '#'", hint="name the topics to be retained")
    first_byte = row.ephemeral_if.first_byte if row.ephemeral_if else None
    if first_byte is not None and not 0 <= first_byte <= 255:
        raise ConfigError(f"{where}: ephemeral_if.first_byte is {first_byte}", hint="use 0 to 255")
    for room in row.rooms:
        check_room_template(room, row.captures, where)
    if len(set(row.rooms)) != len(row.rooms):
        raise ConfigError(f"{where}: a room stands twice", hint="name each room once")


def _check_pattern(row: Row, where: str) -> None:
    levels = row.pattern.split("/")
    if not row.pattern:
        raise ConfigError(f"{where}: the pattern is empty", hint="use a topic such as 'crm/leads/{leadId}/created'")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            raise ConfigError(f"{where}: '#' stands in the middle", hint="'#' may only be the last level, alone")
        if "+" in level and level != "+":
            raise ConfigError(f"{where}: '+' shares the level {level!r}", hint="'+' stands alone in its level")
        if ("{" in level or "}" in level) and not re.fullmatch(r"\{[A-Za-z_][A-Za-z0-9_]*\}", level):
            raise ConfigError(
                f"{where}: {level!r} is not a capture", hint="a capture is a whole level, such as '{leadId}'"
            )
    names = row.captures
    for name in names:
        if name in _ENVELOPE_KEYS:
            raise ConfigError(
                f"{where}: the capture {{{name}}} has the name of an envelope field", hint=f"rename it: {{{name}Value}}"
            )
    if len(set(names)) != len(names):
        raise ConfigError(f"{where}: a capture stands twice", hint="give each its own name")


def check_room_template(room: str, captures: tuple[str, ...], where: str) -> None:
    """Refuse a room template that names something the event does not have.

    Raises:
        ConfigError: naming the row and the fix.
    """
    rest = CAPTURE.sub("", room)
    if not room or "{" in rest or "}" in rest or any(c.isspace() or c == "," for c in rest):
        raise ConfigError(f"{where}: {room!r} is not a room", hint="a room looks like 'lead:{leadId}' or 'org:global'")
    names = CAPTURE.findall(room)
    if len(set(names)) != len(names):
        raise ConfigError(f"{where}: the room {room!r} names a capture twice", hint="name each once")
    for name in names:
        if not _NAME.match(name) or (not name.startswith("data.") and name not in captures):
            known = ", ".join(f"{{{capture}}}" for capture in captures) or "none"
            raise ConfigError(
                f"{where}: the room {room!r} names {{{name}}}, which the pattern does not capture",
                hint=f"captures here: {known}; a value of the payload is written {{data.{name}}}",
            )


def fill(template: str, captures: Mapping[str, str], data: object) -> str | None:
    """A room (or topic) template with its values; None where a value is absent or unfit."""
    if "{" not in template:
        return template
    parts: list[str] = []
    end = 0
    for match in CAPTURE.finditer(template):
        value = _value(match.group(1), captures, data)
        if value is None:
            return None
        parts += (template[end : match.start()], value)
        end = match.end()
    return "".join(parts) + template[end:]


def _value(name: str, captures: Mapping[str, str], data: object) -> str | None:
    if not name.startswith("data."):
        return captures.get(name)
    return as_text(data.get(name[5:])) if isinstance(data, dict) else None


def as_text(value: object) -> str | None:
    """A JSON string or number as a room or topic level would write it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    return text if 0 < len(text) <= 256 and not any(c.isspace() or c == "," for c in text) else None


def templates_of(rows: tuple[Row, ...]) -> Iterator[str]:
    """All room templates, each once."""
    seen: set[str] = set()
    for row in rows:
        for room in row.rooms:
            if room not in seen:
                seen.add(room)
                yield room
