"""The filter of a room: one for each room, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.errors import InvalidTopic
from gapless.mqtt import check_room_filter, is_room_filter, matches, room_filter, room_of, validate_filter

ROOMS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)


@given(ROOMS)
def test_a_room_has_a_filter_that_client_libraries_take_and_that_gives_the_room_back(room: str) -> None:
    filter_ = room_filter(room)
    validate_filter(filter_)
    assert "+" not in filter_
    assert "#" not in filter_
    assert (room_of(filter_), check_room_filter(filter_), is_room_filter(filter_)) == (room, room, True)


@given(ROOMS)
def test_two_filters_never_stand_for_one_room(text: str) -> None:
    filter_ = "$room/" + text
    try:
        room = check_room_filter(filter_)
    except InvalidTopic:
        return
    assert room_filter(room) == filter_


@pytest.mark.parametrize(
    ("room", "filter_"),
    [
        ("lead:123", "$room/lead:123"),
        ("topic:a/b", "$room/topic:a/b"),
        ("tag:c#", "$room/tag:c%23"),
        ("tag:c++", "$room/tag:c%2B%2B"),
        ("share:50%", "$room/share:50%25"),
        ("share:%2B", "$room/share:%252B"),
        ("stadt:köln", "$room/stadt:köln"),
    ],
)
def test_how_names_are_written(room: str, filter_: str) -> None:
    assert room_filter(room) == filter_
    assert room_of(filter_) == room


@pytest.mark.parametrize("filter_", ["$room", "$room/", "$room/+", "$room/a#", "$room/%", "$room/%41", "$room/%2b"])
def test_what_is_none(filter_: str) -> None:
    assert is_room_filter(filter_)
    with pytest.raises(InvalidTopic):
        check_room_filter(filter_)


@pytest.mark.parametrize("filter_", ["lead:123", "room/lead:1", "$rooms/a", "$SYS/a", "+/lead:1"])
def test_other_filters_are_ordinary_ones(filter_: str) -> None:
    assert not is_room_filter(filter_)
    assert room_of(filter_) is None


@pytest.mark.parametrize("wildcard", ["#", "+/#", "+/lead:123"])
def test_no_wildcard_reaches_a_room(wildcard: str) -> None:
    assert not matches(wildcard, "$room/lead:123")
