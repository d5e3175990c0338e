"""How long to wait before the next attempt: exponential back-off with full jitter."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Waits that grow, each drawn from 0 to a bound that doubles up to a limit.

    Full jitter spreads the clients of a broker that comes back over the whole interval.

    Args:
        first: bound of the first wait in seconds.
        limit: largest bound in seconds.
        random: draws from 0 (included) to 1.
    """

    def __init__(self, first: float, limit: float, random: Callable[[], float]) -> None:
        self._first = first
        self._limit = limit
        self._random = random
        self.attempts = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        bound = min(self._limit, self._first * 2.0 ** min(self.attempts, 60))
        self.attempts += 1
        return bound * self._random()

    def reset(self) -> None:
        """Begin with short waits again, after a stable connection."""
        self.attempts = 0
