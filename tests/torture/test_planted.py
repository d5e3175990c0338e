"""A gateway with a planted defect is caught: the checker sees what real clients of it heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from gapless.torture.content import EVERYTHING
from gapless.torture.plan import ClientPlan, Plan, make_plan
from gapless.torture.plants import EVERY, PLANTS
from gapless.torture.run import run_torture

KINDS = ("socketio", "mqtt", "sse", "paho1")
EVENTS = 10 * EVERY
"""Ten events of each transport are harmed: a client that is behind at one of them is fed from the log, unharmed."""


def calm(events: int) -> Plan:
    """Every transport, no faults."""
    plan = make_plan(1, seconds=3, clients=0, events=events, js=False, faults=False)
    clients = tuple(ClientPlan(f"{kind}-0", kind, (EVERYTHING,)) for kind in KINDS)
    return Plan(plan.seed, plan.seconds, plan.broker, clients, plan.publishers, ())


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("plant", "expected"), [("drop", {"lost"}), ("twice", {"duplicated"}), ("swap", {"reordered", "lost"})]
)
async def test_a_planted_defect_is_caught(plant: str, expected: set[str], tmp_path: Path) -> None:
    outcome = await run_torture(calm(EVENTS), tmp_path, plant=plant, settle=3.0)
    found = {finding.kind.value for finding in outcome.report.findings}
    assert found
    assert found <= expected
    clients = {finding.client for finding in outcome.report.findings}
    assert clients <= {f"{kind}-0" for kind in KINDS}


def test_every_plant_is_tested() -> None:
    assert set(PLANTS) == {"drop", "twice", "swap"}
