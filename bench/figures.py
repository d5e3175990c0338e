"""Figures: what was measured, how often, and how it compares."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench.servers import GAPLESS


@dataclass(slots=True)
class Figure:
    """One figure of one server, over all repeats.

    Attributes:
        case, name: what was measured; with the server, its identity.
        values: one a repeat, in `unit`.
        notes: what readers must know, such as that the generator was the limit, and in how many repeats.
    """

    case: str
    name: str
    server: str
    unit: str
    values: list[float] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)

    def said(self) -> list[str]:
        """The notes, with how many repeats they hold for where not for all."""
        repeats = len(self.values)
        return [note if count == repeats else f"{note} in {count} of {repeats}" for note, count in self.notes.items()]


class Report:
    """All figures of a run, what could not be run, and what failed."""

    def __init__(self) -> None:
        self.figures: dict[tuple[str, str, str], Figure] = {}
        self.not_run: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def add(
        self, case: str, name: str, server: str, value: float, *, unit: str, notes: list[str] | None = None
    ) -> None:
        """Record one repeat of a figure."""
        key = (case, name, server)
        figure = self.figures.setdefault(key, Figure(case, name, server, unit))
        figure.values.append(value)
        for note in notes or ():
            figure.notes[note] = figure.notes.get(note, 0) + 1

    def skip(self, what: str, why: str) -> None:
        """Record that something was not run."""
        self.not_run[what] = why

    def fail(self, what: str, error: BaseException) -> None:
        """Record that a server did not stand its load."""
        first = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        said = getattr(error, "__notes__", [])
        self.failed[what] = "; ".join([f"{type(first).__name__}: {first}", *said])

    def ratios(self, figure: Figure) -> list[str]:
        """How one of Gapless compares with each peer: its median over the peer's."""
        if figure.server != GAPLESS:
            return []
        return [
            f"{figure.median / peer.median:.2f} x {peer.server}"
            for peer in self.figures.values()
            if (peer.case, peer.name) == (figure.case, figure.name) and peer.server != GAPLESS and peer.median
        ]

    def document(self) -> dict[str, Any]:
        """For a results file."""
        return {
            "figures": [
                {
                    **{name: getattr(figure, name) for name in ("case", "name", "server", "unit", "values", "notes")},
                    "min": min(figure.values),
                    "median": figure.median,
                    "max": max(figure.values),
                }
                for figure in self.figures.values()
            ],
            "not_run": self.not_run,
            "failed": self.failed,
        }

    def load(self, document: dict[str, Any]) -> None:
        """The opposite of `document`."""
        for found in document["figures"]:
            for name in ("min", "median", "max"):
                del found[name]
            figure = Figure(**found)
            self.figures[figure.case, figure.name, figure.server] = figure
        self.not_run.update(document["not_run"])
        self.failed.update(document["failed"])

    # --- for people

    def ordered(self) -> list[Figure]:
        """As they were measured, but each figure's servers together."""
        places: dict[tuple[str, str], int] = {}
        for case, name, _ in self.figures:
            places.setdefault((case, name), len(places))
        return sorted(self.figures.values(), key=lambda figure: places[figure.case, figure.name])

    def lines(self) -> list[str]:
        """One line a figure."""
        return [
            "  ".join(
                (
                    f"{figure.case:<29}",
                    f"{figure.name:<40}",
                    f"{figure.server:<15}",
                    f"{number(figure.median):>10} {figure.unit:<4}",
                    f"{spread(figure):<15}",
                    "; ".join(self.ratios(figure) + [f"({note})" for note in figure.said()]),
                )
            ).rstrip()
            for figure in self.ordered()
        ] + [
            f"{kind}: {what}: {why}"
            for kind, found in (("not run", self.not_run), ("FAILED", self.failed))
            for what, why in found.items()
        ]


def number(value: float) -> str:
    """Three to four digits that say something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(figure: Figure) -> str:
    """Smallest and largest value; nothing where there is one only."""
    if len(figure.values) < 2:
        return ""
    return f"{number(min(figure.values))}–{number(max(figure.values))}"


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a results file, for people to read too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
