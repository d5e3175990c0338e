"""Settings of authentication: `[auth]`."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from gapless.errors import ConfigError

ALGORITHMS = ("HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA")
"""Of RFC 7518 §3.1 and RFC 8037 §3.1, what tokens may be signed with. `none` is not among them."""


class KeyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key of the application: a secret, or a public key.

    Attributes:
        kid: the key id that tokens name in their header; None is a key for tokens that name none, or
            one that no key has.
        algorithm: one of HS256, HS384, HS512, RS256, PS256, ES256 and EdDSA; None takes HS256 for a
            secret, and RS256, ES256 or EdDSA for a PEM file by the kind of its key.
        secret: the secret itself; better in a file.
        file: PEM file of the public key (or of a certificate), or a file that holds the secret.
    """

    kid: str | None = None
    algorithm: str | None = None
    secret: str | None = None
    file: Path | None = None

    def __repr__(self) -> str:
        return f"KeyOptions(kid={self.kid!r}, algorithm={self.algorithm!r}, file={self.file})"


class AskOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The application's endpoint for the rule `ask`.

    Attributes:
        url: where questions are POSTed as JSON; None where a Python callable answers, or nobody.
        token: sent as Bearer token, so that the application knows who asks.
        timeout: seconds for an answer; without one the answer is no.
        allow_seconds: how long a yes holds, where the answer has no `ttl`.
        deny_seconds: how long a no holds, likewise.
        error_seconds: how long it stays a no where the application failed.
        stale_seconds: how long beyond its end a yes holds for a live subscription while the application fails;
            0 ends it at once.
        max_seconds: longest `ttl` taken from an answer.
        max_answers: answers kept; the oldest go first.
        concurrency: most questions on their way at a time; others wait, within the timeout.
        batch: most questions of one request; above 1 they are sent as `questions`, a list.
    """

    url: str | None = None
    token: str | None = None
    timeout: float = 2.0
    allow_seconds: float = 60.0
    deny_seconds: float = 10.0
    error_seconds: float = 1.0
    stale_seconds: float = 60.0
    max_seconds: float = 3600.0
    max_answers: int = 100_000
    concurrency: int = 32
    batch: int = 1

    def __repr__(self) -> str:
        return f"AskOptions(url={self.url!r}, timeout={self.timeout}, batch={self.batch})"


class AuthOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is let in, and as whom.

    Attributes:
        secret: HS256 secret that your application signs tokens with; short for one entry of `keys`.
            Make one with `gapless token --new-secret`; best kept in GAPLESS_AUTH__SECRET.
        keys: the keys of the application; several while one replaces another.
        jwks_url: where an identity provider publishes its public keys (RFC 7517 §5).
        jwks_algorithms: what its keys may be used for, where they do not say it themselves (`alg`).
        jwks_refresh: seconds between two fetches for tokens whose key is unknown, at least; also the
            shortest time for which keys are kept, whatever Cache-Control says.
        jwks_max_age: the longest time for which keys are kept without asking again.
        audience: tokens must be for one of these (`aud`); none takes tokens without `aud` only.
        issuer: tokens must be from here (`iss`).
        leeway: seconds by which the issuer's clock may be ahead (`iat`, `nbf`). `exp` counts to the second.
        max_lifetime: longest life of a token in seconds, from `iat` (or from now) to `exp`. It bounds how
            long a revocation must be remembered.
        max_token_bytes: longer tokens are refused unread.
        user_claim: claim that names the user; may be a path such as `user.id`.
        roles_claims: claims that name roles, a list or words with spaces; the first that is there counts.
        rooms_claim: claim that names the rooms for the rule `rooms`; `*` stands for any text.
        api_keys_file: where `gapless key` keeps the hashes of API keys; read again when it changes.
        certificate_user: regular expression with a group `user` for client certificates, matched with
            `CN=…`, `DNS:…`, `URI:…` and `email:…`; None takes no certificate in place of a token.
        certificate_roles: roles of who comes with a certificate.
        anonymous_roles: roles of who shows nothing; none where such clients are refused.
        admin_roles: who may revoke tokens.
        metrics_roles: who may read `/metrics`.
        ask: the application's endpoint for the rule `ask`.
    """

    secret: str | None = None
    keys: tuple[KeyOptions, ...] = ()
    jwks_url: str | None = None
    jwks_algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    jwks_refresh: float = 30.0
    jwks_max_age: float = 3600.0
    audience: tuple[str, ...] | str | None = None
    issuer: str | None = None
    leeway: float = 5.0
    max_lifetime: float = 7 * 86400.0
    max_token_bytes: int = 8192
    user_claim: str = "sub"
    roles_claims: tuple[str, ...] = ("roles", "role")
    rooms_claim: str = "rooms"
    api_keys_file: Path | None = None
    certificate_user: str | None = None
    certificate_roles: tuple[str, ...] = ()
    anonymous_roles: tuple[str, ...] | None = None
    admin_roles: tuple[str, ...] = ("ADMIN",)
    metrics_roles: tuple[str, ...] = ("ADMIN", "METRICS")
    ask: AskOptions = AskOptions()

    def __repr__(self) -> str:
        secret = None if self.secret is None else "***"
        return f"AuthOptions(secret={secret}, keys={self.keys}, jwks_url={self.jwks_url!r}, issuer={self.issuer!r})"

    @property
    def audiences(self) -> tuple[str, ...]:
        """`audience` as a list."""
        return (self.audience,) if isinstance(self.audience, str) else self.audience or ()


