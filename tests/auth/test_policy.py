"""The reference domain's rules, as the gate applies them."""

from __future__ import annotations

import pytest

from gapless.auth import Identity, Policy, Question
from gapless.auth.policy import Grant
from gapless.topicmap import RoomRule, Row, TopicMap, crm_map

ADMIN = Identity(user_id="1", roles=frozenset({"ADMIN"}))
MANAGER = Identity(user_id="2", roles=frozenset({"MANAGER"}))
SALES = Identity(user_id="7", roles=frozenset({"SALES"}), rooms=("lead:1", "note:9"))
NOBODY = Identity(user_id="8")
ANONYMOUS = Identity()
BACKEND = Identity(service=True)
NARROW = Identity(service=True, roles=frozenset({"METRICS"}))

POLICY = Policy(crm_map())


def no(question: Question) -> bool:
    return False


def who(check: str, subject: str) -> set[str]:
    """Who may, of everybody."""
    everybody = {"admin": ADMIN, "manager": MANAGER, "sales": SALES, "nobody": NOBODY, "anonymous": ANONYMOUS}
    everybody |= {"backend": BACKEND, "narrow": NARROW}
    return {name for name, identity in everybody.items() if getattr(POLICY, check)(identity, subject, no).allowed}


@pytest.mark.parametrize(
    ("room", "names"),
    [
        ("lead:1", "admin manager sales backend"),
        ("lead:2", "admin manager backend"),
        ("note:9", "admin manager sales backend"),
        ("user:7", "admin sales backend"),
        ("user:8", "admin nobody backend"),
        ("org:global", "admin manager backend"),
        ("org:announcements", "admin manager sales nobody backend"),
        ("elsewhere", "admin backend"),
        ("topic:x/y", "admin backend"),
        ("topic:crm/leads//updated", "admin manager backend"),
        ("topic:$SYS/uptime", ""),
    ],
)
def test_rooms(room: str, names: str) -> None:
    assert who("room", room) == set(names.split())


@pytest.mark.parametrize(
    ("topic_filter", "names"),
    [
        ("crm/leads/+/updated", "admin manager backend"),
        ("crm/leads/1/updated", "admin manager sales backend"),
        ("crm/leads/2/updated", "admin manager backend"),
        ("crm/leads/1/+", "admin backend"),  # a topic outside the map too: crm/leads/1/anything
        ("crm/leads/#", "admin backend"),
        ("crm/users/7/presence", "admin manager sales backend"),
        ("crm/users/7/notifications/+", "admin sales backend"),
        ("crm/users/+/notifications/+", "admin backend"),
        ("crm/notifications/+", "admin manager sales nobody backend"),
        ("crm/system/backend/status", "admin manager sales nobody backend"),
        ("crm/notes/9/collaboration", "admin manager sales backend"),
        ("#", "admin backend"),
        ("+/+", "admin backend"),
        ("$SYS/#", ""),
        ("$SYS/uptime", ""),
    ],
)
def test_filters(topic_filter: str, names: str) -> None:
    assert who("topic_filter", topic_filter) == set(names.split())


@pytest.mark.parametrize(
    ("topic", "names"),
    [
        ("crm/leads/1/updated", "admin manager backend"),
        ("crm/users/7/presence", "admin sales backend"),
        ("crm/users/8/presence", "admin nobody backend"),
        ("crm/notes/9/collaboration", "admin manager sales backend"),
        ("crm/notes/8/collaboration", "admin manager backend"),
        ("crm/notifications/1", "admin manager backend"),
        ("crm/users/7/notifications/1", "admin backend"),
        ("crm/system/backend/status", "admin backend"),
        ("x/y", "admin backend"),
        ("$SYS/uptime", ""),
    ],
)
def test_publishing(topic: str, names: str) -> None:
    assert who("publish", topic) == set(names.split())


def test_the_application_is_asked_where_its_answer_counts() -> None:
    verdict = POLICY.room(SALES, "lead:5", lambda question: None)
    assert verdict.allowed is None
    assert verdict.questions == (Question("subscribe", "room", "lead:5"),)
    assert POLICY.room(SALES, "lead:1", lambda question: None).questions == ()
    assert POLICY.room(NOBODY, "lead:5", lambda question: None).allowed is False
    assert POLICY.topic_filter(SALES, "crm/leads/5/updated", lambda question: None).questions == verdict.questions
    assert POLICY.topic_filter(SALES, "crm/leads/+/updated", lambda question: None).allowed is False


def test_who_may_write_follows_who_may_hear() -> None:
    verdict = POLICY.publish(SALES, "crm/notes/5/collaboration", lambda question: None)
    assert verdict.questions == (Question("subscribe", "room", "note:5"),)
    assert POLICY.publish(SALES, "crm/notes/5/collaboration", lambda question: True).allowed


def test_a_map_without_rules_is_closed_but_to_back_ends() -> None:
    policy = Policy(TopicMap([Row("a/{x}", "a", ("r:{x}",))]))
    for identity in (ADMIN, NOBODY, NARROW):
        assert not policy.room(identity, "r:1", no).allowed
        assert not policy.topic_filter(identity, "a/+", no).allowed
        assert not policy.publish(identity, "a/1", no).allowed
    assert policy.publish(BACKEND, "a/1", no).allowed


def test_of_rooms_the_first_that_fits_decides() -> None:
    rooms = [RoomRule("r:secret", ("role:ADMIN",)), RoomRule("r:{x}", ("users",))]
    policy = Policy(TopicMap([Row("a/{x}", "a", ("r:{x}",))], rooms=rooms))
    assert policy.room(NOBODY, "r:1", no).allowed
    assert not policy.room(NOBODY, "r:secret", no).allowed
    assert policy.topic_filter(NOBODY, "a/1", no).allowed
    assert not policy.topic_filter(NOBODY, "a/secret", no).allowed
    assert not policy.topic_filter(NOBODY, "a/+", no).allowed  # a/secret is among them


def test_a_tenant_is_fixed_while_the_rest_is_open() -> None:
    rooms = [RoomRule("org:{org}:lead:{lead}", ("claim:tenant={org}",))]
    policy = Policy(TopicMap([Row("orgs/{org}/leads/{lead}", "a", ("org:{org}:lead:{lead}",))], rooms=rooms))
    mine = Identity(user_id="7", claims={"tenant": 5})
    assert policy.topic_filter(mine, "orgs/5/leads/+", no).allowed
    assert not policy.topic_filter(mine, "orgs/6/leads/+", no).allowed
    assert not policy.topic_filter(mine, "orgs/+/leads/1", no).allowed


def test_the_policy_can_be_listed() -> None:
    grants = POLICY.grants()
    assert Grant("room", "org:global", "subscribe", ("role:MANAGER",)) in grants
    assert Grant("topic", "crm/users/{userId}/presence", "publish", ("claim:sub={userId}",)) in grants
    assert Grant("unmapped", "", "publish", ()) in grants
    assert {grant.kind for grant in grants} == {"room", "topic", "unmapped", "everything"}
