"""What all clients of a load have received, and how long it took."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class LoadFailed(Exception):
    """The server did not do what the load needs: no figure comes of this run."""


class Tally:
    """Counts deliveries; wakes who waits for a number.

    Attributes:
        count: deliveries so far.
        latencies: microseconds, of the clients that take samples, while `sampling`.
        on_progress: called after each count, such as to publish more.
        problem: what went wrong first, None where nothing did.
    """

    __slots__ = ("_target", "_waiter", "count", "latencies", "on_progress", "problem", "sampling")

    def __init__(self) -> None:
        self.count = 0
        self.latencies: list[int] = []
        self.sampling = False
        self.on_progress: Callable[[], None] | None = None
        self.problem: str | None = None
        self._target = -1
        self._waiter: asyncio.Future[None] | None = None

    def add(self, number: int) -> None:
        """Count deliveries."""
        self.count += number
        if self.on_progress is not None:
            self.on_progress()
        if self._waiter is not None and self.count >= self._target:
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, problem: str) -> None:
        """Something that no benchmark may go on from, such as a closed connection: whoever waits is told."""
        if self.problem is None:
            self.problem = problem
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(LoadFailed(problem))

    def check(self) -> None:
        """Raise `LoadFailed` where something went wrong."""
        if self.problem is not None:
            raise LoadFailed(self.problem)

    async def reach(self, target: int, *, within: float) -> None:
        """Wait until `count` is at least `target`; for one waiter at a time.

        Raises:
            LoadFailed: something went wrong, or it took more than `within` seconds.
        """
        self.check()
        if self.count >= target:
            return
        self._target = target
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within):
                await self._waiter
        except TimeoutError:
            raise LoadFailed(f"{target - self.count:,} of {target:,} deliveries did not arrive") from None


def percentile(values: list[int], part: float) -> float:
    """The value below which `part` (0 to 1) of `values` lie; nearest rank."""
    if not values:
        raise ValueError("no samples were taken")
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(part * len(ordered)))])
