"""The goals that have a figure, each compared with what a run measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.figures import Report, number
from bench.servers import GAPLESS, MOSQUITTO, NODE_BRIDGE, NODE_SOCKETIO

NOT_MEASURED = "not measured in this run"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run says of a goal.

    Attributes:
        measured: in words; `NOT_MEASURED` where a figure is missing.
        reached: None where it was not measured.
    """

    measured: str
    reached: bool | None


Check = Callable[[Report], Outcome | None]


def goals(report: Report) -> list[tuple[str, Outcome]]:
    """Each goal with its outcome."""
    missing = Outcome(NOT_MEASURED, None)
    return [(goal, check(report) or missing) for goal, check in _GOALS]


def _median(report: Report, case: str, name: str, server: str = GAPLESS) -> float | None:
    figure = report.figures.get((case, name, server))
    return None if figure is None else figure.median


def _ratio_at_most(
    limit: float, case: str, name: str, peer: str, *, peer_case: str | None = None, more_is_better: bool = False
) -> Check:
    def check(report: Report) -> Outcome | None:
        own, other = _median(report, case, name), _median(report, peer_case or case, name, peer)
        if own is None or not other:
            return None
        ratio = own / other
        reached = ratio > limit if more_is_better else ratio <= limit
        unit = report.figures[case, name, GAPLESS].unit
        return Outcome(f"{ratio:.2f} x {peer} ({number(own)} and {number(other)} {unit})", reached)

    return check


def _at_most(limit: float, case: str, name: str, *, factor: float = 1.0, unit: str) -> Check:
    def check(report: Report) -> Outcome | None:
        own = _median(report, case, name)
        return None if own is None else Outcome(f"{number(own * factor)} {unit}", own * factor <= limit)

    return check


def _slowest(limit: float, *, case_part: str, name_part: str) -> Check:
    """The largest value of any repeat, of all figures that fit."""

    def check(report: Report) -> Outcome | None:
        found = [
            (max(figure.values), f"{figure.case}, {figure.name}")
            for figure in report.figures.values()
            if figure.server == GAPLESS and case_part in figure.case and name_part in figure.name
        ]
        if not found:
            return None
        value, where = max(found)
        return Outcome(f"at worst {number(value)} s ({where})", value <= limit)

    return check


def _storm(report: Report) -> Outcome | None:
    found = []
    for figure in report.figures.values():
        if figure.case.startswith("storm: ") and figure.name == "until all have 100 events":
            clients = int(figure.case.split()[1].replace(",", ""))
            found.append((clients, max(figure.values), figure.case))
    if not found:
        return None
    most = max(clients for clients, _, _ in found)
    value, case = max((value, case) for clients, value, case in found if clients == most)
    said = f"at worst {number(value)} s ({case.removeprefix('storm: ')})"
    if most < _STORM:
        return Outcome(f"not measured with {_STORM:,}; {said}", None)
    return Outcome(said, value <= 10)


_STORM = 10_000
_ONE, _BRIDGE = "Socket.IO 1 → 1,000", "MQTT QoS 1 → Socket.IO 1 : 1"
_CPU = "CPU per delivery"
_GOALS: list[tuple[str, Check]] = [
    (
        "fan-out to Socket.IO, 1 → 1,000: at most half of Node socket.io's CPU per delivery",
        _ratio_at_most(0.5, _ONE, _CPU, NODE_SOCKETIO),
    ),
    (
        "bursts: a quarter of that, an eighth of Node's for single events (bursts of 10)",
        _ratio_at_most(0.125, "Socket.IO 10 → 200", _CPU, NODE_SOCKETIO, peer_case="Socket.IO 1 → 200"),
    ),
    (
        "fan-out to MQTT at QoS 0, 1 → 1,000: at most Mosquitto's CPU per delivery",
        _ratio_at_most(1.0, "MQTT QoS 0 1 → 1,000", _CPU, MOSQUITTO),
    ),
    (
        "fan-out to MQTT at QoS 1, 1 → 1,000: at most Mosquitto's CPU per delivery",
        _ratio_at_most(1.0, "MQTT QoS 1 1 → 1,000", _CPU, MOSQUITTO),
    ),
    (
        "bridge MQTT → Socket.IO: more events per second than a Node bridge",
        _ratio_at_most(1.0, _BRIDGE, "events", NODE_BRIDGE, more_is_better=True),
    ),
    (
        "publish → received at 1,000 events/s: p99 under 5 ms",
        _at_most(5.0, _BRIDGE, "latency p99 at 1,000/s", unit="ms"),
    ),
    (
        "durable acknowledgement at 2,000 events/s: p99 under 20 ms",
        _at_most(20.0, "REST → log acknowledged", "single at 2,000/s: p99", unit="ms"),
    ),
    (
        "an idle Socket.IO connection: at most 20 KB",
        _at_most(20.0, _ONE, "RSS per connection", factor=1.024, unit="KB"),
    ),
    ("10,000 clients back at once, each behind by 100 events: whole within 10 s", _storm),
    (
        "catch-up of 10,000 missed events: under 2 s",
        _slowest(2.0, case_part="catch-up of 10,000", name_part="until whole"),
    ),
]
