"""Counts and rates, by connection, user and address, in bounded memory.

A rate is kept as one number: the time up to which what came is paid for (GCRA, as in ITU-T I.371). What
comes while that lies less than a burst ahead is taken, however much it is, and moves it on. So a large
batch is never refused for ever, and what was taken beyond the rate is waited for afterwards.
"""

from __future__ import annotations

import math
import time as _time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Literal

from gapless.errors import RateLimited
from gapless.limits.address import Networks, address_group
from gapless.limits.options import Limits, Rates, Shares

Scope = Literal["connection", "user", "address"]
Kind = Literal["connections", "subscriptions", "sessions", "requests_per_second", "bytes_per_second"]

POLITE = 64
"""Connections of one address beyond its share that still get an answer; more are closed without a word."""


class Party:
    """A connection, a user or an address: what it has, and up to when its requests and bytes are paid for."""

    __slots__ = ("bytes_until", "connections", "requests_until", "subscriptions")

    def __init__(self) -> None:
        self.connections = 0
        self.subscriptions = 0
        self.requests_until = 0.0
        self.bytes_until = 0.0

    def spend(self, rates: Rates | Shares, requests: float, size: float, now: float) -> None:
        """Count what came."""
        if rates.requests_per_second:
            self.requests_until = max(self.requests_until, now) + requests / rates.requests_per_second
        if rates.bytes_per_second:
            self.bytes_until = max(self.bytes_until, now) + size / rates.bytes_per_second

    def wait(self, burst: float, now: float) -> tuple[float, Kind]:
        """Seconds until more may come (0: now), and for which rate."""
        if self.requests_until >= self.bytes_until:
            return max(0.0, self.requests_until - now - burst), "requests_per_second"
        return max(0.0, self.bytes_until - now - burst), "bytes_per_second"


class Limiter:
    """All parties of one gateway.

    Args:
        clock: seconds that only rise.

    Attributes:
        refusals: what was refused or held back, by scope and kind.
    """

    def __init__(self, limits: Limits | None = None, *, clock: Callable[[], float] = _time.monotonic) -> None:
        self.limits = limits or Limits()
        self.limits.check()
        self.clock = clock
        self.refusals: Counter[tuple[Scope, Kind]] = Counter()
        self._exempt = Networks(self.limits.exempt, setting="limits.exempt")
        self._parties: OrderedDict[tuple[Scope, str], Party] = OrderedDict()

    def __len__(self) -> int:
        """Users and addresses remembered."""
        return len(self._parties)

    def is_exempt(self, address: str) -> bool:
        """Whether the clients there are held to no share."""
        return address in self._exempt

    def visit(self, address: str | None) -> Visit:
        """Somebody connects, or asks, from an address; None is a socket without one, and free."""
        if address is None or address in self._exempt:
            return FREE
        return Visit(self, self.party("address", address_group(address)))

    def party(self, scope: Scope, name: str) -> Party:
        """A user or an address, remembered; the longest unseen without a connection are forgotten first."""
        key = (scope, name)
        party = self._parties.get(key)
        if party is not None:
            self._parties.move_to_end(key)
            return party
        party = self._parties[key] = Party()
        for _ in range(len(self._parties)):
            if len(self._parties) <= self.limits.remembered:
                break
            oldest, found = next(iter(self._parties.items()))
            if found.connections or found.subscriptions or found is party:
                self._parties.move_to_end(oldest)  # it is here: that bounds their number
            else:
                del self._parties[oldest]
        return party


