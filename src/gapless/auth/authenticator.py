"""From what a client shows to whom it is: tokens, API keys, certificates, or nothing at all."""

from __future__ import annotations

import asyncio
import logging
import re
import time as _time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gapless.auth.api_keys import PREFIX, ApiKeys
from gapless.auth.gate import Certificate, Credentials, Identity
from gapless.auth.keys import Key, load_keys
from gapless.auth.options import AuthOptions, check_auth
from gapless.auth.tokens import TokenVerifier, UnknownKey
from gapless.errors import Unauthorized

if TYPE_CHECKING:
    from gapless.auth.jwks import KeySet

logger = logging.getLogger("gapless.auth")

FILE_INTERVAL = 0.5
"""Seconds between two looks at the file of API keys."""

_NO_CLAIMS: dict[str, Any] = {}  # one object, by which the gate knows equal identities


class Authenticator:
    """Lets clients in, by `[auth]`.

    Args:
        keys_changed: called where the API keys, or the published keys, are others now.
        clock: seconds since the Unix epoch.

    Raises:
        ConfigError: the settings cannot work; see the message.
    """

    def __init__(
        self,
        options: AuthOptions,
        *,
        keys_changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = _time.time,
    ) -> None:
        check_auth(options)
        self._options = options
        self._keys_changed = keys_changed
        self.verifier = TokenVerifier(options, load_keys(options), clock)
        self.key_set = self._make_key_set(options)
        self.api_keys = ApiKeys(options.api_keys_file) if options.api_keys_file is not None else None
        self._certificate = re.compile(options.certificate_user) if options.certificate_user is not None else None
        roles = options.anonymous_roles
        self._anonymous = None if roles is None else Identity(roles=frozenset(roles))
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fetch the key set, and watch the file of API keys."""
        if self.key_set is not None:
            await self.key_set.start()
        if self.api_keys is not None:
            self._watching = asyncio.create_task(self._watch(self.api_keys), name="api-keys")

    async def stop(self) -> None:
        """Stop both."""
        if self.key_set is not None:
            await self.key_set.stop()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def identify(self, credentials: Credentials) -> Identity:
        """Whom the credentials show. A token goes before a certificate.

        Raises:
            Unauthorized: nobody; `reason` in the details.
        """
        token = credentials.token
        if token:
            if token.startswith(PREFIX) and self.api_keys is not None:
                return self.api_keys.identify(token)
            return await self._verify(token)
        if credentials.certificate is not None and self._certificate is not None:
            return self._from_certificate(credentials.certificate, self._certificate)
        if self._anonymous is not None:
            return self._anonymous
        raise Unauthorized(
            "there is no token",
            hint="send it as Bearer header, Socket.IO auth.token or MQTT password",
            reason="missing",
        )

    def is_current(self, identity: Identity) -> bool:
        """Whether an API key is still there, with the same roles; True for whom has none."""
        return not identity.service or self.api_keys is None or self.api_keys.holds(identity)

    def _make_key_set(self, options: AuthOptions) -> KeySet | None:
        if options.jwks_url is None:
            return None
        from gapless.auth.jwks import KeySet  # loads httpx

        return KeySet(options, self._use_published)

    def _use_published(self, keys: list[Key]) -> None:
        before = self.verifier.names
        self.verifier.use(keys)
        if self.verifier.names != before:
            self._keys_changed()

    async def _verify(self, token: str) -> Identity:
        try:
            return self.verifier.verify(token)
        except UnknownKey:
            if self.key_set is None or not await self.key_set.look_again():
                raise
        return self.verifier.verify(token)

    def _from_certificate(self, certificate: Certificate, pattern: re.Pattern[str]) -> Identity:
        names = ([f"CN={certificate.common_name}"] if certificate.common_name else []) + list(certificate.names)
        for name in names:
            match = pattern.fullmatch(name)
            if match is not None and match["user"]:
                return Identity(
                    user_id=match["user"],
                    roles=frozenset(self._options.certificate_roles),
                    claims=_NO_CLAIMS,
                    expires=certificate.not_after,
                    token_id=f"certificate-{certificate.fingerprint[:32]}",
                )
        raise Unauthorized(
            "the certificate names no user", hint="compare with auth.certificate_user", reason="certificate"
        )

    async def _watch(self, api_keys: ApiKeys) -> None:
        while True:
            await asyncio.sleep(FILE_INTERVAL)
            try:
                problem = api_keys.problem
                if await asyncio.to_thread(api_keys.reload):
                    self._keys_changed()
                if api_keys.problem and api_keys.problem != problem:
                    logger.error(
                        "the API keys could not be read; those known go on", extra={"reason": api_keys.problem}
                    )
            except Exception:
                logger.exception("the API keys could not be looked at; trying again")
