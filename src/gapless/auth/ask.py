"""The rule `ask`: the application decides, and its answers hold for a while.

What is not answered in time, or not understood, is a no for a moment.
"""

from __future__ import annotations

import asyncio
import logging
import time as _time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice

import msgspec

from gapless.auth.gate import Identity
from gapless.auth.options import AskOptions
from gapless.auth.policy import Question

logger = logging.getLogger("gapless.auth")

MAX_PENDING = 10_000
"""Questions on their way; further ones are a no at once."""

_LOG_INTERVAL = 10.0


class Answer(msgspec.Struct, frozen=True):
    """What the application says.

    Attributes:
        ttl: seconds for which it holds; None takes the settings'.
    """

    allow: bool
    ttl: float | None = None


class AskFailed(Exception):
    """The application's answer is none."""


Ask = Callable[[Identity, Question], Awaitable[bool | Answer]]
"""A Python callable that answers one question."""

AskMany = Callable[[Identity, Sequence[Question]], Awaitable[Sequence[bool | Answer]]]
"""What answers a batch, in the order of its questions."""

_Key = tuple[str | None, str | None, frozenset[str], Question]


def one_by_one(ask: Ask) -> AskMany:
    """A callable for single questions as one for batches."""

    async def many(identity: Identity, questions: Sequence[Question]) -> Sequence[bool | Answer]:
        return [await ask(identity, question) for question in questions]

    return many


class Application:
    """The application's answers: asked for once at a time, kept for as long as they hold.

    Args:
        ask: who answers; None is nobody: every answer is no.
        clock: seconds that never go back.

    Attributes:
        counts: `asked`, `allowed`, `denied`, `timeout`, `failed`, `overloaded`: questions, by what became of them.
    """

    def __init__(
        self, options: AskOptions, ask: AskMany | None, *, clock: Callable[[], float] = _time.monotonic
    ) -> None:
        self._options = options
        self._ask = ask
        self._clock = clock
        # An answer holds at least until the check that wanted it, which waits for the slowest of its questions.
        self._least = options.timeout + 1.0
        self._answers: OrderedDict[_Key, tuple[bool, float]] = OrderedDict()
        self._pending: dict[_Key, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(options.concurrency)
        self._quiet_until = 0.0
        self.counts: Counter[str] = Counter()

    def answer(self, identity: Identity, question: Question) -> bool | None:
        """What the application has said; None where it must be asked (again)."""
        if self._ask is None:
            return False
        known = self._answers.get(_key(identity, question))
        return None if known is None or known[1] <= self._clock() else known[0]

    async def ask(self, identity: Identity, questions: Iterable[Question]) -> None:
        """Have the questions answered. Those that are on their way already are waited for.

        Cancelling it leaves the questions on their way: others may wait for them.
        """
        if self._ask is None:
            return
        tasks: set[asyncio.Task[None]] = set()
        new: list[Question] = []
        for question in dict.fromkeys(questions):
            pending = self._pending.get(_key(identity, question))
            if pending is not None:
                tasks.add(pending)
            elif self.answer(identity, question) is None:
                new.append(question)
        remaining = iter(new)
        while batch := list(islice(remaining, self._options.batch)):
            if len(self._tasks) + len(batch) > MAX_PENDING:
                for question in batch:
                    self._keep(_key(identity, question), Answer(False, self._options.error_seconds))
                self.counts["overloaded"] += len(batch)
                continue
            task = asyncio.create_task(self._get(identity, batch), name="ask")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._pending |= {_key(identity, question): task for question in batch}
            tasks.add(task)
        if tasks:
            await asyncio.wait(tasks)

    def forget(self, user_id: str | None = None) -> None:
        """Ask again: about everybody, or about one user. Answers that are on their way count no more."""
        for kept in (self._answers, self._pending):
            for key in [key for key in kept if user_id is None or key[0] == user_id]:
                del kept[key]

    async def stop(self) -> None:
        """Cancel what is on its way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _get(self, identity: Identity, batch: Sequence[Question]) -> None:
        assert self._ask is not None
        self.counts["asked"] += len(batch)
        failed = [Answer(False, self._options.error_seconds)] * len(batch)
        answers: Sequence[bool | Answer] = failed
        try:
            async with asyncio.timeout(self._options.timeout), self._free:
                answers = _checked(await self._ask(identity, batch), len(batch))
            for answer in answers:
                self.counts["allowed" if _is_yes(answer) else "denied"] += 1
        except TimeoutError:
            self._fail("timeout", len(batch), f"no answer within {self._options.timeout:g} s")
        except Exception as error:  # whatever the application's own code raises
            self._fail("failed", len(batch), f"{type(error).__name__}: {error}"[:300])
        for question, answer in zip(batch, answers, strict=True):
            key = _key(identity, question)
            if self._pending.get(key) is asyncio.current_task():  # not forgotten meanwhile
                del self._pending[key]
                self._keep(key, answer)

    def _keep(self, key: _Key, answer: bool | Answer) -> None:
        self._answers[key] = (_is_yes(answer), self._clock() + self._seconds(answer))
        self._answers.move_to_end(key)
        while len(self._answers) > self._options.max_answers:
            self._answers.popitem(last=False)

    def _seconds(self, answer: bool | Answer) -> float:
        ttl = None if isinstance(answer, bool) else answer.ttl
        if ttl is None:
            ttl = self._options.allow_seconds if _is_yes(answer) else self._options.deny_seconds
        return max(min(ttl, self._options.max_seconds), self._least)

    def _fail(self, kind: str, count: int, why: str) -> None:
        self.counts[kind] += count
        now = self._clock()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL
            logger.warning("the application did not say who may: denied", extra={"reason": kind, "detail": why})


def _checked(answers: object, count: int) -> Sequence[bool | Answer]:
    if not isinstance(answers, Sequence) or len(answers) != count:
        raise AskFailed("not as many answers as questions")
    for answer in answers:
        if not isinstance(answer, bool | Answer):
            raise AskFailed("an answer is neither true nor false")
    return answers


def _is_yes(answer: bool | Answer) -> bool:
    return answer if isinstance(answer, bool) else answer.allow


def _key(identity: Identity, question: Question) -> _Key:
    return identity.user_id, identity.token_id, identity.roles, question
