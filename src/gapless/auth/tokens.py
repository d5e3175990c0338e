"""JSON Web Tokens (RFC 7519): the signature with a key of ours, then the claims."""

from __future__ import annotations

import binascii
import hashlib
import re
import time as _time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import jwt
import msgspec

from gapless.auth.claims import check_claims, identity_from
from gapless.auth.gate import Identity
from gapless.auth.keys import Key
from gapless.auth.options import AuthOptions
from gapless.errors import Unauthorized

MAX_VERIFIED = 10_000
"""Tokens whose signature is not verified again while their key is there."""

MAX_TRIED = 8
"""Keys that a token without a key id is tried with: each costs a verification."""

_COMPACT = re.compile(rb"[\w-]+\.[\w-]+\.[\w-]*")
"""A JWT (RFC 7515 §7.1). The decoder would pass over other characters: one token could then be written in any number
of ways, each verified and asked about anew."""

_decode_claims = msgspec.json.Decoder(dict[str, Any]).decode
_signatures = jwt.PyJWS()


class UnknownKey(Unauthorized):
    """No key has the token's key id: one may have been added meanwhile."""


class TokenVerifier:
    """Verifies tokens with the keys that are there now.

    Args:
        keys: the keys of the settings.
        clock: seconds since the Unix epoch.
    """

    def __init__(self, options: AuthOptions, keys: Iterable[Key], clock: Callable[[], float] = _time.time) -> None:
        self._options = options
        self._own = list(keys)
        self._keys = list(self._own)
        self._clock = clock
        self._verified: OrderedDict[bytes, Identity] = OrderedDict()

    def use(self, published: Iterable[Key]) -> None:
        """Take the keys of a key set, beside those of the settings, in place of its earlier ones."""
        self._keys = [*self._own, *published]
        self._verified.clear()

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys in use."""
        return tuple(self._keys)

    @property
    def names(self) -> list[str]:
        """What may be told of the keys in use: `ES256:2026-01`."""
        return [f"{key.algorithm}:{key.kid or '-'}" for key in self._keys]

    def verify(self, token: str) -> Identity:
        """Whom a token speaks of.

        Raises:
            UnknownKey: no key fits the token's header.
            Unauthorized: the token is malformed, forged, or not valid now; `reason` in the details.
        """
        if len(token) > self._options.max_token_bytes:
            raise Unauthorized("the token is too long", hint="put less into it", reason="malformed")
        raw = token.encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(raw).digest()
        identity = self._verified.get(digest)
        if identity is not None:
            check_claims(identity.claims, self._options, self._clock())
            self._verified.move_to_end(digest)
            return identity
        claims = self._claims(raw)
        check_claims(claims, self._options, self._clock())
        # One signature can be written in several ways, so the token's name is of what it signs.
        signed = hashlib.sha256(raw.rpartition(b".")[0]).hexdigest()
        identity = identity_from(claims, self._options, token_id=f"sha256-{signed[:32]}")
        self._verified[digest] = identity
        if len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)
        return identity

    def _claims(self, raw: bytes) -> dict[str, Any]:
        try:
            if not _COMPACT.fullmatch(raw):
                raise ValueError("no compact serialization")
            header = _signatures.get_unverified_header(raw)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Unauthorized("the token is malformed", hint="send a JWT (RFC 7519)", reason="malformed") from error
        if "crit" in header or "b64" in header:
            raise Unauthorized("the token's header asks for extensions", hint="leave 'crit' out", reason="malformed")
        for key in self._candidates(header):
            try:
                payload = _signatures.decode(raw, key.material, algorithms=[key.algorithm])
            except (jwt.PyJWTError, binascii.Error, ValueError):
                continue
            return _read_claims(payload)
        raise Unauthorized("the token's signature is wrong", hint="sign it with the gateway's key", reason="signature")

    def _candidates(self, header: dict[str, Any]) -> list[Key]:
        """Keys for a token: those of its key id, else those without one; and of these, whose algorithm it names."""
        kid, algorithm = header.get("kid"), header.get("alg")
        named = [key for key in self._keys if key.kid == kid] if kid is not None else []
        fitting = named or [key for key in self._keys if kid is None or key.kid is None]
        found = [key for key in fitting if key.algorithm == algorithm]
        if not found:
            raise UnknownKey("no key fits the token", hint="compare its header (kid, alg) with [auth]", reason="key")
        return found[:MAX_TRIED]


def _read_claims(payload: Any) -> dict[str, Any]:
    try:
        return _decode_claims(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unauthorized("the token holds no claims", hint="see RFC 7519 §7.2", reason="malformed") from error
