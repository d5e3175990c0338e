from __future__ import annotations

from gapless.demo import Board, scenario
from gapless.demo.board import Row
from gapless.event import EventIds

STEPS = scenario(EventIds())
CLIENTS = ("a", "b")


def full() -> Board:
    board = Board(STEPS, CLIENTS)
    for step in STEPS:
        board.published(step.id, 10.0)
        for client in CLIENTS:
            assert board.received(client, step.id, 10.5)
    return board


def test_each_once_and_in_order_is_no_fault() -> None:
    board = full()
    assert board.faults() == []
    assert board.rows[0].received == {"a": [0.5], "b": [0.5]}


def test_what_is_missing_is_a_fault() -> None:
    board = Board(STEPS, CLIENTS)
    for step in STEPS:
        board.received("a", step.id, 0.0)
        if step is not STEPS[2]:
            board.received("b", step.id, 0.0)
    assert [str(fault) for fault in board.faults()] == [f"b did not receive {STEPS[2].title!r}"]


def test_a_second_copy_is_a_fault() -> None:
    board = full()
    board.received("a", STEPS[0].id, 11.0)
    assert [str(fault) for fault in board.faults()] == [f"a received {STEPS[0].title!r} 2 times"]


def test_another_order_is_a_fault() -> None:
    board = Board(STEPS, ("a",))
    for step in reversed(STEPS):
        board.received("a", step.id, 0.0)
    assert [fault.text for fault in board.faults()] == ["received the events in another order than they were published"]


def test_events_of_others_are_kept_apart_and_only_the_last_few() -> None:
    board = full()
    assert not board.received("a", "somebody else's", 0.0)
    for number in range(20):
        for client in CLIENTS:
            row = Row(title="t", door="", id=str(number), type="t", topic="t", received={})
            board.other(client, row, 0.001)
    assert [row.id for row in board.others] == [str(number) for number in range(12, 20)]
    assert all(len(copies) == 1 for row in board.others for copies in row.received.values())
    assert board.faults() == []


def test_every_event_of_the_scenario_goes_in_by_another_door() -> None:
    assert len({step.door for step in STEPS}) == len({step.id for step in STEPS}) == len(STEPS) == 5
