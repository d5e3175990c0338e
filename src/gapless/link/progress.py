"""The pump's state in the log's database, written behind its back and before each PUBREL."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Callable
from functools import partial

import msgspec

from gapless.eventlog import EventLog, StateKind, StateWrite
from gapless.hub import Hub
from gapless.link.flight import Flight, PumpState, Sent

logger = logging.getLogger("gapless.link.pump")

_EVERY = 0.005  # seconds between writes of the position: what a SIGKILL makes go out twice
_AGAIN = 1.0  # seconds after a write that failed


class Progress:
    """Keeps what is stored up with a `Flight`; one write at a time.

    Writes survive a SIGKILL of the process. Those that a power cut may not undo are durable.

    Args:
        on_stored: told, after a write, which publications it says the broker has taken over.

    Attributes:
        connecting: goes into every state that is written: see `PumpState.connecting`.
        stored: the last state that was written.
    """

    def __init__(self, *, name: str, hub: Hub, log: EventLog, on_stored: Callable[[list[Sent]], None]) -> None:
        self._name = name
        self._hub = hub
        self._log = log
        self._on_stored = on_stored
        self._writing: Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        self.connecting = False
        self.flight = Flight(0)
        self.stored = PumpState(epoch="", position=0)

    async def load(self) -> bool:
        """Read the state into `flight`. A link that has none begins at the log's end, and stores that.

        Returns:
            Whether there was one of this log.
        """
        raw = await self._log.read_state(StateKind.PUMP, self._name)
        restored = raw is not None
        if raw is None:
            self.flight = Flight(self._hub.head)
        else:
            self.flight = self._restored(msgspec.json.decode(raw, type=PumpState))
        await self.store_now()
        return restored

    def _restored(self, state: PumpState) -> Flight:
        head = self._hub.head
        if state.epoch != self._hub.epoch:
            logger.warning("link %s: the log is a new one: publishing all of it", self._name)
            return Flight(0)
        if state.position > head:
            logger.error(
                "link %s: the log ends at %d, before the stored position %d: newer events were lost with it",
                *(self._name, head, state.position),
            )
            return Flight(head)
        return Flight(state.position, () if state.connecting else state.received)

    async def store_now(self) -> None:
        """Write the state durably, and wait for it.

        Raises:
            LogUnavailable: it was not written.
        """
        self._cancel_timer()
        to_store = self.flight.to_store()
        state = self._state()
        await self._log.write_state((self._write_of(state),), durable=True)
        self.stored = state
        self._on_stored(to_store)

    def store_soon(self, *, urgent: bool = False) -> None:
        """Write the state with the next write, or, if `urgent`, as soon as none is under way."""
        if self._writing is not None:
            self._due = self._due or urgent
        elif urgent:
            self._start()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self._start)

    async def close(self) -> None:
        """Store the state for good.

        Raises:
            LogUnavailable: the last state was not written; an older one is.
        """
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await self.store_now()
        self._cancel_timer()

    def _start(self) -> None:
        self._cancel_timer()
        if self._writing is not None:
            self._due = True
            return
        self._due = False
        to_store = self.flight.to_store()
        state = self._state()
        if state == self.stored and not to_store:
            return
        self._writing = self._log.write_state((self._write_of(state),), durable=False)
        self._writing.add_done_callback(partial(self._written, state, to_store))

    def _written(self, state: PumpState, to_store: list[Sent], done: Future[None]) -> None:
        self._writing = None
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            logger.warning("link %s: the position could not be stored: %s", self._name, error)
            self._cancel_timer()
            self._timer = asyncio.get_running_loop().call_later(_AGAIN, self._start)
            return
        self.stored = state
        self._on_stored(to_store)
        if self._due:
            self._start()
        elif self._state() != state:
            self.store_soon()

    def _state(self) -> PumpState:
        return self.flight.state(self._hub.epoch, connecting=self.connecting)

    def _write_of(self, state: PumpState) -> StateWrite:
        return StateWrite(StateKind.PUMP, self._name, msgspec.json.encode(state))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
