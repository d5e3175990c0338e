"""Background tasks of the edge: named, counted, their failures logged, ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from gapless.transports.mqtt.options import EdgeStats

logger = logging.getLogger("gapless.mqtt")


class Tasks:
    """The tasks that are under way. One that fails is logged and counted; the others go on."""

    def __init__(self, stats: EdgeStats) -> None:
        self._stats = stats
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stats.failures += 1
            logger.error("task %s failed", task.get_name(), exc_info=error)

    async def stop(self) -> None:
        """Cancel what is under way and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
