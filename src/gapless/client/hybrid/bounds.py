"""How long to wait for what: see "Bounds" in docs/client-protocol.md. Seconds."""

from __future__ import annotations

import math

import msgspec

from gapless.errors import ConfigError


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The longest that the client waits for each, in seconds, whatever it has measured.

    Shorter than the network now and then takes, they cost needless connections.

    Attributes:
        open: to open a transport, and for each answer on the way to being whole.
        silence: without a sign of life, before the connection is checked.
        check: for the answer to a check, before the connection counts as lost.

    Raises:
        ConfigError: one is not positive.
    """

    open: float = math.inf
    silence: float = math.inf
    check: float = math.inf

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not getattr(self, name) > 0:
                raise ConfigError(f"bounds: {name} is not a positive number of seconds: {getattr(self, name)!r}")


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


def open_bound(latency: float | None, most: float = math.inf) -> float:
    """For a description, and for opening a transport. `most`, here and below, is the application's own limit."""
    return min(most, 8.0 if latency is None else _within(2 + 8 * latency, 4, 20))


def check_bound(latency: float | None, most: float = math.inf) -> float:
    """For the answer to "are you there", and for an event that must be on its way."""
    return min(most, 5.0 if latency is None else _within(1 + 4 * latency, 2, 10))


def silence_bound(gaps: Mean, heartbeat: float, limit: float = math.inf) -> float:
    """Without a sign of life, until one asks; `heartbeat` is the transport's, infinite where it has none."""
    most = 1.5 * heartbeat if heartbeat < math.inf else math.inf
    if gaps.value is None or gaps.count < 8:
        return min(limit, most)
    return min(limit, _within(2 + 8 * gaps.value, 3, most))
