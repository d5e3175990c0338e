"""Settings of the Python process that a gateway has to itself."""

from __future__ import annotations

import gc
import sys


def tune_process() -> None:
    """Set how this process takes turns between its threads, and looks for garbage.

    For a process that does nothing else, after its gateway has started.
    """
    # The log's threads need the interpreter for moments beside a busy loop: at Python's own 5 ms
    # they wait as long each time, and commits with them (docs/decisions/0001-event-log.md).
    sys.setswitchinterval(0.0005)
    # Nearly everything is freed by its reference count. At Python's own thresholds a storm of returning
    # clients spends a quarter of its time on looking for cycles among those that are there.
    gc.set_threshold(20_000, 10, 10)
    gc.freeze()  # what there is by now stays
