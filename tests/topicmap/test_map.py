from __future__ import annotations

import pytest

from gapless.errors import ConfigError, InvalidRequest, InvalidTopic, UnknownRoom, UnknownTopic
from gapless.topicmap import Alias, EphemeralIf, Row, TopicMap, crm_map

CRM = crm_map()

ROUTES = [
    ("crm/leads/123/created", "lead:created", {}, ("lead:123", "org:global")),
    ("crm/leads/123/updated", "lead:updated", {}, ("lead:123", "org:global")),
    ("crm/leads/a b/assigned", "lead:assigned", {}, ("lead:a b", "org:global")),
    ("crm/activities/9/created", "activity:created", {"leadId": "123"}, ("activity:9", "lead:123", "org:global")),
    ("crm/activities/9/created", "activity:created", {"leadId": 123}, ("activity:9", "lead:123", "org:global")),
    ("crm/activities/9/created", "activity:created", {}, ("activity:9", "org:global")),
    ("crm/activities/9/created", "activity:created", ["no", "object"], ("activity:9", "org:global")),
    ("crm/users/7/presence", "user:presence", {}, ("user:7", "org:global")),
    ("crm/notifications/5", "notification", {}, ("org:global", "org:announcements")),
    ("crm/users/7/notifications/5", "notification", {}, ("user:7",)),
    ("crm/notes/3/collaboration", "note:collaboration", {}, ("note:3",)),
    ("crm/system/backend/status", "system:status", {}, ("org:global", "org:announcements")),
    ("sensors/1/temperature", "message", {}, ("topic:sensors/1/temperature",)),
    ("crm/leads//created", "message", {}, ("topic:crm/leads//created",)),
]


@pytest.mark.parametrize(("topic", "event_type", "data", "rooms"), ROUTES)
def test_a_topic_has_its_type_and_rooms(topic: str, event_type: str, data: object, rooms: tuple[str, ...]) -> None:
    route = CRM.admit(topic)
    assert route.type == event_type
    assert CRM.rooms_of(route, data) == rooms


def test_captures_come_from_the_topic() -> None:
    assert CRM.route("crm/users/7/notifications/5").captures == {"userId": "7", "notificationId": "5"}


def test_a_type_finds_its_topic_from_the_data() -> None:
    assert CRM.topic_for("lead:created", {"leadId": "123", "name": "Acme"}) == "crm/leads/123/created"
    assert CRM.topic_for("lead:created", {"leadId": 123}) == "crm/leads/123/created"


def test_a_targeted_notification_goes_to_the_private_topic() -> None:
    assert CRM.topic_for("notification", {"notificationId": "5"}) == "crm/notifications/5"
    assert CRM.topic_for("notification", {"notificationId": "5", "userId": "7"}) == "crm/users/7/notifications/5"


@pytest.mark.parametrize("bad", [None, "", "a/b", "a+", "#", True, {}, "x\0y"])
def test_a_capture_that_cannot_be_a_topic_level_is_refused_by_name(bad: object) -> None:
    with pytest.raises(InvalidRequest, match="leadId"):
        CRM.topic_for("lead:created", {"leadId": bad})


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(UnknownTopic) as caught:
        CRM.topic_for("lead:exploded", {"leadId": "1"})
    assert "lead:created" in caught.value.hint


@pytest.mark.parametrize("topic", ["", "a/+/b", "a/#", "x\0"])
def test_what_is_not_a_topic_is_refused(topic: str) -> None:
    with pytest.raises(InvalidTopic):
        CRM.admit(topic)


def test_a_closed_map_refuses_topics_outside_it() -> None:
    closed = TopicMap(CRM.rows, rooms=CRM.room_rules, unmapped=False)
    assert closed.admit("crm/leads/1/created").row is not None
    with pytest.raises(UnknownTopic):
        closed.admit("sensors/1")
    with pytest.raises(UnknownRoom):
        closed.check_room("topic:sensors/1")


@pytest.mark.parametrize("room", ["lead:123", "user:7", "org:global", "note:9", "activity:4", "topic:sensors/1"])
def test_a_known_room_passes(room: str) -> None:
    CRM.check_room(room)


@pytest.mark.parametrize(
    "room", ["", "lead:", "leads:1", "org:other", "topic:crm/leads/1/created", "lead:" + "x" * 600]
)
def test_an_unknown_room_is_refused_with_what_is_known(room: str) -> None:
    with pytest.raises(UnknownRoom) as caught:
        CRM.check_room(room)
    assert caught.value.hint.count("lead:{leadId}") == 1  # though activities name it from their data, too


