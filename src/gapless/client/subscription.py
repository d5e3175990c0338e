"""A subscription that comes back for ever and resumes from its cursor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from gapless.client.backoff import Backoff
from gapless.client.model import ClientEvent, Connection, ConnectionLost, Hole, Moved, Reconnecting, Signal, Subscribed
from gapless.errors import InvalidPosition
from gapless.event import Position

Sleep = Callable[[float], Awaitable[None]]

STABLE = 5.0
"""Seconds a connection must have stood for the next attempts to begin with short delays again."""


class Subscription:
    """The state of `follow`: a cursor.

    Args:
        after: where it stands at first.
        drop_repeats: keep back what was processed before; False hands it out, for one who counts.

    Attributes:
        cursor: the last position that was processed; None until one is known.
        drop_repeats: see above.
        repeats: events that came again although they lie before the cursor.
        reconnects: how often the connection was made anew.
    """

    def __init__(self, after: str | None = None, *, drop_repeats: bool = True) -> None:
        self.cursor = after
        self.drop_repeats = drop_repeats
        self.repeats = 0
        self.reconnects = 0

    def subscribed(self, signal: Subscribed) -> None:
        """A subscription that began without a position has one from here on."""
        if self.cursor is None:
            self.cursor = signal.position

    def moved(self, signal: Moved) -> None:
        """Nothing for this client lies before the position."""
        self.cursor = signal.position

    def skip(self, hole: Hole) -> None:
        """Go on behind a hole that was reported."""
        if hole.position is not None:
            self.cursor = hole.position

    def is_repeat(self, event: ClientEvent) -> bool:
        """Whether the event was processed before; a retained message stands outside the order."""
        if event.retained or not event.ordered or event.position is None or self.cursor is None:
            return False
        try:
            here, there = Position.parse(self.cursor), Position.parse(event.position)
        except InvalidPosition:
            return False  # a foreign server's idea of a position: nothing to compare
        return here.epoch == there.epoch and there.offset <= here.offset

    def processed(self, event: ClientEvent) -> None:
        """Move the cursor."""
        if event.position is not None and event.ordered and not event.retained:
            self.cursor = event.position


async def follow(
    connection: Connection,
    *,
    after: str | None = None,
    backoff: Backoff | None = None,
    subscription: Subscription | None = None,
    sleep: Sleep = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Signal, None]:
    """Hear events for ever, over as many connections as it takes.

    The cursor moves once the caller asks for the next signal: an event whose processing was
    cut short comes again. Close the generator to end it.

    Args:
        after: where to begin; None begins with what comes now.
        backoff: delays between attempts; default 0.5 s, doubling to 30 s, with full jitter.
        subscription: the state, for a caller that wants to look at it.

    Raises:
        Refused: the server does not allow the subscription.
    """
    state = subscription if subscription is not None else Subscription(after)
    delays = backoff if backoff is not None else Backoff()
    while True:
        stood_since: float | None = None
        try:
            async with aclosing(connection.listen(state.cursor)) as signals:
                async for signal in signals:
                    match signal:
                        case Subscribed():
                            state.subscribed(signal)
                            stood_since = clock()
                            yield signal
                        case Moved():
                            state.moved(signal)
                        case Hole():
                            state.skip(signal)
                            yield signal
                        case ClientEvent():
                            if state.is_repeat(signal):
                                state.repeats += 1
                                if state.drop_repeats:
                                    continue
                            yield signal
                            state.processed(signal)
            reason = "the connection ended"
        except ConnectionLost as error:
            reason = error.message
        if stood_since is not None and clock() - stood_since >= STABLE:
            delays.reset()
        state.reconnects += 1
        delay = delays.next()
        yield Reconnecting(reason, delay)
        await sleep(delay)
