"""What a seed stands for."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gapless.torture.kinds import DOORS, KINDS, doors_for, kinds_for
from gapless.torture.plan import FaultKind, Plan, make_plan

seeds = st.integers(0, 2**32)


@given(seeds, st.booleans(), st.booleans())
def test_the_same_seed_gives_the_same_plan(seed: int, js: bool, broker: bool) -> None:
    one, other = (make_plan(seed, seconds=40, clients=14, events=4000, js=js, broker=broker) for _ in range(2))
    assert one == other
    assert msgspec.json.decode(msgspec.json.encode(one), type=Plan) == one


def test_another_seed_gives_another_plan() -> None:
    plans = [make_plan(seed, seconds=40, clients=12, events=4000) for seed in range(20)]
    assert len({plan.faults for plan in plans}) == 20


@given(seeds, st.booleans(), st.booleans(), st.integers(20, 5000))
def test_everybody_takes_part(seed: int, js: bool, broker: bool, events: int) -> None:
    plan = make_plan(seed, seconds=10, clients=16, events=events, js=js, broker=broker)
    assert {client.kind for client in plan.clients} == {kind.name for kind in kinds_for(js=js, sdk=True, broker=broker)}
    assert {each.name for each in plan.publishers} == {door.name for door in doors_for(js=js, broker=broker)}
    assert plan.events == events
    assert len({client.name for client in plan.clients}) == 16
    assert all(client.rooms for client in plan.clients)


@given(seeds, st.booleans())
def test_faults_are_healed_in_time_and_never_two_on_one_place(seed: int, broker: bool) -> None:
    plan = make_plan(seed, seconds=40, clients=12, events=4000, broker=broker)
    names = {client.name for client in plan.clients}
    players = names | {each.name for each in plan.publishers} | {door.group for door in DOORS.values()}
    ends: dict[tuple[str, bool], float] = {}
    for fault in plan.faults:
        assert 0 <= fault.at <= fault.at + fault.seconds <= 40
        assert fault.target in players | {"gateway", "clock"} | ({"broker"} if broker else set())
        place = (fault.target, "link" in fault.kind or fault.kind is FaultKind.slow_reader)
        assert ends.get(place, 0.0) <= fault.at
        ends[place] = fault.at + fault.seconds


def test_every_kind_of_fault_is_drawn() -> None:
    drawn = {
        fault.kind
        for seed in range(50)
        for fault in make_plan(seed, seconds=40, clients=14, events=100, broker=True).faults
    }
    assert drawn == set(FaultKind)


def test_who_keeps_half_a_handshake_in_memory_is_not_killed() -> None:
    for seed in range(100):
        plan = make_plan(seed, seconds=40, clients=14, events=4000, broker=True)
        kinds = {client.name: KINDS[client.kind] for client in plan.clients}
        for fault in plan.faults:
            if fault.kind is FaultKind.client_kill:
                assert kinds[fault.target].killable
            if fault.kind is FaultKind.publisher_kill:
                assert all(door.has_ids for door in DOORS.values() if door.group == fault.target)


def test_a_calm_plan_has_no_faults() -> None:
    assert make_plan(1, seconds=40, clients=12, events=100, faults=False).faults == ()
