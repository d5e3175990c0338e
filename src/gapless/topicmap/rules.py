"""Who may hear and say what: the rules of the topic map, read from their text.

A list of rules allows where one of its rules does; a rule, where all of its conditions do:
`["role:MANAGER", "role:SALES and rooms"]`. What no rule allows is denied.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple, cast, get_args

import msgspec

from gapless.errors import ConfigError
from gapless.topicmap.row import CAPTURE

EVERYTHING_BY_DEFAULT = ("service",)
"""Who may hear and publish everything where a map does not say: back ends with a key that no role narrows."""

ANY = "\0"
"""In a template that is filled partly: any text. (No topic and no room holds U+0000.)"""

Kind = Literal["everyone", "users", "service", "role", "claim", "rooms", "room", "ask"]
Place = Literal["room", "topic", "unmapped", "everything"]

# What is cheap is looked at first, and the application asked last.
_ORDER: dict[str, int] = {name: number for number, name in enumerate(get_args(Kind))}

CONDITIONS = {
    "everyone": "whoever was let in, without a token too where that is allowed",
    "users": "whoever showed who they are",
    "service": "a back end whose API key no role narrows",
    "role:NAME": "whoever has the role",
    "claim:NAME=VALUE": "whose token says so, such as claim:sub={userId}",
    "rooms": "whose token names the room in its claim `rooms` (only under [[room]])",
    "room:TEMPLATE": "whoever may hear that room (only under [[topic]])",
    "ask": "whom the application says yes to",
    "nobody": "alone: nobody",
}
"""The conditions, and whom each allows."""


class Condition(NamedTuple):
    """One condition of a rule.

    Attributes:
        kind: see `CONDITIONS`.
        name: the role, or the claim.
        template: what the claim must equal, or the room that the identity must be allowed to hear.
    """

    kind: Kind
    name: str = ""
    template: str = ""


class Rule(NamedTuple):
    """A rule: allows where every condition does."""

    text: str
    conditions: tuple[Condition, ...]


class RoomRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may hear the rooms of a pattern. The first that fits a room decides.

    Attributes:
        pattern: such as `lead:{leadId}`; a capture stands for any text.
        subscribe: the rules.
    """

    pattern: str
    subscribe: tuple[str, ...]

    @property
    def captures(self) -> tuple[str, ...]:
        """Names of the pattern's captures, in order."""
        return tuple(CAPTURE.findall(self.pattern))


def parse_rules(texts: Iterable[str], *, where: str, captures: tuple[str, ...], place: Place) -> tuple[Rule, ...]:
    """Read a list of rules; `["nobody"]` and an empty list allow nobody.

    Args:
        where: names the row, for errors.
        captures: what templates may name here.
        place: rules of rooms, of topic rows and of the map as a whole know different conditions.

    Raises:
        ConfigError: naming the row, the rule and the fix.
    """
    listed = tuple(texts)
    if "nobody" in listed:
        if len(listed) > 1:
            raise ConfigError(f"{where}: 'nobody' stands beside other rules", hint="leave 'nobody' alone, or out")
        return ()
    return tuple(_parse_rule(text, where, captures, place) for text in listed)


def _parse_rule(text: str, where: str, captures: tuple[str, ...], place: Place) -> Rule:
    conditions = [_parse_condition(part.strip(), where, captures, place) for part in re.split(r"\sand\s", text)]
    conditions.sort(key=lambda condition: _ORDER[condition.kind])
    return Rule(text, tuple(conditions))


def _parse_condition(text: str, where: str, captures: tuple[str, ...], place: Place) -> Condition:
    match text.partition(":"):
        case ("ask", "", "") if place == "everything":
            raise ConfigError(
                f"{where}: 'ask' cannot stand here: there is nothing yet to ask about",
                hint="use it under [[room]], [[topic]] or unmapped_subscribe and unmapped_publish",
            )
        case ("everyone" | "users" | "service" | "ask" as kind, "", ""):
            return Condition(cast("Kind", kind))
        case ("rooms", "", ""):
            if place != "room":
                raise ConfigError(
                    f"{where}: the rule 'rooms' says nothing outside [[room]]", hint="such as 'room:lead:{leadId}'"
                )
            return Condition("rooms")
        case ("role", ":", name) if name and not re.search(r"[\s{}]", name):
            return Condition("role", name)
        case ("claim", ":", rest) if re.fullmatch(r"[^=\s{}]+=\S+", rest):
            name, _, template = rest.partition("=")
            _check_template(template, text, where, captures)
            return Condition("claim", name, template)
        case ("room", ":", template) if template and not re.search(r"\s", template):
            if place != "topic":
                raise ConfigError(
                    f"{where}: the rule {text!r} only makes sense under [[topic]]", hint="write out who may"
                )
            _check_template(template, text, where, captures)
            return Condition("room", "", template)
    raise ConfigError(f"{where}: {text!r} is not a rule", hint=_suggestion(text))


def _check_template(template: str, text: str, where: str, captures: tuple[str, ...]) -> None:
    rest = CAPTURE.sub("", template)
    if "{" in rest or "}" in rest or ANY in rest:
        raise ConfigError(f"{where}: the braces of {text!r} do not fit", hint="a capture is written {leadId}")
    for name in CAPTURE.findall(template):
        if name not in captures:
            known = ", ".join(f"{{{capture}}}" for capture in captures) or "none"
            raise ConfigError(
                f"{where}: the rule {text!r} names {{{name}}}, which the pattern does not capture",
                hint=f"captures here: {known}",
            )


def _suggestion(text: str) -> str:
    heads = {form.partition(":")[0]: form for form in CONDITIONS}
    word = text.partition(":")[0]
    if word.isupper():
        return f"a role is written 'role:{word}'"
    near = difflib.get_close_matches(word, heads, 1)
    return f"did you mean {heads[near[0]]!r}?" if near else f"rules are: {', '.join(CONDITIONS)}"
