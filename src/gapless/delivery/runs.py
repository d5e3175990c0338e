"""What readers miss that come back to the same place: put together once for all of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

MOST_RUNS = 64
LARGEST_RUN = 128 * 1024
"""Bytes; what is larger is made for each reader."""


class SharedRuns:
    """The runs of events that readers got last, as they got them, by what they hear and where they stood.

    Thousands return together after an outage, and have the same to catch up with. Of a run that begins at an offset
    nothing changes any more, so none is ever out of date; at most `MOST_RUNS` of `LARGEST_RUN` bytes are kept.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """What was put under the key; None where that was never or long ago."""
        run = self._runs.get(key)
        if run is not None:
            self._runs.move_to_end(key)
        return run

    def put(self, key: Hashable, run: object, size: int) -> None:
        """Keep a run of so many bytes for others, if it is not too large."""
        if size > LARGEST_RUN:
            return
        self._runs[key] = run
        if len(self._runs) > MOST_RUNS:
            self._runs.popitem(last=False)
