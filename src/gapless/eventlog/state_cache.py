"""Stored state in memory, for clients that come back: reading it takes two hand-overs between threads."""

from __future__ import annotations

KEPT_BYTES = 32 << 20


class StateCache:
    """Values of one kind of state as they are stored, by key; past a number of bytes those that were put first go."""

    def __init__(self, max_bytes: int = KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        """The value; None where it is not known here."""
        return self._values.get(key)

    def put(self, key: str, value: bytes) -> None:
        """The value is being stored, or was read."""
        self.drop(key)
        self._values[key] = value
        self._bytes += len(key) + len(value)
        while self._bytes > self._max_bytes:
            self.drop(next(iter(self._values)))

    def drop(self, key: str) -> None:
        """The value is deleted, or is changed in a way that is not known here."""
        value = self._values.pop(key, None)
        if value is not None:
            self._bytes -= len(key) + len(value)