class Visit:
    """One connection, session or request, and what it counts as. `FREE` is one without limits.

    Attributes:
        subscriptions: how many it has now.
    """

    __slots__ = ("_address", "_entered", "_limiter", "_own", "_stays", "_user", "subscriptions")

    def __init__(self, limiter: Limiter, address: Party) -> None:
        self._limiter = limiter
        self._address = address
        self._user: Party | None = None
        self._own: Party | None = None
        self._entered = False
        self._stays = False
        self.subscriptions = 0

    @property
    def limited(self) -> bool:
        """Whether anything is counted."""
        return True

    def enter(self) -> bool:
        """Count as a connection of the address. False where it is so far over its share that no answer is due."""
        if not self._entered:
            self._entered = True
            self._address.connections += 1
            limiter = self._limiter
            self._address.spend(limiter.limits.address, 1, 0, limiter.clock())
        limit = self._limiter.limits.address.connections
        if not limit or self._address.connections <= limit + POLITE:
            return True
        self._limiter.refusals["address", "connections"] += 1
        return False

    def admit(self) -> None:
        """Refuse where the address has more connections than its share, or too many requests.

        Raises:
            RateLimited: it has; `leave` is still to be called.
        """
        limit = self._limiter.limits.address.connections
        if limit and self._address.connections > limit:
            raise self._refusal("address", "connections", limit=limit)
        self.check()

    def of(self, user_id: str | None = None) -> Visit:
        """A visit on the same connection for one request or session, perhaps of a user; it counts as no connection."""
        visit = Visit(self._limiter, self._address)
        visit._own = self._own = self._own or Party()
        if user_id is not None:
            visit._user = self._limiter.party("user", user_id)
        return visit

    def stay(self, user_id: str | None) -> None:
        """Count as a connection of the user; None is nobody, and not counted.

        Raises:
            RateLimited: the user has too many. Nothing was counted.
        """
        if user_id is None or self._stays:
            return
        user, limit = self._limiter.party("user", user_id), self._limiter.limits.user.connections
        if limit and user.connections >= limit:
            raise self._refusal("user", "connections", limit=limit)
        user.connections += 1
        self._stays = True
        self._user = user

    def hold(self, subscriptions: int, *, force: bool = False) -> None:
        """Have so many subscriptions from now on.

        Args:
            force: whatever the shares are.

        Raises:
            RateLimited: that is more than the share of the user or the address; nothing changed.
        """
        more = subscriptions - self.subscriptions
        limits = self._limiter.limits
        shares: list[tuple[Scope, Party | None, int]] = [
            ("user", self._user, limits.user.subscriptions),
            ("address", self._address, limits.address.subscriptions),
        ]
        for scope, party, limit in shares:
            if party is not None and limit and more > 0 and not force and party.subscriptions + more > limit:
                raise self._refusal(scope, "subscriptions", limit=limit)
        for _, party, _ in shares:
            if party is not None:
                party.subscriptions += more
        self.subscriptions = subscriptions

    def check(self) -> None:
        """Refuse where too much came before.

        Raises:
            RateLimited: with `retry_after`, in seconds.
        """
        wait, scope, kind = self._wait()
        if wait:
            raise self._refusal(scope, kind, retry_after=math.ceil(wait))

    def spend(self, requests: float, size: float = 0) -> float:
        """Count what came, and was or will be taken in.

        Args:
            requests: how many.
            size: their bytes.

        Returns:
            Seconds to wait before more is read; 0 most of the time.
        """
        now = self._limiter.clock()
        for _, party, rates in self._parties():
            party.spend(rates, requests, size, now)
        wait, scope, kind = self._wait()
        if wait:
            self._limiter.refusals[scope, kind] += 1
        return wait

    def ask(self) -> None:
        """Count a request of the user, which its connection and its address were charged for already.

        Raises:
            RateLimited: too much came before, as `check` says.
        """
        self.check()
        if self._user is not None:
            self._user.spend(self._limiter.limits.user, 1, 0, self._limiter.clock())

    def leave(self) -> None:
        """It has ended. May be called again."""
        if self.subscriptions:
            self.hold(0)
        if self._entered:
            self._entered = False
            self._address.connections -= 1
        if self._stays and self._user is not None:
            self._stays = False
            self._user.connections -= 1

    def _parties(self) -> list[tuple[Scope, Party, Rates | Shares]]:
        limits = self._limiter.limits
        if self._own is None:
            self._own = Party()
        found: list[tuple[Scope, Party, Rates | Shares]] = [
            ("connection", self._own, limits.connection),
            ("address", self._address, limits.address),
        ]
        if self._user is not None:
            found.append(("user", self._user, limits.user))
        return found

    def _wait(self) -> tuple[float, Scope, Kind]:
        now, burst = self._limiter.clock(), self._limiter.limits.burst_seconds
        longest: tuple[float, Scope, Kind] = (0.0, "connection", "requests_per_second")
        for scope, party, _ in self._parties():
            wait, kind = party.wait(burst, now)
            if wait > longest[0]:
                longest = (wait, scope, kind)
        return longest

    def _refusal(self, scope: Scope, kind: Kind, **details: int) -> RateLimited:
        self._limiter.refusals[scope, kind] += 1
        what = kind.replace("_", " ")
        return RateLimited(
            f"too many {what} for one {scope}",
            hint="come again later" if kind != "subscriptions" else "unsubscribe from some",
            limit_of=scope,
            **details,
        )


class _Free(Visit):
    """A visit of somebody who is not limited: everything is let through, nothing is counted."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Limiter(), Party())

    @property
    def limited(self) -> bool:
        """It is not."""
        return False

    def enter(self) -> bool:
        """See `Visit.enter`."""
        return True

    def admit(self) -> None:
        """See `Visit.admit`."""

    def of(self, user_id: str | None = None) -> Visit:
        """See `Visit.of`."""
        return self

    def stay(self, user_id: str | None) -> None:
        """See `Visit.stay`."""

    def hold(self, subscriptions: int, *, force: bool = False) -> None:
        """See `Visit.hold`."""

    def check(self) -> None:
        """See `Visit.check`."""

    def spend(self, requests: float, size: float = 0) -> float:
        """See `Visit.spend`."""
        return 0.0

    def ask(self) -> None:
        """See `Visit.ask`."""

    def leave(self) -> None:
        """See `Visit.leave`."""


FREE: Visit = _Free()
