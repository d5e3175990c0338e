"""The contract of the event log. One test suite holds for every implementation.

Guarantees every implementation gives:

* **Durable, then visible.** The future of `append` resolves, and the committed listener is
  called, only after the events are on stable storage (or, for the memory log, stored).
* **One order.** Offsets rise by one per event, without holes. The listener sees every
  event once, in offset order, also when many appends are under way.
* **No later one before an earlier one.** Where the disk fails, all calls are refused together (`LogUnavailable`) that
  were made until then, in one step of the event loop, though it be well again by now: who stops at a refusal, and makes
  the refused calls anew in their order, has them stored in that order. (An `Answer` is told in that step; who waits for
  a future runs in the next.)
* **Idempotent.** An event that the log still keeps (its `id`, and `Event.is_copy_of`) is not stored again: the
  answer carries the offset of the first and `duplicate=True`, and the listener is not told.
* **All or nothing.** The events and state writes of one `append` are stored in one
  transaction; several appends may share one (group commit).
* **Honest reads.** A page whose start lies before the oldest kept event says
  `complete=False`; nothing is skipped silently.
* **A new epoch** is drawn when the log is created, never when it is opened again.

Methods that return a future may be called without awaiting it; order of calls is order of
effects. All methods are called from the event loop's thread; none blocks it on a disk.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from gapless.event import Event, Record
from gapless.mqtt.filters import matches


class Appended(NamedTuple):
    """The log's answer for one event: where it stands, and whether it stood there before."""

    record: Record
    duplicate: bool


class StateKind(StrEnum):
    """Whose state a small durable value is. The log's database keeps them beside the events."""

    MQTT_SESSION = "mqtt_session"
    MQTT_SHARE = "mqtt_share"
    SOCKETIO_SESSION = "socketio_session"
    PUMP = "pump"
    LINK_FILTERS = "link_filters"
    LINK_RECEIVED = "link_received"
    LINK_VERSION = "link_version"
    REVOCATION = "revocation"
    BROKER_LOGIN = "broker_login"
    BROKER_ACCOUNT = "broker_account"


class StateWrite(NamedTuple):
    """One state value to store; `value` None deletes it."""

    kind: StateKind
    key: str
    value: bytes | None


class Selector(msgspec.Struct, frozen=True):
    """Which events a reader wants: those in any of `rooms`, or matching any MQTT filter.

    Filters are plain ones, without the `$share/…` prefix. `everything` takes all events.
    """

    rooms: frozenset[str] = frozenset()
    filters: tuple[str, ...] = ()
    everything: bool = False

    def wants(self, event: Event) -> bool:
        """Whether the event is one of them."""
        if self.everything:
            return True
        if self.rooms and not self.rooms.isdisjoint(event.rooms):
            return True
        return any(matches(pattern, event.topic) for pattern in self.filters)


EVERYTHING = Selector(everything=True)


class Page(NamedTuple):
    """A run of matching events, in order.

    Attributes:
        records: events with `after < offset <= through`, each once.
        through: every match up to this offset is in `records`: the next page starts here.
        complete: False where events after the asked start are already gone by retention;
            `records` then begins with the oldest that is kept.
    """

    records: list[Record]
    through: int
    complete: bool


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long events are kept: whichever bound is reached first; None is no bound.

    Attributes:
        seconds: age in seconds.
        bytes: total size of the stored events in bytes.
    """

    seconds: float | None = 7 * 86400.0
    bytes: int | None = 4 << 30


class Trimmed(NamedTuple):
    """What one `trim` did.

    Attributes:
        removed: events removed.
        held: events that the retention would have removed, and that `keep_after` kept.
    """

    removed: int
    held: int


class Answer(Protocol):
    """Who waits for one event, told by a call from the event loop, once: a future costs three times that.

    The committed listener has heard of the event before. What is raised is logged, and harms no other answer.
    """

    def stored(self, record: Record, *, duplicate: bool) -> None:
        """The event is in the log; where `duplicate`, it was there before, and this is its first record."""

    def refused(self, error: BaseException) -> None:
        """Nothing of the call was stored."""


CommittedListener = Callable[[Sequence[Record]], None]
"""Called in the event loop's thread with newly committed records, in offset order, before
the answers to their appends are given. It must not raise and must not block."""


class EventLog(Protocol):
    """The log. See the module's text for the guarantees."""

    @property
    def epoch(self) -> str:
        """Names this life of the log: letters and digits."""

    @property
    def head(self) -> int:
        """Offset of the newest durable event; 0 in an empty log."""

    @property
    def oldest(self) -> int:
        """Offset of the oldest event kept; `head + 1` where none is kept."""

    async def open(self, on_committed: CommittedListener) -> None:
        """Open or create the log.

        Raises:
            LogCorrupt: the file is damaged, torn, or not a log; it is left untouched.
            LogUnavailable: another process has it open, or the folder cannot be written.
        """

    async def close(self) -> None:
        """Commit what was accepted, then close. Later calls raise `LogUnavailable`."""

    def append(self, events: Sequence[Event], *, state: Sequence[StateWrite] = ()) -> Future[list[Appended]]:
        """Store events, and state values with them, in one transaction.

        Returns:
            A future of one answer per event, in order. Within one call too, a second event
            with an id already seen is a duplicate of the first.

        Raises:
            LogUnavailable: (from the future) nothing of this call was stored.
            Overloaded: (from the future) too many bytes wait to be committed.
        """

    def append_one(self, event: Event, answer: Answer, *, state: Sequence[StateWrite] = ()) -> None:
        """Store one event as `append` does, and tell `answer`, later.

        Raises:
            InvalidRequest, LogUnavailable, Overloaded: at once: nothing was stored, and `answer` is not told.
        """

    def write_state(self, writes: Sequence[StateWrite], *, durable: bool) -> Future[None]:
        """Store state values. The future resolves once they survive a SIGKILL of the process
        and, where `durable`, a power cut."""

    async def read_state(self, kind: StateKind, key: str) -> bytes | None:
        """One value, or None. Sees every earlier write, committed or not."""

    async def all_state(self, kind: StateKind) -> dict[str, bytes]:
        """All values of a kind, by key."""

    def write_retained(self, topic: str, event: Event | None) -> Future[None]:
        """Keep an *ephemeral* event as its topic's last value; None clears the topic.

        Appended events with `retain` do this by themselves, in their own transaction; one
        whose MQTT payload is empty clears its topic (MQTT 5 §3.3.1.3).
        """

    async def all_retained(self) -> list[Record]:
        """The last value of every topic that has one; offset 0 for ephemeral ones."""

    async def read(self, selector: Selector, after: int, *, limit: int = 1000, upto: int | None = None) -> Page:
        """Matching events with `after < offset <= upto` (default: the head), at most `limit`.

        A page may be shorter than `limit`, or empty, with `through < upto`: go on from there.
        """

    async def find(self, event_id: str) -> Record | None:
        """The event with this id, where the log keeps it; the first, where authors have used one id."""

    async def trim(self, *, now: float, keep_after: int | None = None) -> Trimmed:
        """Apply the retention. Offsets are never used again, also when nothing is left.

        Args:
            now: seconds since the Unix epoch.
            keep_after: events after this offset are kept, whatever the retention says: somebody
                still has to read them. Removing is never ahead of a state write that was made
                before the call, after a power cut neither.
        """
