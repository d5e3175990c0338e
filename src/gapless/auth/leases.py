"""Connections tied to the access they were let in with: ended when it ends, whatever the door."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time as _time
from collections.abc import Callable, Iterator
from types import EllipsisType
from typing import TYPE_CHECKING, Protocol

from gapless.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from gapless.auth.gate import Identity

logger = logging.getLogger("gapless.auth")

MAX_SLEEP = 1.0
"""Seconds: a wall clock that was set, or ran on while the machine slept, is noticed after at most this long."""


class Holder(Protocol):
    """A connection, as the gate sees it. Both calls must neither block nor raise."""

    def access_ended(self, error: Unauthorized) -> None:
        """Tell the client why, where the protocol can, and close. Its lease is released already."""

    def access_changed(self) -> None:
        """Check again what the connection is subscribed to: rights may have shrunk."""


class _Nobody:
    """In place of a holder that let go."""

    def access_ended(self, error: Unauthorized) -> None: ...

    def access_changed(self) -> None: ...


_NOBODY = _Nobody()


class Lease:
    """One connection's access. Made by `Leases.hold`."""

    __slots__ = ("_leases", "holder", "identity")

    def __init__(self, leases: Leases, identity: Identity, holder: Holder) -> None:
        self._leases: Leases | None = leases
        self.identity = identity
        self.holder: Holder = holder

    def renew(self, identity: Identity) -> None:
        """Go on with a fresh token of the same user; the connection keeps its place.

        Raises:
            Forbidden: the token is another user's.
        """
        if identity.user_id != self.identity.user_id or identity.service != self.identity.service:
            raise Forbidden("the token is another user's", hint="open a connection of its own for another user")
        self.identity = identity
        if self._leases is not None:
            self._leases.watch(self)
            self._leases.note("renewed", identity)

    def release(self) -> None:
        """The connection is gone. May be called again."""
        if self._leases is not None:
            self._leases.forget(self)
            self._leases = None
            self.holder = _NOBODY  # which has this, too

    @property
    def released(self) -> bool:
        """Whether the access ended, or the connection was given up."""
        return self._leases is None


class Leases:
    """All leases of this node, with one timer for the earliest end.

    Args:
        clock: seconds since the Unix epoch, as tokens count.
        note: told of each access that begins, is renewed and ends: `connected`, `renewed`, `expired`,
            `revoked`.
    """

    def __init__(
        self, clock: Callable[[], float] = _time.time, note: Callable[[str, Identity], None] = lambda *_: None
    ) -> None:
        self._clock = clock
        self.note = note
        self._all: set[Lease] = set()
        self._by_user: dict[str | None, set[Lease]] = {}
        self._ends: list[tuple[float, int, Lease]] = []  # a heap; entries may be stale
        self._order = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Lease]:
        return iter(tuple(self._all))

    def hold(self, identity: Identity, holder: Holder) -> Lease:
        """See `Gate.hold`."""
        lease = Lease(self, identity, holder)
        self._all.add(lease)
        self._by_user.setdefault(identity.user_id, set()).add(lease)
        self.watch(lease)
        self.note("connected", identity)
        return lease

    def watch(self, lease: Lease) -> None:
        """Mind the end of the lease's present identity."""
        expires = lease.identity.expires
        if expires is None:
            return
        self._order += 1
        heapq.heappush(self._ends, (expires, self._order, lease))
        if len(self._ends) > 64 and len(self._ends) > 2 * len(self._all):
            self._ends = [entry for entry in self._ends if self._counts(entry)]
            heapq.heapify(self._ends)
        self._set_timer()

    def forget(self, lease: Lease) -> None:
        """See `Lease.release`."""
        self._all.discard(lease)
        user_id = lease.identity.user_id  # a fresh token is of the same user
        theirs = self._by_user.get(user_id)
        if theirs is not None:
            theirs.discard(lease)
            if not theirs:
                del self._by_user[user_id]

    def has(self, user_id: str | None) -> bool:
        """Whether the user (None: somebody without a name) has a connection."""
        return user_id in self._by_user

    def end(self, which: Callable[[Identity], bool], error: Unauthorized) -> int:
        """End the access of all identities that `which` picks. Returns how many connections that was."""
        ended = [lease for lease in self._all if which(lease.identity)]
        for lease in ended:
            self._end(lease, error)
        return len(ended)

    def change(self, which: Callable[[Identity], bool], *, user_id: str | EllipsisType | None = ...) -> int:
        """Let connections check again what they hear. Returns how many.

        Args:
            user_id: looks only at connections of this user; all are looked at where it is left out.
        """
        candidates = self._all if isinstance(user_id, EllipsisType) else self._by_user.get(user_id, ())
        changed = [lease for lease in candidates if which(lease.identity)]
        for lease in changed:
            lease.holder.access_changed()
        return len(changed)

    def expire(self) -> None:
        """End what has expired by now, and set the timer for the next."""
        now = self._clock()
        while self._ends and (self._ends[0][0] <= now or not self._counts(self._ends[0])):
            entry = heapq.heappop(self._ends)
            if self._counts(entry):
                self._end(entry[2], Unauthorized("the token has expired", hint="get a fresh one", reason="expired"))
        self._set_timer()

    def close(self) -> None:
        """Stop minding."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _counts(self, entry: tuple[float, int, Lease]) -> bool:
        return not entry[2].released and entry[2].identity.expires == entry[0]

    def _end(self, lease: Lease, error: Unauthorized) -> None:
        holder = lease.holder
        lease.release()
        self.note(str(error.details.get("reason", "ended")), lease.identity)
        try:
            holder.access_ended(error)
        except Exception:  # a defect at one door must not keep the others' connections open
            logger.exception("a connection whose access ended could not be closed")

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ends:
            loop = asyncio.get_running_loop()
            delay = min(max(self._ends[0][0] - self._clock(), 0.0) + 0.001, MAX_SLEEP)
            self._timer = loop.call_later(delay, self.expire)
