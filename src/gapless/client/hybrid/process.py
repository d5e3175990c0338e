"""Straight-line processes without I/O: generators that wait for answers, timers by an injected clock.

A process yields `Later`s and gets their values. Everything runs inside `run`, in the order in which it
became due, so that the same inputs at the same times give the same outputs.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from gapless.client.hybrid.errors import Closed, NoAnswer
from gapless.errors import GaplessError

T = TypeVar("T")
Process = Generator["Later", Any, T]
"""What awaits one thing after the other, and gives a `T`."""

Cancel = Callable[[], None]


def nothing(*_: object) -> None:
    """What there is to do where there is nothing to do."""


class Later:
    """An answer that comes once: a value, or an error."""

    def __init__(self, on_abandon: Cancel | None = None) -> None:
        self.done = False
        self.value: Any = None
        self.error: GaplessError | None = None
        self._then: list[Callable[[Later], None]] = []
        self._on_abandon = on_abandon

    def resolve(self, value: Any = None) -> None:
        """Give the value, unless it is done already."""
        self._settle(value, None)

    def fail(self, error: GaplessError) -> None:
        """Give an error, unless it is done already."""
        self._settle(None, error)

    def take(self, other: Later) -> None:
        """The same outcome as another's, which is done."""
        self._settle(other.value, other.error)

    def abandon(self, error: GaplessError) -> None:
        """Nobody waits for it any more: tell whoever works on it."""
        if not self.done and self._on_abandon is not None:
            self._on_abandon()
        self._settle(None, error)

    def cancel(self) -> None:
        """Abandon it with `closed`."""
        self.abandon(Closed("this was given up"))

    def then(self, call: Callable[[Later], None]) -> None:
        """Call once it is done, which may be at once."""
        if self.done:
            call(self)
        else:
            self._then.append(call)

    def _settle(self, value: Any, error: GaplessError | None) -> None:
        if self.done:
            return
        self.done, self.value, self.error = True, value, error
        then, self._then = self._then, []
        for call in then:
            call(self)


class Running:
    """A process under way; `outcome` is done with it."""

    def __init__(self, scheduler: Scheduler, process: Process[Any]) -> None:
        self.outcome = Later()
        self._scheduler = scheduler
        self._process = process
        self._waits: Later | None = None
        self._cancelled = False

    @property
    def is_cancelled(self) -> bool:
        """Whether it was told to end."""
        return self._cancelled

    def cancel(self) -> None:
        """End it where it waits; it sees `Closed` there."""
        if self._cancelled or self.outcome.done:
            return
        self._cancelled = True
        waits, self._waits = self._waits, None
        if waits is not None:
            waits.cancel()

    def step(self, answer: Later | None) -> None:
        """Go on with an answer."""
        self._waits = None
        try:
            if answer is None:
                waits = next(self._process)
            elif answer.error is not None:
                waits = self._process.throw(answer.error)
            else:
                waits = self._process.send(answer.value)
        except StopIteration as stop:
            self.outcome.resolve(stop.value)
            return
        except GaplessError as error:
            self.outcome.fail(error)
            return
        if self._cancelled:
            waits.cancel()
        self._waits = waits
        waits.then(lambda later: self._scheduler.soon(lambda: self.step(later)))


class Scheduler:
    """Runs processes and timers.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.now = clock
        self._ready: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, list[Callable[[], None]]]] = []
        self._numbers = itertools.count()
        self._is_running = False

    def soon(self, call: Callable[[], None]) -> None:
        """Call in this or the next `run`."""
        self._ready.append(call)

    def spawn(self, process: Process[Any]) -> Running:
        """Start a process: its first step is done in `run`."""
        running = Running(self, process)
        self.soon(lambda: running.step(None))
        return running

    def timer(self, delay: float, call: Callable[[], None]) -> Cancel:
        """Call after so many seconds; the returned function cancels it."""
        holder = [call]
        heapq.heappush(self._timers, (self.now() + max(0.0, delay), next(self._numbers), holder))
        return holder.clear

    def bounded(self, later: Later, seconds: float) -> Later:
        """The same, abandoned with `timeout` where it takes longer."""
        late = NoAnswer(f"no answer within {seconds:.1f} s")
        cancel = self.timer(seconds, lambda: later.abandon(late))
        later.then(lambda _: cancel())
        return later

    def pause(self, seconds: float) -> Later:
        """Done after so many seconds."""
        later = Later(on_abandon=lambda: cancel())
        cancel = self.timer(seconds, later.resolve)
        return later

    @property
    def due(self) -> float | None:
        """When `run` must be called at the latest; None where no timer runs."""
        while self._timers and not self._timers[0][2]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is due at this moment."""
        due = self.due
        return not self._ready and (due is None or due > self.now())

    def run(self) -> None:
        """Do everything that is due now. A call from within does nothing: the outer one goes on."""
        if self._is_running:
            return
        self._is_running = True
        try:
            while True:
                if self._ready:
                    self._ready.popleft()()
                    continue
                due = self.due
                if due is None or due > self.now():
                    return
                _, _, holder = heapq.heappop(self._timers)
                call = holder.pop()
                call()
        finally:
            self._is_running = False
