"""The rule `ask`: the application decides, and its answers hold for a while.

What is not answered in time, or not understood, is a no for a moment. A yes that a live subscription rests on is
asked for again before it ends (`renewals.py`); there, no answer leaves it standing for a while.
"""

from __future__ import annotations

import asyncio
import logging
import random
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

Whom = tuple[str | None, str | None, frozenset[str]]
"""Whom an answer is about: user, token and roles."""

_Key = tuple[str | None, str | None, frozenset[str], Question]
_RENEWED_FROM, _RENEWED_TO = 0.6, 0.9
"""Shares of a yes's life between which it is asked for again: spread, as many come at once after a restart."""
_TOGETHER = 0.1
"""Share of its life by which a yes is asked for earlier, to go together with another."""


class _Kept:
    """An answer, and until when it holds.

    Attributes:
        renew_at: when it is to be asked for again, where it is in use.
        lapses: beyond this it holds under no circumstances.
        used: whether a check looked at it since it was kept, or last asked for again.
    """

    __slots__ = ("allow", "lapses", "renew_at", "seconds", "until", "used")

    def __init__(self, now: float, *, allow: bool, seconds: float, share: float, stale: float) -> None:
        self.allow = allow
        self.seconds = seconds
        self.until = now + seconds
        self.renew_at = now + seconds * share
        self.lapses = self.until + stale
        self.used = False

    def is_due(self, now: float) -> bool:
        """Whether to ask for it again now, or together with another."""
        return self.renew_at <= now + self.seconds * _TOGETHER


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
        spread: draws from 0 to 1, to spread over time what is asked for again.

    Attributes:
        on_yes: told of each yes to hearing something, and when it should be asked for again.
        counts: `asked`, `allowed`, `denied`, `timeout`, `failed`, `overloaded`: questions, by what became of them.
    """

    def __init__(
        self,
        options: AskOptions,
        ask: AskMany | None,
        *,
        clock: Callable[[], float] = _time.monotonic,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._options = options
        self._ask = ask
        self.clock = clock
        self._spread = spread
        self.on_yes: Callable[[Identity, Question, float], None] | None = None
        # An answer holds at least until the check that wanted it, which waits for the slowest of its questions.
        self._least = options.timeout + 1.0
        self._answers: OrderedDict[_Key, _Kept] = OrderedDict()
        self._pending: dict[_Key, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(options.concurrency)
        self._quiet_until = 0.0
        self.counts: Counter[str] = Counter()

    def answer(self, identity: Identity, question: Question) -> bool | None:
        """What the application has said; None where it must be asked (again)."""
        if self._ask is None:
            return False
        kept = self._answers.get(_key(identity, question))
        if kept is None or kept.until <= self.clock():
            return None
        kept.used = True
        return kept.allow

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
                    self._keep(identity, question, Answer(False, self._options.error_seconds))
                self.counts["overloaded"] += len(batch)
                continue
            task = asyncio.create_task(self._get(identity, batch), name="ask")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._pending |= {_key(identity, question): task for question in batch}
            tasks.add(task)
        if tasks:
            await asyncio.wait(tasks)

    # --- asking again

    def due(self, identity: Identity, questions: Iterable[Question]) -> list[Question]:
        """Those whose yes is in use and should be asked for again, now or soon."""
        now = self.clock()
        answers = [(question, self._answers.get(_key(identity, question))) for question in questions]
        return [
            question
            for question, kept in answers
            if kept is not None and kept.used and kept.allow and kept.is_due(now) and now < kept.until
        ]

    async def renew(self, identity: Identity, questions: Iterable[Question]) -> None:
        """Ask again though the answers hold still, one batch after another.

        Where the application does not answer, a yes holds on, and is asked for again, for `stale_seconds` beyond its
        end at most: a subscription does not end because the application was restarted.
        """
        remaining = iter([question for question in questions if _key(identity, question) not in self._pending])
        while batch := list(islice(remaining, self._options.batch)):
            task = asyncio.create_task(self._get(identity, batch, renewing=True), name="ask")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._pending |= {_key(identity, question): task for question in batch}
            await asyncio.wait([task])

    def next_look(self, identity: Identity, question: Question, *, live: bool) -> float | None:
        """When the answer must be looked at again; None where there is no yes (any more)."""
        kept = self._answers.get(_key(identity, question))
        now = self.clock()
        if kept is None or not kept.allow or kept.until <= now:
            return None
        return kept.renew_at if live and kept.used and now < kept.renew_at < kept.until else kept.until

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

    async def _get(self, identity: Identity, batch: Sequence[Question], *, renewing: bool = False) -> None:
        assert self._ask is not None
        self.counts["asked"] += len(batch)
        failed = [Answer(False, self._options.error_seconds)] * len(batch)
        answers: Sequence[bool | Answer] = failed
        answered = False
        try:
            async with asyncio.timeout(self._options.timeout), self._free:
                answers = _checked(await self._ask(identity, batch), len(batch))
            answered = True
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
                if answered or not renewing:
                    self._keep(identity, question, answer)
                else:
                    self._stretch(key)

    def _keep(self, identity: Identity, question: Question, answer: bool | Answer) -> None:
        key, allow, share = _key(identity, question), _is_yes(answer), self._spread()
        kept = self._answers[key] = _Kept(
            self.clock(),
            allow=allow,
            seconds=self._seconds(answer),
            share=_RENEWED_FROM + (_RENEWED_TO - _RENEWED_FROM) * share,
            stale=self._options.stale_seconds,
        )
        if allow and question.action == "subscribe" and self.on_yes is not None:
            self.on_yes(identity, question, kept.renew_at)
        self._answers.move_to_end(key)
        while len(self._answers) > self._options.max_answers:
            self._answers.popitem(last=False)

    def _stretch(self, key: _Key) -> None:
        kept = self._answers.get(key)
        if kept is None:
            return
        now = self.clock()
        kept.used = False
        kept.renew_at = now + max(self._least, self._options.stale_seconds / 4)
        kept.until = max(kept.until, min(kept.renew_at + self._least, kept.lapses))

    def _seconds(self, answer: bool | Answer) -> float:
        ttl = None if isinstance(answer, bool) else answer.ttl
        if ttl is None:
            ttl = self._options.allow_seconds if _is_yes(answer) else self._options.deny_seconds
        return max(self._least, min(self._options.max_seconds, ttl))  # in this order also where it is no number

    def _fail(self, kind: str, count: int, why: str) -> None:
        self.counts[kind] += count
        now = self.clock()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL
            logger.warning(
                "the application did not say who may: what is new is denied", extra={"reason": kind, "detail": why}
            )


def _checked(answers: object, count: int) -> Sequence[bool | Answer]:
    if not isinstance(answers, Sequence) or len(answers) != count:
        raise AskFailed("not as many answers as questions")
    for answer in answers:
        if not isinstance(answer, bool | Answer):
            raise AskFailed("an answer is neither true nor false")
    return answers


def _is_yes(answer: bool | Answer) -> bool:
    return answer if isinstance(answer, bool) else answer.allow


def whom_of(identity: Identity) -> Whom:
    """Whom the answers about an identity are about."""
    return identity.user_id, identity.token_id, identity.roles


def _key(identity: Identity, question: Question) -> _Key:
    return identity.user_id, identity.token_id, identity.roles, question
