"""Letting the log's threads have a turn at the interpreter when the event loop leaves them none.

A thread that waits for the interpreter's lock asks for it by force only after 5 ms without any
hand-over (`sys.setswitchinterval`). An event loop that never idles lets go of the lock for some
microseconds in every iteration, too briefly for the other thread to wake up in, and each time the
5 ms begin anew. Measured beside such a loop: single commits waited up to 2 seconds. So while
work is under way the loop looks in every few milliseconds; where nothing was finished meanwhile
and the loop was computing all the time, it stands still until something is, 1 ms at most.
"""

from __future__ import annotations

import asyncio
import threading
import time

#: Seconds between two looks, and how long the loop stands still at most.
_LOOK_EVERY = 0.003
_STAND_STILL = 0.001
#: From this share of the time spent computing the loop counts as busy: an idle one needs no help.
_BUSY = 0.5


class Handoff:
    """Counts what the threads have to do. All methods but `worked` belong to the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._under_way = 0
        self._finished = 0
        self._timer: asyncio.TimerHandle | None = None
        self._worked = threading.Event()
        self._seen = (0, 0.0, 0.0)
        self.turns = 0
        """How often the loop stood still for the threads."""

    def begin(self, count: int = 1) -> None:
        """So many things were given to a thread."""
        self._under_way += count
        if self._timer is None:
            self._look_again()

    def end(self, count: int = 1) -> None:
        """So many of the things that were begun have been answered."""
        self._under_way -= count
        self._finished += count

    def worked(self) -> None:
        """Called by a thread that has done a piece of work: the loop need wait no longer."""
        self._worked.set()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self) -> None:
        self._seen = (self._finished, time.monotonic(), time.thread_time())
        self._timer = self._loop.call_later(_LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._under_way <= 0:
            return
        finished, began, computed = self._seen
        busy = time.thread_time() - computed > _BUSY * (time.monotonic() - began)
        if busy and self._finished == finished:
            self.turns += 1
            self._worked.clear()
            self._worked.wait(_STAND_STILL)
        self._look_again()
