"""How long to wait for what: see "Bounds" in docs/client-protocol.md. Seconds."""

from __future__ import annotations

import math


class Mean:
    """An average with weight 1/8 for the newest value.

    Attributes:
        value: None before the first.
        count: how many there were.
    """

    def __init__(self) -> None:
        self.value: float | None = None
        self.count = 0

    def add(self, sample: float) -> None:
        """Take a sample."""
        self.count += 1
        self.value = sample if self.value is None else self.value + (sample - self.value) / 8


def _within(value: float, least: float, most: float) -> float:
    return min(most, max(least, value))


def open_bound(latency: float | None) -> float:
    """For a description, and for opening a transport."""
    return 8.0 if latency is None else _within(2 + 8 * latency, 4, 20)


def check_bound(latency: float | None) -> float:
    """For the answer to "are you there", and for an event that must be on its way."""
    return 5.0 if latency is None else _within(1 + 4 * latency, 2, 10)


def silence_bound(gaps: Mean, heartbeat: float) -> float:
    """Without a sign of life, until one asks; `heartbeat` is the transport's, infinite where it has none."""
    most = 1.5 * heartbeat if heartbeat < math.inf else math.inf
    if gaps.value is None or gaps.count < 8:
        return most
    return _within(2 + 8 * gaps.value, 3, most)
