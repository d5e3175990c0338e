"""Ends those who take too long over something, with one timer for all."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Late(Protocol):
    """Somebody who is waited for."""

    def too_late(self) -> None:
        """The time is over. Must not raise."""


class Deadlines:
    """One deadline for everybody, so many seconds after each one's start.

    Args:
        seconds: how long each has.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[Late, float] = {}  # in the order of the ends, as all have the same time
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def start(self, who: Late) -> None:
        """Begin to wait for somebody; whoever is waited for already has no more time than before."""
        if who not in self._due:
            loop = asyncio.get_running_loop()
            self._due[who] = due = loop.time() + self._seconds
            if self._timer is None:
                self._timer = loop.call_at(due, self._run)

    def stop(self, who: Late) -> None:
        """They made it, or left."""
        self._due.pop(who, None)

    def close(self) -> None:
        """Wait for nobody any more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time() + 0.001
        while self._due:
            who, due = next(iter(self._due.items()))
            if due > now:
                break
            del self._due[who]
            who.too_late()
        self._timer = None
        if self._due:
            self._timer = loop.call_at(next(iter(self._due.values())), self._run)
