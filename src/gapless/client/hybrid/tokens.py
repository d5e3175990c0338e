"""The application's token: asked for once at a time, and anew before it ends. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import msgspec

from gapless.client.hybrid.process import Later, Process, Running, Scheduler, nothing
from gapless.errors import GaplessError


class Claims(msgspec.Struct, frozen=True):
    """What a JWT says of itself (RFC 7519 §4.1), unverified: the gateway alone decides by it."""

    sub: str | None = None
    iat: float | None = None
    exp: float | None = None


def claims_of(token: str | None) -> Claims:
    """The claims; none for another kind of token."""
    parts = (token or "").split(".")
    if len(parts) != 3:
        return Claims()
    try:
        body = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(body, type=Claims)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return Claims()


class Tokens:
    """Keeps the token.

    Args:
        ask: asks the application.
        wall: seconds since the Unix epoch.
        renewed: called with each token that replaces an earlier one before its end.
        first: a token that is there already; `...` for none.
        fixed: there is only the first one, and there will be no other.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        ask: Callable[[], Later],
        wall: Callable[[], float],
        renewed: Callable[[str | None], None],
        first: Any = ...,
        fixed: bool = False,
    ) -> None:
        self._scheduler = scheduler
        self._ask = ask
        self._wall = wall
        self._renewed = renewed
        self._token = first
        self._fixed = fixed
        self._asking: Running | None = None
        self._cancel: Callable[[], None] = lambda: None
        if first is not ...:
            self._plan(first)

    def get(self) -> Process[str | None]:
        """The token now.

        Raises:
            GaplessError: `token_failed`.
        """
        if self._token is not ...:
            held: str | None = self._token
            return held
        fresh: str | None = yield from self._fetch()
        return fresh

    def refuse(self, token: str | None) -> None:
        """The gateway refused this one: the next `get` asks for another."""
        if self._token == token and not self._fixed:
            self._token = ...

    def close(self) -> None:
        """Renew no more."""
        self._cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _fetch(self) -> Process[str | None]:
        if self._asking is None:
            self._asking = self._scheduler.spawn(self._ask_once())
        # One asks, all who want it wait; whoever gives up waiting ends nothing for the others.
        mine = Later()
        self._asking.outcome.then(
            lambda outcome: mine.fail(outcome.error) if outcome.error else mine.resolve(outcome.value)
        )
        token: str | None = yield mine
        return token

    def _ask_once(self) -> Process[str | None]:
        try:
            token: str | None = yield self._ask()
        finally:
            self._asking = None
        self._token = token
        self._plan(token)
        return token

    def _plan(self, token: str | None) -> None:
        """At 80 % of its life, at the latest 10 s before its end, at the earliest in 1 s."""
        self._cancel()
        claims = claims_of(token)
        if self._fixed or claims.exp is None:
            return
        now = self._wall()
        begin = claims.iat if claims.iat is not None else now
        due = min(begin + 0.8 * (claims.exp - begin), claims.exp - 10)
        self._cancel = self._scheduler.timer(max(due - now, 1.0), lambda: nothing(self._scheduler.spawn(self._renew())))

    def _renew(self) -> Process[None]:
        before = self._token
        try:
            token = yield from self._fetch()
        except GaplessError:
            # Asked again when it is needed; until its end the old one serves.
            self._cancel = self._scheduler.timer(5.0, lambda: nothing(self._scheduler.spawn(self._renew())))
            return
        if token != before:
            self._renewed(token)
