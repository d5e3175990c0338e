"""How long to wait before the next attempt: exponential, with full jitter."""

from __future__ import annotations

import random as _random
from collections.abc import Callable


class Backoff:
    """Delays drawn evenly from 0 to a bound that doubles with each attempt.

    Full jitter spreads clients that lost their server at the same moment over the whole time.

    Args:
        first: bound of the first delay, in seconds.
        limit: largest bound, in seconds.
        random: draws evenly from 0 up to 1.
    """

    def __init__(
        self, *, first: float = 0.5, limit: float = 30.0, random: Callable[[], float] = _random.random
    ) -> None:
        self._first = first
        self._limit = limit
        self._random = random
        self._attempts = 0

    def next(self) -> float:
        """The next delay in seconds."""
        bound = min(self._limit, self._first * 2.0 ** min(self._attempts, 32))
        self._attempts += 1
        return bound * self._random()

    def reset(self) -> None:
        """Begin again with the first bound: the connection stood."""
        self._attempts = 0
