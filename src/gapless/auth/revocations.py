"""Access taken back before its end: kept in the log's state, so that a restart does not give it back."""

from __future__ import annotations

import time as _time
from collections.abc import Callable
from typing import Literal

import msgspec

from gapless.auth.gate import Identity
from gapless.errors import Overloaded, Unauthorized
from gapless.eventlog import EventLog, StateKind, StateWrite

MAX_REVOCATIONS = 100_000

RevocationKind = Literal["token", "user", "key"]


class Revocation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was taken back.

    Attributes:
        kind: one token, all tokens of a user, or an API key.
        subject: the token's `jti`, the user's id, or the key's name.
        made: seconds since the Unix epoch.
        issued_before: of a user: tokens made up to then (to the second); those made later are valid.
        until: seconds since the Unix epoch after which no such token can be alive; None for ever.
    """

    kind: RevocationKind
    subject: str
    made: float
    issued_before: float | None = None
    until: float | None = None

    def covers(self, identity: Identity) -> bool:
        """Whether it ends the access of this identity."""
        match self.kind:
            case "token":
                return not identity.service and identity.token_id == self.subject
            case "key":
                return identity.service and identity.token_id == self.subject
            case "user":
                if identity.service or identity.user_id != self.subject:
                    return False
                # `iat` mostly counts whole seconds; a token that does not say when it was made counts as an old one.
                return identity.issued is None or int(identity.issued) <= int(self.issued_before or self.made)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Revocation).decode


class Revocations:
    """All revocations that still matter.

    Args:
        lifetime: seconds that a token lives at most; None where some access has no end of its own.
        clock: seconds since the Unix epoch.
    """

    def __init__(self, lifetime: float | None, clock: Callable[[], float] = _time.time) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._log: EventLog | None = None
        self._all: dict[tuple[str, str], Revocation] = {}

    def __len__(self) -> int:
        return len(self._all)

    async def load(self, log: EventLog) -> None:
        """Take those that the log keeps, and keep the coming ones there. Without it they are kept in memory."""
        self._log = log
        for value in (await log.all_state(StateKind.REVOCATION)).values():
            revocation = _decode(value)
            self._all[revocation.kind, revocation.subject] = revocation
        await self.forget()

    def list(self) -> list[Revocation]:
        """The newest first."""
        return sorted(self._all.values(), key=lambda each: each.made, reverse=True)

    def check(self, identity: Identity) -> None:
        """Refuse an identity whose access was taken back.

        Raises:
            Unauthorized: it was.
        """
        if not self._all:
            return
        kinds: tuple[RevocationKind, ...] = ("key",) if identity.service else ("token", "user")
        for kind in kinds:
            subject = identity.user_id if kind == "user" else identity.token_id
            revocation = self._all.get((kind, subject)) if subject is not None else None
            if revocation is not None and revocation.covers(identity):
                raise revoked()

    def may_have_forgotten(self, identity: Identity) -> bool:
        """Whether a revocation of it may be known no more: no token as old as its own can be alive."""
        if self._lifetime is None or identity.service or identity.expires is None:
            return False
        alive_until = identity.expires if identity.issued is None else identity.issued + self._lifetime
        return self._clock() > alive_until

    async def add(self, kind: RevocationKind, subject: str, *, issued_before: float | None = None) -> Revocation:
        """Take access back. It holds at once, and is durable when this returns.

        Raises:
            Overloaded: there are too many.
            LogUnavailable: it holds, but a restart would forget it: try again.
        """
        if len(self._all) >= MAX_REVOCATIONS and (kind, subject) not in self._all:
            await self.forget()
            if len(self._all) >= MAX_REVOCATIONS:
                raise Overloaded(
                    "too many revocations are kept",
                    hint="replace the key in place of so many tokens",
                    limit=MAX_REVOCATIONS,
                )
        now = self._clock()
        earlier = self._all.get((kind, subject))
        if kind == "user":
            issued_before = max(issued_before or now, (earlier and earlier.issued_before) or 0.0)
        until = None if kind == "key" or self._lifetime is None else now + self._lifetime
        revocation = Revocation(kind=kind, subject=subject, made=now, issued_before=issued_before, until=until)
        self._all[kind, subject] = revocation
        if self._log is not None:
            write = StateWrite(StateKind.REVOCATION, f"{kind}:{subject}", _encode(revocation))
            await self._log.write_state((write,), durable=True)
        return revocation

    async def forget(self) -> None:
        """Drop those whose tokens have all ended."""
        now = self._clock()
        over = [key for key, each in self._all.items() if each.until is not None and each.until <= now]
        for key in over:
            del self._all[key]
        if over and self._log is not None:
            writes = [StateWrite(StateKind.REVOCATION, f"{kind}:{subject}", None) for kind, subject in over]
            await self._log.write_state(writes, durable=False)


def revoked() -> Unauthorized:
    """What a client is told whose access was taken back."""
    return Unauthorized("the access was revoked", hint="log in again", reason="revoked")
