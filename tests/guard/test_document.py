"""What the docs say of a run comes from its figures, whatever they are."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.document import render
from bench.figures import Report
from bench.goals import goals
from bench.servers import CENTRIFUGO, FLOOR, GAPLESS, NODE_SOCKETIO

CASE = "Socket.IO 1 → 1,000"


def report(own: float) -> Report:
    found = Report()
    for server, values in (
        (GAPLESS, [own] * 3),
        (FLOOR, [4.0, 5.0]),
        (NODE_SOCKETIO, [10.0, 12.0]),
        (CENTRIFUGO, [7.0]),
    ):
        for value in values:
            notes = ["disturbed"] if server == FLOOR else []
            found.add(CASE, "CPU per delivery", server, value, unit="µs", notes=notes)
    for server, rate in ((GAPLESS, 90_000.0), (FLOOR, 80_000.0)):
        found.add(CASE, "deliveries", server, rate, unit="/s")
    found.add(CASE, "generator's CPU", FLOOR, 60.0, unit="%")
    return found


@pytest.mark.parametrize(("own", "reached"), [(5.5, True), (5.6, False)])
def test_goals_follow_the_figures(own: float, reached: bool) -> None:
    outcomes = dict(goals(report(own)))
    fan_out = outcomes.pop("fan-out to Socket.IO, 1 → 1,000: at most half of Node socket.io's CPU per delivery")
    assert fan_out.reached is reached
    assert fan_out.measured.endswith(f"x Node socket.io ({own:.2f} and 11.0 µs)")
    assert {outcome.reached for outcome in outcomes.values()} == {None}


def test_a_storm_of_fewer_clients_leaves_its_goal_open() -> None:
    found = Report()
    found.add("storm: 2,000 MQTT sessions", "until all have 100 events", GAPLESS, 1.0, unit="s")
    (outcome,) = [outcome for goal, outcome in goals(found) if goal.startswith("10,000 clients")]
    assert (outcome.reached, outcome.measured) == (
        None,
        "not measured with 10,000; at worst 1.00 s (2,000 MQTT sessions)",
    )
    for seconds, reached in ((9.0, True), (11.0, False)):
        found.add("storm: 10,000 MQTT sessions", "until all have 100 events", GAPLESS, seconds, unit="s")
        (outcome,) = [outcome for goal, outcome in goals(found) if goal.startswith("10,000 clients")]
        assert outcome.reached is reached


def test_the_document(tmp_path: Path) -> None:
    text = render(report(8.0), tmp_path)
    assert "| CPU per delivery, µs | **8.00**<br>8.00–8.00 | **4.50**°<br>4.00–5.00<br>1.78 x |" in text
    assert f"| {CASE} | CPU per delivery | 1.14 x Centrifugo |" in text  # worse than a peer
    assert "x Node socket.io |" not in text.partition("### Worse than a peer")[2]  # better than this one
    assert f"| {CASE}: deliveries | 80,000 | 60.0 % | 90,000, Gapless | **no** |" in text
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["fan-out.svg"]
    assert "](plots/fan-out.svg)" in text
    plot = ElementTree.parse(tmp_path / "plots/fan-out.svg")
    bars = [part.get("class") for part in plot.iter("{http://www.w3.org/2000/svg}rect")]
    assert bars == ["page", "own", "floor", "peer", "peer"]


def test_a_plot_of_an_earlier_run_goes(tmp_path: Path) -> None:
    render(report(8.0), tmp_path)
    render(Report(), tmp_path)
    assert not any((tmp_path / "plots").iterdir())
