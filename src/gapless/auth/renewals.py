"""A yes of the application that a live subscription rests on, asked for again before it ends.

One identity is looked at as one: what is due soon is asked together, then its connections look again at what they
hear. That look tells also which answers are in use; one that no connection asked for is let go.
"""

from __future__ import annotations

import asyncio
import heapq
import logging

from gapless.auth.ask import Application, Whom, whom_of
from gapless.auth.gate import Identity
from gapless.auth.leases import Leases
from gapless.auth.policy import Question

logger = logging.getLogger("gapless.auth")

_MAX_SLEEP = 3600.0


class _Entry:
    """One identity, and what it was allowed to hear. `at`: when it is looked at next."""

    __slots__ = ("at", "identity", "questions")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.questions: set[Question] = set()
        self.at: float | None = None


class Renewals:
    """Keeps live subscriptions true to what the application says, within the life of its answers.

    Args:
        application: whose answers they are.
        leases: the connections.
        concurrency: identities asked about at a time. New questions have the rest of the application's share.
    """

    def __init__(self, application: Application, leases: Leases, *, concurrency: int) -> None:
        self._application = application
        self._leases = leases
        self._free = asyncio.Semaphore(max(1, concurrency))
        self._all: dict[Whom, _Entry] = {}
        self._due: list[tuple[float, int, _Entry]] = []  # a heap; entries may be stale
        self._order = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        application.on_yes = self._granted

    def __len__(self) -> int:
        """Identities that are minded."""
        return len(self._all)

    def _granted(self, identity: Identity, question: Question, renew_at: float) -> None:
        whom = whom_of(identity)
        entry = self._all.get(whom)
        if entry is None:
            entry = self._all[whom] = _Entry(identity)
        entry.identity = identity
        entry.questions.add(question)
        self._plan(entry, renew_at)

    def turn(self) -> None:
        """Look at whatever is due."""
        now = self._application.clock()
        while self._due and self._due[0][0] <= now:
            at, _, entry = heapq.heappop(self._due)
            if entry.at == at:
                entry.at = None
                task = asyncio.get_running_loop().create_task(self._look(entry), name="ask-renewal")
                self._tasks.add(task)
                task.add_done_callback(self._done)
        self._set_timer()

    async def settled(self) -> None:
        """Wait until the application has answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Mind nothing more."""
        self._application.on_yes = None
        self._due.clear()
        self._set_timer()
        for task in self._tasks:
            task.cancel()
        await self.settled()

    async def _look(self, entry: _Entry) -> None:
        application, identity = self._application, entry.identity
        async with self._free:
            is_here = self._leases.has(identity.user_id)
            if is_here:
                await application.renew(identity, application.due(identity, entry.questions))
        whom = whom_of(identity)
        # Whoever is told no by now is let go; what must be asked for anew is asked by the connection.
        self._leases.change(lambda other: whom_of(other) == whom, user_id=identity.user_id)
        ends = {question: application.next_look(identity, question, live=is_here) for question in entry.questions}
        entry.questions = {question for question, at in ends.items() if at is not None}
        if entry.questions:
            self._plan(entry, min(at for at in ends.values() if at is not None))
        elif self._all.get(whom) is entry:
            del self._all[whom]

    def _plan(self, entry: _Entry, at: float) -> None:
        if entry.at is None or at < entry.at:
            entry.at = at
            self._order += 1
            heapq.heappush(self._due, (at, self._order, entry))
            if self._due[0][2] is entry:
                self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            delay = min(max(self._due[0][0] - self._application.clock(), 0.0) + 0.001, _MAX_SLEEP)
            self._timer = asyncio.get_running_loop().call_later(delay, self.turn)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("what the application allowed could not be renewed", exc_info=error)
