from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.errors import InvalidPosition
from gapless.event import EventIds, Position, format_time, parse_time


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12), st.integers(0, 2**63 - 1))
def test_a_position_reads_as_it_is_written(epoch: str, offset: int) -> None:
    assert Position.parse(str(Position(epoch, offset))) == Position(epoch, offset)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a",
        "a:",
        ":1",
        "a:-1",
        "a:1.0",
        "a:+1",
        "a: 1",
        "a b:1",
        "a:1:2",
        "a:²",
        "é:1",
        "a:" + "9" * 19,
        "a:1\n",
    ],
)
def test_what_is_not_a_position_is_refused(text: str) -> None:
    with pytest.raises(InvalidPosition):
        Position.parse(text)


def test_ids_rise_also_within_a_millisecond_and_when_the_clock_goes_back() -> None:
    moments = iter([1.0, 1.0, 1.0, 0.5, 2.0])
    new_id = EventIds(lambda: next(moments))
    ids = [new_id() for _ in range(5)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 5
    assert all(text[14] == "7" and text[19] in "89ab" for text in ids)


def test_more_ids_than_a_millisecond_can_count_go_on_in_the_next() -> None:
    new_id = EventIds(lambda: 1.0)
    ids = [new_id() for _ in range(10_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 10_000
    assert [len({text[:13] for text in ids}), len({text[18:] for text in ids})] == [3, 3]


@given(st.integers(0, 4_102_444_800_000))
def test_time_reads_as_it_is_written(milliseconds: int) -> None:
    text = format_time(milliseconds)
    assert len(text) == 24
    assert parse_time(text) == milliseconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-01T00:00:00Z", 1_767_225_600_000),
        ("2026-01-01T01:00:00+01:00", 1_767_225_600_000),
        ("2026-01-01T00:00:00", 1_767_225_600_000),
        (1_767_225_600, 1_767_225_600_000),
        (1_767_225_600_000, 1_767_225_600_000),
        (1_767_225_600.5, 1_767_225_600_500),
        ("soon", None),
        (True, None),
        (-5, None),
        (float("inf"), None),
        (float("nan"), None),
        (None, None),
        ("0001-01-01T00:00:00+14:00", 0),
    ],
)
def test_times_of_publishers(value: object, expected: int | None) -> None:
    assert parse_time(value) == expected
