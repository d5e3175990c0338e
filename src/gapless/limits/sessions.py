"""How many stored sessions one user, or one address of clients without a user, may have."""

from __future__ import annotations

from collections.abc import Callable

from gapless.errors import RateLimited
from gapless.limits.address import address_group
from gapless.limits.limiter import Limiter, Scope

NOBODYS = ""
"""Whose the sessions are that are counted as nobody's: of clients that `limits.exempt` names."""


class StoredSessions:
    """Which sessions are stored, and whose they are.

    A session is its user's. Where its client came in without one, or is a back end, it is its address's: that of
    the last connection, so that a phone does not burden a network that it has left.

    Args:
        limiter: has the shares, and counts what was refused.
        is_over: whether a session of that name has ended, and is there only until somebody clears it away.
    """

    def __init__(self, limiter: Limiter, is_over: Callable[[str], bool]) -> None:
        self._limiter = limiter
        self._is_over = is_over
        self._whose: dict[str, str] = {}
        self._names: dict[str, set[str]] = {}

    def owner(self, user_id: str | None, address: str | None) -> str:
        """Whose the session of a client is, as text to store; `NOBODYS` where it is not counted."""
        if address is None or self._limiter.is_exempt(address):
            return NOBODYS
        return f"address/{address_group(address)}" if user_id is None else f"user/{user_id}"

    def take(self, name: str, owner: str, *, force: bool = False) -> None:
        """Count a session as somebody's from now on, and as nobody else's.

        Args:
            force: whatever the share is: the session was there before.

        Raises:
            RateLimited: the owner has its share already; nothing changed.
        """
        if not force and owner != NOBODYS:
            self._check(owner)
        self.drop(name)
        if owner != NOBODYS:
            self._whose[name] = owner
            self._names.setdefault(owner, set()).add(name)

    def drop(self, name: str) -> None:
        """A session has ended. May be called again."""
        owner = self._whose.pop(name, None)
        if owner is None:
            return
        names = self._names[owner]
        names.discard(name)
        if not names:
            del self._names[owner]

    def count(self, owner: str) -> int:
        """How many sessions somebody has, without those that have ended."""
        return sum(not self._is_over(name) for name in self._names.get(owner, ()))

    def _check(self, owner: str) -> None:
        scope: Scope = "user" if owner.startswith("user/") else "address"
        limits = self._limiter.limits
        limit = limits.user.sessions if scope == "user" else limits.address.sessions
        if not limit or len(self._names.get(owner, ())) < limit or self.count(owner) < limit:
            return
        self._limiter.refusals[scope, "sessions"] += 1
        raise RateLimited(
            f"this {scope} has {limit} stored sessions, which is the limit: "
            "use the same client identifier again, clean start, or a session that ends with its connection",
            limit_of=scope,
            limit=limit,
        )
