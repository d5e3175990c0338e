"""Publications on their way: kept, sent once and in order, each answered. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gapless.client.backoff import Backoff
from gapless.client.hybrid.errors import Closed, OutboxFull
from gapless.client.hybrid.process import Cancel, Later, Process, Running, Scheduler
from gapless.client.hybrid.tokens import Tokens
from gapless.client.hybrid.world import World
from gapless.client.model import Published
from gapless.errors import GaplessError, InvalidRequest

_BATCH = 100
_BATCH_BYTES = 1 << 20
_BOUND = 30.0


class Entry(msgspec.Struct, frozen=True):
    """A publication in the outbox: its id, its place, and the JSON that is sent."""

    id: str
    seq: int
    body: bytes


class OutboxBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait in the outbox: events, and bytes of their JSON."""

    max_events: int = 1000
    max_bytes: int = 4 << 20


class _Waiting(msgspec.Struct, eq=False):
    entry: Entry
    answer: Later | None


class Outbox:
    """What waits to be sent.

    Args:
        leftovers: of an earlier life, in order.
        changed: called with the new length.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        world: World,
        tokens: Tokens,
        *,
        leftovers: list[Entry],
        bounds: OutboxBounds,
        random: Callable[[], float],
        changed: Callable[[int], None],
    ) -> None:
        self._scheduler = scheduler
        self._world = world
        self._tokens = tokens
        self._bounds = bounds
        self._changed = changed
        self._delays = Backoff(first=0.5, limit=30.0, random=random)
        self._queue = {entry.id: _Waiting(entry, None) for entry in leftovers}
        self._bytes = sum(len(entry.body) for entry in leftovers)
        self._seq = leftovers[-1].seq if leftovers else 0
        self._sending: Running | None = None
        self._cancel_retry: Cancel | None = None
        self._one_by_one = False
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._queue)

    def reserve(self, identity: str, body: bytes) -> tuple[Entry, Later]:
        """A place in the queue, and the answer: `Published`, or an error. `flush` follows once it is stored.

        It may be sent before that, with those before it; its answer may then be there already.

        Raises:
            OutboxFull: no more may wait.
            InvalidRequest: an event with this id waits already. One that an earlier life left over is taken up.
            Closed: the client was closed.
        """
        if self._is_closed:
            raise Closed("the client was closed")
        known = self._queue.get(identity)
        if known is not None and known.answer is None:
            known.answer = Later()  # an earlier life began it: it is the same event
            return known.entry, known.answer
        if known is not None:
            raise InvalidRequest(f"the id {identity} is on its way already", hint="wait for its answer")
        bounds = self._bounds
        if len(self._queue) >= bounds.max_events or self._bytes + len(body) > bounds.max_bytes:
            raise OutboxFull(
                f"{len(self._queue)} events wait to be sent",
                hint="wait for answers",
                max_events=bounds.max_events,
                max_bytes=bounds.max_bytes,
            )
        self._seq += 1
        entry = Entry(identity, self._seq, body)
        answer = Later()
        self._queue[identity] = _Waiting(entry, answer)
        self._bytes += len(body)
        self._changed(len(self._queue))
        return entry, answer

    def wake(self) -> None:
        """The gateway can be reached: send now."""
        if self._cancel_retry is not None:
            self._cancel_retry()
            self._cancel_retry = None
        self._delays.reset()
        self.flush()

    def close(self) -> None:
        """Stop. What is stored stays for the next life."""
        self._is_closed = True
        if self._cancel_retry is not None:
            self._cancel_retry()
        if self._sending is not None:
            self._sending.cancel()
        queue, self._queue = self._queue, {}
        for waiting in queue.values():
            if waiting.answer is not None:
                waiting.answer.fail(Closed("the client was closed; what is in its store is sent by the next one"))

    def flush(self) -> None:
        """Send what waits, unless that is under way or delayed."""
        if self._sending is None and self._cancel_retry is None and self._queue and not self._is_closed:
            self._sending = self._scheduler.spawn(self._send_all())

    def _send_all(self) -> Process[None]:
        try:
            while self._queue and not self._is_closed:
                batch = self._batch()
                token: str | None = None
                try:
                    token = yield from self._tokens.get()
                    bodies = [each.entry.body for each in batch]
                    answers: list[Published] = yield self._scheduler.bounded(self._world.publish(bodies, token), _BOUND)
                except GaplessError as error:
                    if not self._goes_on(error, batch, token):
                        return
                else:
                    self._delays.reset()
                    self._one_by_one = False
                    for waiting, published in zip(batch, answers, strict=True):
                        self._settle(waiting, published)
        finally:
            self._sending = None

    def _goes_on(self, error: GaplessError, batch: list[_Waiting], token: str | None) -> bool:
        """Whether to send on at once; what the error is about has its answer."""
        if error.code == "closed" and self._is_closed:
            return False
        if error.code == "unauthorized":
            self._tokens.refuse(token)
        if error.retryable or error.code in ("unauthorized", "closed"):
            self._cancel_retry = self._scheduler.timer(self._delays.next(), self._retry)
            return False
        index = 0 if len(batch) == 1 else error.details.get("index")
        if isinstance(index, int) and 0 <= index < len(batch):
            self._settle(batch[index], error)
        else:
            self._one_by_one = True  # it does not say whose fault it is
        return True

    def _retry(self) -> None:
        self._cancel_retry = None
        self.flush()

    def _batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        for waiting in self._queue.values():
            size += len(waiting.entry.body)
            if batch and (size > _BATCH_BYTES or len(batch) >= _BATCH or self._one_by_one):
                break
            batch.append(waiting)
        return batch

    def _settle(self, waiting: _Waiting, outcome: Published | GaplessError) -> None:
        entry = waiting.entry
        if self._queue.pop(entry.id, None) is None:
            return
        self._bytes -= len(entry.body)
        self._world.forget([entry.id])
        self._changed(len(self._queue))
        if waiting.answer is None:
            self._world.sent(entry.id, outcome)
        elif isinstance(outcome, GaplessError):
            waiting.answer.fail(outcome)
        else:
            waiting.answer.resolve(outcome)
