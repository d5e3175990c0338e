"""Tokens for development, and for applications in Python: signed with what the gateway verifies with."""

from __future__ import annotations

import re
import secrets
import time as _time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gapless.auth.keys import bind, load_keys, looks_like_key, read_key_file
from gapless.auth.options import AuthOptions, KeyOptions
from gapless.errors import ConfigError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Signer(NamedTuple):
    """What signs tokens."""

    algorithm: str
    material: Any
    kid: str | None = None


def new_secret() -> str:
    """A secret for HS256: 256 random bits, in the URL-safe base64 alphabet."""
    return secrets.token_urlsafe(32)


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `30m`, `1h`, `7d`; a bare number is seconds.

    Raises:
        ConfigError: another form.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"{text!r} is no duration", hint="such as 90s, 30m, 1h or 7d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def find_signer(options: AuthOptions | None, key_file: Path | None = None, kid: str | None = None) -> Signer:
    """The secret of the settings, or their first private key; or a private key of one's own.

    Raises:
        ConfigError: there is none.
    """
    if key_file is not None:
        return _private_signer(KeyOptions(file=key_file, kid=kid), str(key_file))
    entries = () if options is None else options.keys
    if options is not None and options.secret is not None:
        entries = (KeyOptions(secret=options.secret), *entries)
    for entry in entries:
        if kid is not None and entry.kid != kid:
            continue
        text = entry.secret.encode() if entry.secret is not None else read_key_file(entry.file or Path(), "auth.keys")
        if b"PRIVATE KEY-----" in text:
            return _private_signer(entry, "auth.keys")
        if not looks_like_key(text):
            key = load_keys(AuthOptions(keys=(entry,)))[0]
            return Signer(key.algorithm, key.material, key.kid)
    raise ConfigError(
        "there is no secret to sign with",
        hint="set GAPLESS_AUTH__SECRET to what `gapless token --new-secret` prints, name the gateway's settings "
        "with --config, or a private key with --key",
    )


def _private_signer(entry: KeyOptions, where: str) -> Signer:
    text = entry.secret.encode() if entry.secret is not None else read_key_file(entry.file or Path(), where)
    try:
        private: Any = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{where}: the private key cannot be read: {error}", hint="a PEM file, no passphrase"
        ) from error
    key = bind(private.public_key(), entry.algorithm, entry.kid, where)
    return Signer(key.algorithm, private, key.kid)


def issue_token(
    options: AuthOptions,
    signer: Signer,
    *,
    user: str,
    roles: Sequence[str] = (),
    rooms: Sequence[str] = (),
    expires: float = 3600.0,
    more: Mapping[str, Any] | None = None,
) -> str:
    """Sign a token as the settings want it: names of claims, issuer, audience.

    Args:
        expires: seconds until it ends.
        more: further claims.

    Raises:
        ConfigError: it would live longer than the gateway allows.
    """
    if expires > options.max_lifetime:
        raise ConfigError(
            f"the token would live {expires:g} s, over the limit of {options.max_lifetime:g}",
            hint="ask for less, or raise auth.max_lifetime",
        )
    now = _time.time()
    claims: dict[str, Any] = {"iat": int(now), "exp": int(now + expires), "jti": secrets.token_hex(12)}
    _put(claims, options.user_claim, user)
    if roles:
        _put(claims, options.roles_claims[0], list(roles))
    if rooms:
        _put(claims, options.rooms_claim, list(rooms))
    if options.issuer is not None:
        claims["iss"] = options.issuer
    if options.audiences:
        claims["aud"] = options.audiences[0]
    headers = {} if signer.kid is None else {"kid": signer.kid}
    return jwt.encode({**claims, **(more or {})}, signer.material, signer.algorithm, headers=headers)


def _put(claims: dict[str, Any], name: str, value: Any) -> None:
    """Under its name; where that is a path (no URL), nested."""
    *path, last = name.split(".") if ":" not in name else [name]
    for part in path:
        claims = claims.setdefault(part, {})
    claims[last] = value
