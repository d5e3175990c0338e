"""What a token must say (RFC 7519 §4.1), and the identity that comes of it. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gapless.auth.gate import Identity
from gapless.auth.options import AuthOptions
from gapless.auth.policy import claim_of
from gapless.errors import Unauthorized

Claims = Mapping[str, Any]

_USER_ID = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
_FRESH = "get a fresh token"
MAX_ROOMS = 1000
"""Rooms of a token that count; what a token of bounded size holds more, does not."""


def check_claims(claims: Claims, options: AuthOptions, now: float) -> None:
    """Refuse a token that is not for us, not from whom it should be, or not now.

    Raises:
        Unauthorized: with the `reason` in its details.
    """
    _check_times(claims, options, now)
    _check_issuer(claims, options)
    _check_audience(claims, options)


def _check_times(claims: Claims, options: AuthOptions, now: float) -> None:
    expires = _seconds(claims, "exp")
    issued = _seconds(claims, "iat")
    begins = _seconds(claims, "nbf")
    if expires is None:
        raise _refused("the token does not end", "set its claim exp", "no_expiry")
    if expires <= now:
        raise _refused("the token has expired", _FRESH, "expired")
    for moment, name in ((begins, "nbf"), (issued, "iat")):
        if moment is not None and moment > now + options.leeway:
            raise _refused(f"the token begins later ({name})", "compare the clocks of both machines", "not_yet")
    if expires - (now if issued is None else issued) > options.max_lifetime:
        raise _refused(
            "the token lives too long", f"at most {options.max_lifetime:g} s (auth.max_lifetime)", "lifetime"
        )


def _check_issuer(claims: Claims, options: AuthOptions) -> None:
    if options.issuer is not None and claims.get("iss") != options.issuer:
        raise _refused("the token is of another issuer (iss)", "compare with auth.issuer", "issuer")


def _check_audience(claims: Claims, options: AuthOptions) -> None:
    """A token that names audiences is only for them (RFC 7519 §4.1.3)."""
    named = claims.get("aud")
    listed = named if isinstance(named, list) else [] if named is None else [named]
    wanted = options.audiences
    if wanted and not any(audience in wanted for audience in listed if isinstance(audience, str)):
        raise _refused("the token is for another audience (aud)", "compare with auth.audience", "audience")
    if listed and not wanted:
        raise _refused("the token names an audience (aud)", "name it in auth.audience", "audience")


def _seconds(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    try:
        seconds = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer beyond all floats
        seconds = math.inf
    if not math.isfinite(seconds):
        raise _refused(f"the token's {name} is no number of seconds", "see RFC 7519 §4.1", "malformed")
    return seconds


def identity_from(claims: Claims, options: AuthOptions, *, token_id: str) -> Identity:
    """Whom checked claims speak of.

    Args:
        token_id: of a token that names none (`jti`).

    Raises:
        Unauthorized: the token names no user.
    """
    named = claims.get("jti")
    return Identity(
        user_id=_user_id(claims, options.user_claim),
        roles=_roles(claims, options.roles_claims),
        rooms=_rooms(claims, options.rooms_claim),
        claims=claims,
        expires=_seconds(claims, "exp"),
        issued=_seconds(claims, "iat"),
        token_id=named if isinstance(named, str) and 0 < len(named) <= 256 else token_id,
    )


def _user_id(claims: Claims, name: str) -> str:
    value = claim_of(claims, name)
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not _USER_ID.fullmatch(text):
        raise _refused(f"the token names no user ({name})", "a text or number of up to 256 characters", "no_user")
    return text


def _roles(claims: Claims, names: tuple[str, ...]) -> frozenset[str]:
    value = next((found for name in names if (found := claim_of(claims, name)) is not None), ())
    listed = value.split() if isinstance(value, str) else value if isinstance(value, list) else ()
    return frozenset(role for role in listed if isinstance(role, str))


def _rooms(claims: Claims, name: str) -> tuple[str, ...]:
    value = claim_of(claims, name)
    listed = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(room for room in listed[:MAX_ROOMS] if isinstance(room, str) and room and "\0" not in room)


def _refused(message: str, hint: str, reason: str) -> Unauthorized:
    return Unauthorized(message, hint=hint, reason=reason)
