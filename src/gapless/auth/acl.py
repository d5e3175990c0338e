"""What an identity may hear and say, as lists of MQTT topic filters: for brokers that keep such lists themselves.

A broker compares topics with filters and knows nothing of rooms, claims and roles. So the rules are
solved for one identity: each row of the map, with the captures that its claims and rooms give. Every
line of a list was put to the policy as a whole before it was taken: a list may say less than the
policy does, never more. What cannot be listed, and is therefore left out (`Acl.complete` is then False):
whatever the rule `ask` grants, rooms with a `*` inside of a level, and topics outside the map unless
everything is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice, product
from typing import Literal, NamedTuple

from gapless.auth.gate import Identity
from gapless.auth.policy import Action, Policy, Question, claim_of
from gapless.mqtt.filters import covers
from gapless.topicmap.access import RoomAccess
from gapless.topicmap.row import CAPTURE, Row, as_text
from gapless.topicmap.rules import ANY, Condition, Rule

MAX_LINES = 1000
"""Lines of one list and action; what there is more, is left out, and the list is not complete."""

_MAX_TRIED = 4 * MAX_LINES
_WILD = re.compile(r"[+#\0/]")

Bindings = dict[str, str]


class AclLine(NamedTuple):
    """One line: the first that fits decides.

    Attributes:
        topic_filter: what it is about.
    """

    permission: Literal["allow", "deny"]
    action: Literal["publish", "subscribe", "all"]
    topic_filter: str


DENY_ALL = AclLine("deny", "all", "#")
"""The last line of every list."""


class Acl(NamedTuple):
    """What an identity may do, without the end `DENY_ALL`.

    Attributes:
        subscribe, publish: filters, none of which covers another.
        complete: False where the policy allows, or may allow, more than the lists say.
    """

    subscribe: tuple[str, ...]
    publish: tuple[str, ...]
    complete: bool

    def lines(self) -> list[AclLine]:
        """The lists as lines, ending in deny-all."""
        found = [AclLine("allow", "subscribe", each) for each in self.subscribe]
        found += [AclLine("allow", "publish", each) for each in self.publish]
        return [*found, DENY_ALL]

    def with_more(self, *, subscribe: Iterable[str] = (), publish: Iterable[str] = ()) -> Acl:
        """The lists with further filters, which the caller has checked."""
        return Acl(_widest([*self.subscribe, *subscribe]), _widest([*self.publish, *publish]), self.complete)


EVERYTHING = Acl(("#",), ("#",), True)
"""What those may do who may do everything. (`#` covers no topic below `$`: MQTT 5 §4.7.2.)"""


def acl_of(policy: Policy, identity: Identity) -> Acl:
    """All that can be listed of what an identity may hear and say."""
    solver = _Solver(policy, identity)
    subscribe = solver.filters("subscribe")
    publish = solver.filters("publish")
    return Acl(subscribe, publish, not solver.left_out)


class _Solver:
    """Solves the rules of a map for one identity."""

    def __init__(self, policy: Policy, identity: Identity) -> None:
        self._policy = policy
        self._access = policy.topic_map.access
        self._identity = identity
        self.left_out = False

    def filters(self, action: Action) -> tuple[str, ...]:
        """The filters that the policy allows as a whole."""
        decide = self._policy.topic_filter if action == "subscribe" else self._policy.publish_filter
        if decide(self._identity, "#", _unknown).allowed:
            return ("#",)
        unmapped = self._access.unmapped_subscribe if action == "subscribe" else self._access.unmapped_publish
        self.left_out |= bool(unmapped)
        allowed = []
        for number, row in enumerate(self._policy.topic_map.rows):
            names = row.captures
            for values in dict.fromkeys(
                tuple(bindings.get(name) for name in names)
                for bindings in islice(self._row(action, number, row), _MAX_TRIED)
            ):
                bindings = dict(zip(names, values, strict=True))
                decision = self._policy.row(self._identity, action, number, bindings)
                self.left_out |= decision.allowed is None
                if decision.allowed:
                    allowed.append(_put(row.pattern, bindings, "+"))
                    if not any(values):
                        break  # all of the row
        found = _widest(allowed)
        self.left_out |= len(found) > MAX_LINES
        return found[:MAX_LINES]

    def _row(self, action: Action, number: int, row: Row) -> Iterator[Bindings]:
        """What may be said of a row's captures: nothing, or what a rule and the claims give."""
        yield {}
        rules = self._access.subscribe[number] if action == "subscribe" else self._access.publish[number]
        for rule in rules:
            yield from self._solve(rule)
        if action == "subscribe":
            for template in row.rooms:
                if "{data." not in template:
                    yield from self._rooms(template)

    def _solve(self, rule: Rule, room: RoomAccess | None = None) -> Iterator[Bindings]:
        """Bindings under which the rule's conditions can hold; the policy says whether they do."""
        each = []
        for condition in rule.conditions:
            each.append(list(islice(self._condition(condition, room), _MAX_TRIED)))
            if not each[-1]:
                return
        for combination in islice(product(*each), _MAX_TRIED):
            merged: Bindings = {}
            if all(_merge(merged, bindings) for bindings in combination):
                yield merged

    def _condition(self, condition: Condition, room: RoomAccess | None) -> Iterator[Bindings]:
        match condition.kind:
            case "claim":
                if condition.name == "sub":
                    value: object = self._identity.user_id
                else:
                    value = claim_of(self._identity.claims, condition.name)
                for text in map(as_text, value if isinstance(value, list | tuple) else (value,)):
                    if text is not None:
                        yield from _captured(condition.template, text)
            case "rooms":
                for name in self._identity.rooms:
                    self._note_pattern(name)
                    if room is not None and "*" not in name:
                        yield from _captured(room.pattern, name)
                yield {}  # a pattern of the token may stand for all
            case "room":
                yield from self._rooms(condition.template)
            case "ask":
                self.left_out = True
            case "role":
                if condition.name in self._identity.roles:
                    yield {}
            case _:
                yield {}

    def _note_pattern(self, name: str) -> None:
        """A room such as `lead:eu-*`: no filter says that. (What `lead:*` says, a `+` does.)"""
        if "*" in name and name != "*":
            self.left_out |= all(CAPTURE.sub("*", access.pattern) != name for access in self._access.rooms)

    def _rooms(self, template: str) -> Iterator[Bindings]:
        """What rooms of this form may be heard, said by the template's captures."""
        shape = CAPTURE.sub(ANY, template)
        for access in self._access.rooms:
            if not access.meets(shape):
                continue
            yield {}
            for rule in access.rules:
                for bindings in self._solve(rule, access):
                    yield from _captured(template, _put(access.pattern, bindings, ANY))


