from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gapless.presence import EVERYWHERE, Roster
from tests.gates import Clock

GRACE = 5.0


def make() -> tuple[Roster, Clock]:
    clock = Clock(0.0)
    return Roster(grace=GRACE, clock=clock), clock


def told(roster: Roster) -> list[tuple[str, str | None, int]]:
    return [(change.room, change.user_id, change.connections) for _, changes in roster.changes() for change in changes]


def test_one_closed_tab_of_two_leaves_the_user_online() -> None:
    roster, clock = make()
    roster.watch("lead:1")
    roster.enter("ana", ["lead:1"])
    roster.enter("ana", ["lead:1"])
    assert told(roster) == [("lead:1", "ana", 2)]
    roster.leave("ana", ["lead:1"])
    assert told(roster) == [("lead:1", "ana", 1)]
    clock.now = 100.0
    roster.expire()
    assert roster.has("lead:1", "ana")
    assert told(roster) == []


def test_who_comes_back_within_the_grace_was_never_gone() -> None:
    roster, clock = make()
    roster.watch("lead:1")
    roster.enter("ana", ["lead:1"])
    assert told(roster) == [("lead:1", "ana", 1)]
    roster.leave("ana", ["lead:1"])
    clock.now = GRACE - 0.1
    roster.expire()
    (user_id, place) = next(roster.users("lead:1"))
    assert (user_id, place.connections, place.left, place.since) == ("ana", 0, 0.0, 0.0)
    roster.enter("ana", ["lead:1"])
    clock.now = 10 * GRACE
    roster.expire()
    assert told(roster) == []
    assert next(roster.users("lead:1"))[1].since == 0.0


def test_the_grace_begins_with_the_last_leaving() -> None:
    roster, clock = make()
    roster.watch("lead:1")
    for second in range(4):  # flapping: one look is planned, however often
        clock.now = float(second)
        roster.enter("ana", ["lead:1"])
        roster.leave("ana", ["lead:1"])
    assert told(roster) == [("lead:1", "ana", 1)]
    clock.now = GRACE
    roster.expire()
    assert roster.has("lead:1", "ana")
    assert roster.next_due == 3.0 + GRACE
    clock.now = 3.0 + GRACE
    roster.expire()
    assert told(roster) == [("lead:1", "ana", 0)]
    assert roster.next_due is None


def test_who_is_not_known_is_counted_and_not_named() -> None:
    roster, _ = make()
    roster.watch("lead:1")
    roster.enter(None, ["lead:1"])
    roster.enter(None, ["lead:1", "lead:2"])
    assert (roster.anonymous("lead:1"), list(roster.users("lead:1"))) == (2, [])
    assert told(roster) == [("lead:1", None, 2)]
    roster.leave(None, ["lead:1", "lead:2"])
    assert (roster.anonymous("lead:1"), roster.anonymous("lead:2")) == (1, 0)


def test_who_was_online_before_the_start_has_time_to_come_back() -> None:
    roster, clock = make()
    roster.watch(EVERYWHERE)
    roster.expect("ana", 15.0)
    roster.expect("bob", 15.0)
    roster.enter("bob", [EVERYWHERE])
    clock.now = 14.9
    roster.expire()
    assert roster.has(EVERYWHERE, "ana")
    clock.now = 15.0
    roster.expire()
    assert told(roster) == [(EVERYWHERE, "ana", 0)]
    assert roster.has(EVERYWHERE, "bob")


def test_a_room_that_nobody_is_in_or_watches_is_forgotten() -> None:
    roster, clock = make()
    roster.enter("ana", ["lead:1"])
    roster.enter(None, ["lead:2"])
    roster.watch("lead:3")
    roster.leave("ana", ["lead:1"])
    roster.leave(None, ["lead:2"])
    roster.unwatch("lead:3")
    roster.unwatch("lead:4")
    clock.now = GRACE
    roster.expire()
    assert not any(room in roster for room in ("lead:1", "lead:2", "lead:3", "lead:4"))


USERS = st.sampled_from(["ana", "bob", None])
ROOMS = st.sampled_from(["a", "b"])
STEPS = st.lists(st.tuples(USERS, ROOMS, st.booleans(), st.floats(0, 4)), max_size=60)


@given(STEPS)
def test_who_is_there_is_who_has_a_connection_or_had_one_within_the_grace(
    steps: list[tuple[str | None, str, bool, float]],
) -> None:
    roster, clock = make()
    roster.watch("a")
    connections: Counter[tuple[str | None, str]] = Counter()
    last_seen: dict[tuple[str | None, str], float] = {}
    view: dict[str | None, int] = {}
    for user, room, coming, seconds in steps:
        clock.now += seconds
        roster.expire()
        key = user, room
        if coming:
            roster.enter(user, [room])
            connections[key] += 1
        elif connections[key]:
            roster.leave(user, [room])
            connections[key] -= 1
            last_seen[key] = clock.now
        if seconds > 2:  # watchers are told now and then
            view |= {user_id: count for _, user_id, count in told(roster)}
    roster.expire()
    view |= {user_id: count for _, user_id, count in told(roster)}
    for user in ("ana", "bob"):
        for room in ("a", "b"):
            key = user, room
            there = connections[key] > 0 or (key in last_seen and last_seen[key] + GRACE > clock.now)
            assert roster.has(room, user) == there
        shown = connections[user, "a"] or int(roster.has("a", user))
        assert view.get(user, 0) == shown
    assert roster.anonymous("a") == connections[None, "a"] == view.get(None, 0)
