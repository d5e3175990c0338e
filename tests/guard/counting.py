"""Counting what an event costs: functions called, writes, memory kept. Counts do not depend on the machine."""

from __future__ import annotations

import gc
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

FEW, MANY = 20, 60
"""Readers of the two runs whose difference is the cost of a delivery, and whose rest that of an event."""
_WARM_UP, _EVENTS = 5, 10


class Scenario(ABC):
    """A part of the gateway with a number of readers on counting sockets.

    Attributes:
        writes: writes to the sockets of readers so far.
    """

    writes = 0

    @abstractmethod
    async def start(self, readers: int) -> None:
        """Make the part, and connect the readers."""

    @abstractmethod
    async def event(self) -> None:
        """One event, until every reader has it: what is counted."""

    async def after_event(self) -> None:  # noqa: B027 most have nothing to do
        """What must be done before the next event, and is not counted."""

    async def stop(self) -> None:  # noqa: B027 as above
        """Let go of everything."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What something costs on average.

    Attributes:
        python: calls of Python functions (and resumptions of coroutines), by qualified name.
        builtin: calls of functions written in C, by qualified name.
        writes: writes to sockets.
        blocks: blocks of memory (`sys.getallocatedblocks`) that are still there afterwards.
    """

    python: dict[str, float] = field(default_factory=dict)
    builtin: dict[str, float] = field(default_factory=dict)
    writes: float = 0.0
    blocks: float = 0.0

    @property
    def calls(self) -> float:
        """Calls of both kinds."""
        return sum(self.python.values()) + sum(self.builtin.values())

    def minus(self, other: Cost, parts: float) -> Cost:
        """What is left without another cost, divided into parts."""
        return Cost(
            _minus(self.python, other.python, parts),
            _minus(self.builtin, other.builtin, parts),
            (self.writes - other.writes) / parts,
            (self.blocks - other.blocks) / parts,
        )

    def times(self, factor: float) -> Cost:
        """So many of it."""
        return self.minus(Cost(), 1 / factor)

    def most_called(self) -> str:
        """The functions that are called at least once, most calls first."""
        found = [
            (count, kind, name)
            for kind, counts in (("Python", self.python), ("built-in", self.builtin))
            for name, count in counts.items()
            if count >= 0.5
        ]
        found.sort(reverse=True)
        return "\n".join(f"  {count:6.2f} {kind:<8} {name}" for count, kind, name in found) or "  none"


def _minus(one: dict[str, float], other: dict[str, float], parts: float) -> dict[str, float]:
    names = one.keys() | other.keys()
    return {name: left for name in names if (left := (one.get(name, 0) - other.get(name, 0)) / parts)}


async def cost_of(make: Callable[[], Scenario]) -> tuple[Cost, Cost]:
    """What one more delivery costs, and what an event costs besides its deliveries."""
    few, many = await _cost_of_event(make, FEW), await _cost_of_event(make, MANY)
    delivery = many.minus(few, MANY - FEW)
    return delivery, few.minus(delivery.times(FEW), 1)


async def _cost_of_event(make: Callable[[], Scenario], readers: int) -> Cost:
    python: Counter[str] = Counter()
    builtin: Counter[str] = Counter()

    def note(frame: FrameType, kind: str, function: Any) -> None:
        if kind == "call":
            python[frame.f_code.co_qualname] += 1
        elif kind == "c_call":
            builtin[function.__qualname__] += 1

    scenario = make()
    await scenario.start(readers)
    try:
        for _ in range(_WARM_UP):
            await scenario.event()
            await scenario.after_event()
        gc.collect()
        gc.disable()
        writes = blocks = 0
        for _ in range(_EVENTS):  # without the profiler, whose counters take memory too
            before = scenario.writes, sys.getallocatedblocks()
            await scenario.event()
            writes += scenario.writes - before[0]
            blocks += sys.getallocatedblocks() - before[1]
            await scenario.after_event()
        for _ in range(_EVENTS):
            sys.setprofile(note)
            await scenario.event()
            sys.setprofile(None)
            await scenario.after_event()
    finally:
        sys.setprofile(None)
        gc.enable()
        await scenario.stop()
    del builtin["setprofile"]
    return Cost(
        {name: count / _EVENTS for name, count in python.items()},
        {name: count / _EVENTS for name, count in builtin.items()},
        writes / _EVENTS,
        blocks / _EVENTS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Most that something may cost; see `Cost`."""

    calls: float
    writes: float = 0.0
    blocks: float = 0.0

    def check(self, what: str, cost: Cost) -> None:
        """Raises AssertionError that says what grew, and of what it is made."""
        for name in ("calls", "writes", "blocks"):
            found, most = getattr(cost, name), getattr(self, name)
            assert found <= most + 1e-9, (
                f"{what}: {found:.2f} {name}, the budget is {most:g}. It is made of\n{cost.most_called()}\n"
                "Where that is what a wanted change costs, measure it with `python -m bench`, and raise the budget."
            )
