"""`/api/admin/…`: taking access back, and having rights looked at again."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from gapless.auth import Gate, PolicyGate, Revocation
from gapless.auth.revocations import RevocationKind
from gapless.errors import InvalidRequest
from gapless.event import format_time, parse_time
from gapless.transports.http.endpoint import encode
from gapless.transports.http.errors import NotFound
from gapless.transports.http.request import Request

T = TypeVar("T")

_BODY_BYTES = 16 << 10
_SUBJECT = 256
_KINDS: tuple[RevocationKind, ...] = ("user", "token", "key")


class NewRevocation(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What to take back: exactly one of `user`, `token` (its `jti`) and `key` (its name).

    `issuedBefore` (RFC 3339, or seconds): of a user, the tokens made up to then; now where it is absent.
    """

    user: str | None = None
    token: str | None = None
    key: str | None = None
    issued_before: str | float | None = None


class Revoked(msgspec.Struct, frozen=True, rename="camel"):
    """One revocation. `until`: when it is forgotten, as no such token can be alive any more; null for never."""

    kind: str
    subject: str
    made: str
    issued_before: str | None = None
    until: str | None = None


class RevocationAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to a revocation: it holds, and is durable."""

    revocation: Revoked
    connections_ended: int


class RevocationList(msgspec.Struct, frozen=True):
    """All revocations that still matter, the newest first."""

    revocations: list[Revoked]


class Recheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose rights changed; everybody's where `user` is absent."""

    user: str | None = None


class RecheckAnswer(msgspec.Struct, frozen=True):
    """How many connections look again at what they hear."""

    connections: int


class AdminDoor:
    """Answers `/api/admin/…`, for the roles of `auth.admin_roles`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def revoke(self, request: Request) -> None:
        """Handle `POST /api/admin/revocations`."""
        gate = self._policy_gate()
        by = await request.require(gate, "admin")
        wanted = await _read(request, NewRevocation)
        kind, subject = _subject(wanted)
        issued_before = _moment(wanted.issued_before)
        if issued_before is not None and kind != "user":
            raise InvalidRequest("issuedBefore is of a user only", hint="leave it out")
        revocation, ended = await gate.revoke(kind, subject, issued_before=issued_before, by=by)
        await request.answer(201, encode(RevocationAnswer(_shown(revocation), ended)))

    async def list(self, request: Request) -> None:
        """Handle `GET /api/admin/revocations`."""
        gate = self._policy_gate()
        await request.require(gate, "admin")
        await request.answer(200, encode(RevocationList([_shown(each) for each in gate.revocations.list()])))

    async def recheck(self, request: Request) -> None:
        """Handle `POST /api/admin/recheck`."""
        gate = self._policy_gate()
        by = await request.require(gate, "admin")
        wanted = await _read(request, Recheck)
        await request.answer(200, encode(RecheckAnswer(gate.recheck(wanted.user, by=by))))

    def _policy_gate(self) -> PolicyGate:
        if not isinstance(self._gate, PolicyGate):
            raise NotFound("this gateway has no keys, and so nothing to revoke", hint="see [auth] in its settings")
        return self._gate


async def _read(request: Request, kind: type[T]) -> T:
    body = await request.body(_BODY_BYTES)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body cannot be taken: {error}", hint="see /docs for what it holds") from error


def _subject(wanted: NewRevocation) -> tuple[RevocationKind, str]:
    named = [(kind, subject) for kind in _KINDS if (subject := getattr(wanted, kind)) is not None]
    if len(named) != 1 or not 0 < len(named[0][1]) <= _SUBJECT:
        raise InvalidRequest("name one of user, token and key", hint='such as {"user": "7"}')
    return named[0]


def _moment(value: str | float | None) -> float | None:
    if value is None:
        return None
    milliseconds = parse_time(value)
    if milliseconds is None:
        raise InvalidRequest("issuedBefore is no moment", hint="such as 2026-01-31T09:30:00Z")
    return milliseconds / 1000


def _shown(revocation: Revocation) -> Revoked:
    return Revoked(
        revocation.kind,
        revocation.subject,
        format_time(int(revocation.made * 1000)),
        _text(revocation.issued_before),
        _text(revocation.until),
    )


def _text(seconds: float | None) -> str | None:
    return None if seconds is None else format_time(int(seconds * 1000))