def check_auth(options: AuthOptions) -> None:
    """Refuse settings that cannot work, or under which nobody could come in.

    Raises:
        ConfigError: naming the key and the fix.
    """
    sources = (options.secret, options.keys, options.jwks_url, options.api_keys_file, options.certificate_user)
    if not any(sources):
        raise ConfigError(
            "[auth] names no keys: nobody could come in",
            hint="set secret (gapless token --new-secret makes one), keys, jwks_url, api_keys_file or certificate_user",
        )
    for name in ("leeway", "jwks_refresh"):
        if getattr(options, name) < 0:
            raise ConfigError(f"auth.{name} is below 0", hint="give seconds")
    for name in ("max_lifetime", "max_token_bytes", "jwks_max_age"):
        if getattr(options, name) <= 0:
            raise ConfigError(f"auth.{name} is not above 0", hint="leave it out to take the default")
    unknown = [name for name in options.jwks_algorithms if name not in ALGORITHMS or name.startswith("HS")]
    if unknown:
        raise ConfigError(
            f"auth.jwks_algorithms names {unknown[0]!r}", hint="public keys serve RS256, PS256, ES256 and EdDSA"
        )
    if options.jwks_url is not None and not options.jwks_url.startswith(("https://", "http://")):
        raise ConfigError("auth.jwks_url is no http or https URL", hint="such as https://id.example.com/jwks.json")
    _check_certificate(options.certificate_user)
    _check_ask(options.ask)


def _check_certificate(pattern: str | None) -> None:
    if pattern is None:
        return
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ConfigError(
            f"auth.certificate_user is not a regular expression: {error}", hint="such as 'CN=(?P<user>[a-z0-9]+)'"
        ) from error
    if "user" not in groups:
        raise ConfigError("auth.certificate_user has no group 'user'", hint="such as 'CN=(?P<user>[a-z0-9]+)'")


def _check_ask(ask: AskOptions) -> None:
    if ask.url is not None and not ask.url.startswith(("https://", "http://")):
        raise ConfigError("auth.ask.url is no http or https URL", hint="such as http://127.0.0.1:8000/realtime/allow")
    for name in ("timeout", "max_answers", "concurrency", "batch", "error_seconds", "max_seconds"):
        if getattr(ask, name) <= 0:
            raise ConfigError(f"auth.ask.{name} is not above 0", hint="leave it out to take the default")
    if not ask.stale_seconds >= 0:
        raise ConfigError("auth.ask.stale_seconds is below 0", hint="0 ends what cannot be renewed at once")
