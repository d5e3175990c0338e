"""Lists of rights for brokers: never more than the policy says, and all of it that a filter can say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.auth import Identity, Policy, acl_of
from gapless.auth.acl import DENY_ALL, MAX_LINES, AclLine
from gapless.mqtt import matches
from gapless.topicmap import RoomRule, Row, TopicMap, crm_map

POLICY = Policy(crm_map())


def identity(user: str | None, *roles: str, rooms: tuple[str, ...] = (), **claims: object) -> Identity:
    return Identity(user_id=user, roles=frozenset(roles), rooms=rooms, claims=claims)


def test_an_admin_may_everything() -> None:
    acl = acl_of(POLICY, identity("1", "ADMIN"))
    assert acl.complete
    assert acl.lines() == [AclLine("allow", "subscribe", "#"), AclLine("allow", "publish", "#"), DENY_ALL]


def test_a_manager_hears_the_business_and_no_private_notifications_of_others() -> None:
    acl = acl_of(POLICY, identity("2", "MANAGER"))
    assert acl.subscribe == (
        "crm/leads/+/created",
        "crm/leads/+/updated",
        "crm/leads/+/assigned",
        "crm/activities/+/created",
        "crm/users/+/presence",
        "crm/notifications/+",
        "crm/users/2/notifications/+",
        "crm/notes/+/collaboration",
        "crm/system/backend/status",
    )
    assert "crm/users/2/presence" in acl.publish
    assert "crm/notes/+/collaboration" in acl.publish
    assert acl.complete


def test_a_sales_person_hears_what_the_token_names_and_the_rest_is_said_to_be_missing() -> None:
    acl = acl_of(POLICY, identity("7", "SALES", rooms=("lead:1", "note:9")))
    assert acl.subscribe == (
        "crm/leads/1/created",
        "crm/leads/1/updated",
        "crm/leads/1/assigned",
        "crm/users/7/presence",
        "crm/notifications/+",
        "crm/users/7/notifications/+",
        "crm/notes/9/collaboration",
        "crm/system/backend/status",
    )
    assert acl.publish == ("crm/users/7/presence", "crm/notes/9/collaboration")
    assert not acl.complete  # the application may grant more leads


def test_patterns_of_a_token() -> None:
    everywhere = acl_of(POLICY, identity("7", "SALES", rooms=("lead:*",)))
    assert "crm/leads/+/updated" in everywhere.subscribe
    partly = acl_of(POLICY, identity("7", "SALES", rooms=("lead:eu-*",)))
    assert not any(each.startswith("crm/leads/") for each in partly.subscribe)
    assert not partly.complete


@pytest.mark.parametrize("user", ["+", "#", "a/b", "", "a+b"])
def test_a_user_whose_name_is_no_level_of_a_topic_gets_no_lines_by_it(user: str) -> None:
    acl = acl_of(POLICY, identity(user))
    assert acl.subscribe == ("crm/notifications/+", "crm/system/backend/status")
    assert acl.publish == ()


def test_what_the_application_granted_can_be_added() -> None:
    acl = acl_of(POLICY, identity("7", "SALES")).with_more(subscribe=["crm/leads/5/created", "crm/users/7/presence"])
    assert "crm/leads/5/created" in acl.subscribe
    assert acl.subscribe.count("crm/users/7/presence") == 1


def test_claims_with_several_values_and_two_captures() -> None:
    rules = ("claim:teams={teamId} and claim:sub={userId}",)
    topic_map = TopicMap(
        [Row("t/{teamId}/{userId}/said", "said", ("team:{teamId}:{userId}",), publish=rules)],
        rooms=[RoomRule("team:{teamId}:{userId}", rules), RoomRule("team:{all}", ("nobody",))],
    )
    acl = acl_of(Policy(topic_map), identity("7", teams=["a", "b", 3]))
    assert acl.subscribe == acl.publish == ("t/a/7/said", "t/b/7/said", "t/3/7/said")
    assert acl.complete


def test_topics_outside_the_map_are_not_listed_and_said_to_be_missing() -> None:
    topic_map = TopicMap([Row("a/{x}", "a", publish=("nobody",))], unmapped_subscribe=("users",), everything=())
    acl = acl_of(Policy(topic_map), identity("7"))
    assert acl == ((), (), False)


def test_a_list_is_bounded() -> None:
    acl = acl_of(POLICY, identity("7", "SALES", rooms=tuple(f"lead:{n}" for n in range(900))))
    assert len(acl.subscribe) == MAX_LINES
    assert not acl.complete


names = st.sampled_from(["1", "2", "7", "9", "*", "a/b", "+"])
rooms = st.builds("{}:{}".format, st.sampled_from(["lead", "note", "activity", "user", "org"]), names)
levels = st.sampled_from(["crm", "leads", "users", "notes", "notifications", "presence", "updated", "1", "7", "9", ""])


@given(
    user=st.none() | names,
    roles=st.frozensets(st.sampled_from(["ADMIN", "MANAGER", "SALES"])),
    named=st.lists(rooms, max_size=4),
    topic=st.lists(levels, min_size=1, max_size=5).map("/".join).filter(bool),
)
def test_no_list_allows_a_topic_that_the_policy_does_not(
    user: str | None, roles: frozenset[str], named: list[str], topic: str
) -> None:
    who = Identity(user_id=user, roles=roles, rooms=tuple(named))
    acl = acl_of(POLICY, who)
    if any(matches(each, topic) for each in acl.subscribe):
        assert POLICY.topic_filter(who, topic, lambda _: False).allowed
    if any(matches(each, topic) for each in acl.publish):
        assert POLICY.publish(who, topic, lambda _: False).allowed
