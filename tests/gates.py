"""A gate whose rights a test writes down, and changes while clients are connected."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import msgspec

from gapless.auth import Acl, Credentials, Holder, Identity, Lease, Leases, Operation
from gapless.errors import Forbidden, NotDecided, Unauthorized


class TableGate:
    """Tokens are user names, `token@seconds` one that expires then; each user hears and says what is listed.

    Attributes:
        hears: rooms and topic filters, by user.
        says: topics, by user.
        asks: names that the application decides, and what it says.
        may_answer: whether the application answers now.
        asked: names that it was asked about, in order.
        shown: what clients showed.
        revoked: users whose access was taken back; they come in again with any token.
        barred: users who do not.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.leases = Leases(clock)
        self.hears: defaultdict[str | None, set[str]] = defaultdict(set)
        self.says: defaultdict[str | None, set[str]] = defaultdict(set)
        self.asks: dict[str, bool] = {}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked: list[str] = []
        self.asking = asyncio.Event()
        self.shown: list[Credentials] = []
        self.revoked: set[str | None] = set()
        self.barred: set[str] = set()
        self._decided: set[str] = set()

    async def authenticate(self, credentials: Credentials) -> Identity:
        self.shown.append(credentials)
        user, _, expires = (credentials.token or "").partition("@")
        if user in ("", "bad") or user in self.barred:
            raise Unauthorized("the token is missing or wrong")
        return Identity(user_id=user, expires=float(expires) if expires else None, token_id=credentials.token)

    async def prepare(
        self, identity: Identity, *, rooms: Iterable[str] = (), filters: Iterable[str] = (), topics: Iterable[str] = ()
    ) -> None:
        names = [name for name in (*rooms, *filters, *topics) if name in self.asks]
        if names:
            self.asked += names
            self.asking.set()
            await self.may_answer.wait()
            self._decided.update(names)

    def _check(self, allowed: set[str], name: str) -> None:
        if name in self.asks:
            if name not in self._decided:
                raise NotDecided("ask first")
            if self.asks[name]:
                return
        if name not in allowed:
            raise Forbidden("not allowed")

    def check_subscribe_room(self, identity: Identity, room: str) -> None:
        self._check(self.hears[identity.user_id], room)

    def check_subscribe_filter(self, identity: Identity, topic_filter: str) -> None:
        self._check(self.hears[identity.user_id], topic_filter)

    def check_publish(self, identity: Identity, topic: str) -> None:
        self._check(self.says[identity.user_id], topic)

    def check_will(self, identity: Identity, topic: str) -> None:
        if identity.user_id in self.revoked:
            raise Forbidden("revoked")
        self.check_publish(identity, topic)

    def check_operate(self, identity: Identity, operation: Operation) -> None:
        if identity.user_id != "admin":
            raise Forbidden("not allowed")

    def rights(self, identity: Identity) -> Acl:
        heard = tuple(sorted(name for name in self.hears[identity.user_id] if "/" in name or name == "#"))
        return Acl(heard, tuple(sorted(self.says[identity.user_id])), complete=not self.asks)

    def hold(self, identity: Identity, holder: Holder) -> Lease:
        return self.leases.hold(identity, holder)

    # What happens while clients are connected

    def revoke(self, user: str, reason: str = "revoked") -> int:
        """Their access ends now."""
        self.revoked.add(user)
        return self.leases.end(lambda identity: identity.user_id == user, Unauthorized("revoked", reason=reason))

    def take(self, user: str, *names: str) -> None:
        """The user may hear and say these no more."""
        self.hears[user] -= set(names)
        self.says[user] -= set(names)
        self.leases.change(lambda identity: identity.user_id == user)

    def forget(self, *names: str) -> None:
        """The application is to be asked again."""
        self._decided -= set(names)


class Clock(msgspec.Struct):
    """Seconds since the Unix epoch, as a test sets them."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


class _Unwatched:
    """What is done where the access of a client ends that no gate let in."""

    def end(self, client: object) -> None: ...

    def review(self, client: object) -> None: ...


UNWATCHED = _Unwatched()