def test_the_filters_of_a_room_cover_its_topics_and_no_others() -> None:
    assert CRM.filters_for("lead:123") == [
        "crm/leads/123/created",
        "crm/leads/123/updated",
        "crm/leads/123/assigned",
    ]
    assert CRM.filters_for("user:7") == ["crm/users/7/presence", "crm/users/7/notifications/+"]
    assert "crm/leads/+/created" in CRM.filters_for("org:global")
    assert CRM.filters_for("topic:sensors/1") == ["sensors/1"]


def test_durability_is_the_rows_and_outside_the_map_the_qos() -> None:
    def ephemeral(topic: str, qos: int, data: object = None, raw: bytes = b"null", *, binary: bool = False) -> bool:
        return CRM.is_ephemeral(CRM.route(topic), qos=qos, data=data, raw=raw, binary=binary)

    assert not ephemeral("crm/leads/1/created", 0)
    assert ephemeral("sensors/1", 0)
    assert not ephemeral("sensors/1", 1)
    assert ephemeral("crm/notes/1/collaboration", 1, {"kind": "awareness"})
    assert not ephemeral("crm/notes/1/collaboration", 1, {"kind": "update"})
    assert ephemeral("crm/notes/1/collaboration", 1, raw=b"\x01abc", binary=True)
    assert not ephemeral("crm/notes/1/collaboration", 1, raw=b"\x00abc", binary=True)


WRONG_ROWS = [
    ([Row("a/#/b", "t")], "row 1", "last level"),
    ([Row("a/b#", "t")], "row 1", "last level"),
    ([Row("a/b+", "t")], "row 1", "alone"),
    ([Row("", "t")], "row 1", "topic"),
    ([Row("a/x{id}", "t")], "row 1", "whole level"),
    ([Row("a/{leadId}", "t", ("room:{other}",))], "row 1", "{leadId}"),
    ([Row("a/{leadId}/{leadId}", "t")], "row 1", "name"),
    ([Row("a/{data}", "t")], "row 1", "rename"),
    ([Row("a/{id}", "t")], "row 1", "rename"),
    ([Row("a/b", "t", ("a room",))], "row 1", "looks like"),
    ([Row("a/b", "t", ("r", "r"))], "row 1", "once"),
    ([Row("a/b", "")], "row 1", "name"),
    ([Row("a/b", "t", qos=3)], "row 1", "0, 1 or 2"),
    ([Row("a/#", "t", retain=True)], "row 1", "retained"),
    ([Row("a/b", "t", ephemeral_if=EphemeralIf("k", "v", 300))], "row 1", "255"),
    ([Row("a/{x}", "t"), Row("a/b", "u")], "row 2", "literal"),
    ([Row("a/{x}/c", "t"), Row("a/#", "u")], "row 2", "literal"),
    ([Row("a/#", "t"), Row("a", "u")], "row 2", "literal"),
    ([Row("a/+", "t"), Row("+/b", "u")], "row 2", "literal"),
    ([Row("a/{x}", "t"), Row("b/{x}", "t")], "row 2", "another type"),
    ([Row("a/{x}", "gapless:revoked")], "news of the gateway", "another name"),
    ([Row("a/{x}", "disconnect")], "row 1", "another name"),
]


@pytest.mark.parametrize(("rows", "names", "fix"), WRONG_ROWS, ids=lambda value: str(value)[:40])
def test_a_wrong_map_is_refused_naming_the_row_and_the_fix(rows: list[Row], names: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TopicMap(rows)
    assert names in caught.value.message
    assert fix in caught.value.hint


def test_a_wrong_alias_is_refused() -> None:
    with pytest.raises(ConfigError, match="alias 1"):
        TopicMap(CRM.rows, aliases=[Alias("x:join", "x:{leadId}", action="join")])


def test_a_final_hash_matches_the_parent_and_all_below() -> None:
    topic_map = TopicMap([Row("devices/{deviceId}/#", "device", ("device:{deviceId}",))])
    for topic in ("devices/1", "devices/1/a", "devices/1/a/b"):
        assert topic_map.route(topic).captures == {"deviceId": "1"}
    assert topic_map.route("devices").row is None
