"""Settings of what external brokers ask and are told: `[broker_auth]`."""

from __future__ import annotations

import msgspec

from gapless.errors import ConfigError

MIN_SECRET = 16


class BrokerAuthOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may do what at an external broker, by the gateway's rules.

    Attributes:
        secret: what a broker shows when it asks the gateway (Bearer token, Basic password, or the first part of the
            path); at least 16 characters. None answers no broker.
        bind_client_ids: whether a client id must begin with the user's name and `~`, so that nobody takes over
            another's session.
        cache_seconds: how long VerneMQ may keep a yes.
        heartbeat: whether everybody may hear the link's heartbeat, which names all rooms that had events lately.

    Raises:
        ConfigError: naming the option and the fix.
    """

    secret: str | None = None
    bind_client_ids: bool = True
    cache_seconds: int = 5
    heartbeat: bool = False

    def __post_init__(self) -> None:
        if self.secret is not None and (len(self.secret) < MIN_SECRET or not self.secret.isalnum()):
            raise ConfigError(
                f"broker_auth.secret is shorter than {MIN_SECRET} characters, or has others than letters and digits",
                hint="make one with: openssl rand -hex 24",
            )
        if self.cache_seconds < 0:
            raise ConfigError("broker_auth.cache_seconds is below 0", hint="give seconds; 0 for no cache")

    def __repr__(self) -> str:
        return f"BrokerAuthOptions(secret={None if self.secret is None else '***'})"