def _unknown(question: Question) -> None:
    return None


def _captured(template: str, text: str) -> Iterator[Bindings]:
    """The captures of a template that equals the text; those that the text leaves open are left out."""
    names, regex = _compiled(template)
    match = regex.fullmatch(text)
    if match is None:
        return
    found = dict(zip(names, match.groups(), strict=True))
    # What is no single level of a topic cannot stand in a filter.
    if all(value == ANY or not _WILD.search(value) for value in found.values()):
        yield {name: value for name, value in found.items() if value and value != ANY}


@lru_cache(maxsize=1000)
def _compiled(template: str) -> tuple[list[str], re.Pattern[str]]:
    body = re.escape(CAPTURE.sub(ANY, template)).replace(re.escape(ANY), "(.*?)")
    return CAPTURE.findall(template), re.compile(body, re.DOTALL)


def _merge(into: Bindings, bindings: Bindings) -> bool:
    return all(into.setdefault(name, value) == value for name, value in bindings.items())


def _put(pattern: str, bindings: Mapping[str, str | None], absent: str) -> str:
    return CAPTURE.sub(lambda name: bindings.get(name[1]) or absent, pattern)


def _widest(filters: Iterable[str]) -> tuple[str, ...]:
    """The filters without those that another one covers, in their order."""
    listed = list(dict.fromkeys(filters))
    wild = [each for each in listed if "+" in each or "#" in each]
    return tuple(each for each in listed if not any(other != each and covers(other, each) for other in wild))
