"""The rules of a map file: read, and refused naming the row and the fix."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from gapless.errors import ConfigError
from gapless.topicmap.access import shapes_meet
from gapless.topicmap.load import map_from
from gapless.topicmap.rules import ANY, Condition

ROW = "[[topic]]\npattern = 'shop/orders/{orderId}'\ntype = 'order'\nrooms = ['order:{orderId}', 'all']\n"
ROOM = "[[room]]\npattern = 'order:{orderId}'\nsubscribe = ['role:SHOP']\n"


def load(text: str) -> Any:
    return map_from(tomllib.loads(text)).access


def test_rules_are_read() -> None:
    access = load(
        "everything = ['role:ADMIN']\nunmapped_publish = ['users']\nunmapped_subscribe = ['ask']\n"
        + ROW
        + "publish = ['role:SHOP and claim:shop.id={orderId}', 'room:order:{orderId}']\nsubscribe = ['nobody']\n"
        + ROOM
        + "[[room]]\npattern = 'all'\nsubscribe = ['everyone']\n"
    )
    both, follows = access.publish[0]
    assert both.conditions == (Condition("role", "SHOP"), Condition("claim", "shop.id", "{orderId}"))
    assert follows.conditions == (Condition("room", "", "order:{orderId}"),)
    assert access.subscribe == [()]
    assert [room.pattern for room in access.rooms] == ["order:{orderId}", "all"]
    assert access.everything[0].conditions == (Condition("role", "ADMIN"),)
    assert access.asks


def test_what_is_cheap_is_looked_at_before_the_application_is_asked() -> None:
    access = load(ROW + "publish = ['ask and role:SHOP']\n")
    assert [condition.kind for condition in access.publish[0][0].conditions] == ["role", "ask"]


def test_what_a_file_does_not_say() -> None:
    access = load(ROW)
    assert (access.publish, access.subscribe, access.rooms) == ([()], [()], [])
    assert (access.unmapped_publish, access.unmapped_subscribe) == ((), ())
    assert [rule.text for rule in access.everything] == ["service"]
    assert not access.asks


@pytest.mark.parametrize(
    ("text", "named", "fix"),
    [
        (ROW + "publish = ['SHOP']", "row 1 ('shop/orders/{orderId}'), publish: 'SHOP'", "'role:SHOP'"),
        (ROW + "publish = ['rol:SHOP']", "'rol:SHOP' is not a rule", "did you mean 'role:NAME'"),
        (ROW + "publish = ['everyon']", "'everyon'", "did you mean 'everyone'"),
        (ROW + "publish = ['xyz']", "'xyz'", "rules are:"),
        (ROW + "publish = ['']", "'' is not a rule", "rules are:"),
        (ROW + "publish = ['role:']", "'role:'", "role:NAME"),
        (ROW + "publish = ['role:A and']", "'role:A and'", "role:NAME"),
        (ROW + "publish = ['claim:sub']", "'claim:sub'", "claim:NAME=VALUE"),
        (ROW + "publish = ['claim:sub={userId}']", "names {userId}", "captures here: {orderId}"),
        (ROW + "publish = ['claim:sub={orderId']", "braces", "{leadId}"),
        (ROW + "publish = ['nobody', 'users']", "'nobody' stands beside", "alone"),
        (ROW + "publish = ['rooms']", "'rooms' says nothing", "room:lead:{leadId}"),
        (ROW + "publish = ['room:order:{orderId}']", "no [[room]] says who may hear", "add [[room]]"),
        (ROW + "subscribe = ['room:user:{orderId}']\n" + ROOM, "no [[room]]", 'pattern = "user:{orderId}"'),
        (ROW + "publish = 'users'", "row 1", "known keys"),
        (
            ROW + "[[room]]\npattern = 'lead:{x}'\nsubscribe = []",
            "room 1 ('lead:{x}'): no topic row",
            "order:{orderId}",
        ),
        (ROW + "[[room]]\npattern = 'a b'\nsubscribe = []", "room 1 ('a b'): not a room", "lead:{leadId}"),
        (ROW + "[[room]]\npattern = 'order:{a}{b}'\nsubscribe = []", "two captures touch", "'{a}:{b}'"),
        (ROW + "[[room]]\npattern = 'order:{a}:{a}'\nsubscribe = []", "different names", "team:"),
        (ROW + "[[room]]\npattern = 'all'", "room row 1 ('all')", "subscribe"),
        (
            ROW + ROOM + "[[room]]\npattern = 'order:7'\nsubscribe = []",
            "room 2 ('order:7') is never reached",
            "narrower",
        ),
        (ROW + "[[room]]\npattern = 'all'\nsubscribe = ['room:x']", "'room:x' only makes sense", "write out"),
        ("everything = 'users'\n" + ROW, "everything is not a list", "role:ADMIN"),
        ("everything = ['ask']\n" + ROW, "everything: 'ask'", "unmapped_"),
        ("unmapped_publish = ['rooms']\n" + ROW, "unmapped_publish: the rule 'rooms'", "room:"),
    ],
)
def test_wrong_rules_are_refused_naming_the_row_and_the_fix(text: str, named: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert named in caught.value.message
    assert fix in caught.value.hint


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a*", "ab", True),
        ("a*", "b*", False),
        ("a*c", "*c", True),
        ("a*c", "a*d", False),
        ("*", "", True),
        ("a*", "*b", True),
        ("ab*", "a*", True),
        ("a*a", "a", False),
    ],
)
def test_whether_two_shapes_have_a_text_in_common(one: str, other: str, *, meet: bool) -> None:
    left, right = one.replace("*", ANY), other.replace("*", ANY)
    assert shapes_meet(left, right) is shapes_meet(right, left) is meet
