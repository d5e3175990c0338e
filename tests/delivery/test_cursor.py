from __future__ import annotations

import pytest

from gapless.delivery import Cursor
from gapless.event import Event, Origin, Record
from gapless.eventlog import Page


def page(*offsets: int, through: int, complete: bool = True) -> Page:
    event = Event(id="", type="t", topic="t", rooms=(), data=b"", time=0, origin=Origin("rest"))
    return Page([Record(event, offset) for offset in offsets], through, complete)


def test_live_reader_gets_each_offset_once() -> None:
    cursor = Cursor(5, live=True)
    assert [cursor.offer(offset) for offset in (5, 6, 6, 4, 9, 8, 9, 10)] == [
        False,
        True,
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    assert cursor.position == 10


def test_reader_that_is_behind_ignores_live_events() -> None:
    cursor = Cursor(5)
    assert not cursor.offer(6)
    assert cursor.position == 5


def test_take_skips_what_the_reader_has() -> None:
    cursor = Cursor(5)
    assert [record.offset for record in cursor.take(page(4, 5, 6, 8, through=9))] == [6, 8]
    assert (cursor.position, cursor.complete) == (9, True)


def test_take_that_is_stopped_ends_at_the_last_record_taken() -> None:
    cursor = Cursor(0)
    for record in cursor.take(page(2, 4, 6, through=9)):
        if record.offset == 4:
            break
    assert cursor.position == 4
    assert [record.offset for record in cursor.take(page(6, through=9))] == [6]


def test_take_of_an_empty_page_moves_on() -> None:
    cursor = Cursor(3)
    assert list(cursor.take(page(through=7))) == []
    assert cursor.position == 7


def test_position_never_goes_back() -> None:
    cursor = Cursor(8)
    assert list(cursor.take(page(2, 3, through=4))) == []
    assert cursor.position == 8


def test_gap_is_remembered() -> None:
    cursor = Cursor(0)
    list(cursor.take(page(through=5, complete=False)))
    list(cursor.take(page(through=6)))
    assert not cursor.complete


@pytest.mark.parametrize(("position", "head", "live"), [(4, 5, False), (5, 5, True), (6, 5, True)])
def test_join(position: int, head: int, live: bool) -> None:
    cursor = Cursor(position)
    assert cursor.join(head) is live
    assert cursor.live is live


def test_fall_behind_keeps_the_place() -> None:
    cursor = Cursor(3, live=True)
    cursor.offer(4)
    cursor.fall_behind(7)
    assert (cursor.live, cursor.position) == (False, 7)
    cursor.fall_behind(9)  # it is behind already: what was handed out since was not delivered to it
    assert cursor.position == 7


def test_fall_behind_never_goes_back() -> None:
    cursor = Cursor(3, live=True)
    cursor.offer(8)
    cursor.fall_behind(7)
    assert cursor.position == 8
