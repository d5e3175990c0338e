"""Settings of what external brokers ask and are told: `[broker_auth]`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from gapless.errors import ConfigError
from gapless.link import LinkOptions

MIN_SECRET = 16


class MosquittoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mosquitto's dynamic security.

    Attributes:
        username, password: the account that may administer it; it needs no other right.
        url: where; default: that of the link.
        ca_file: PEM file of the authorities to trust; default: that of the link.
        prefix: clients and roles whose names begin with it and `-` are the gateway's, and removed where it does not
            know them. Two gateways on one broker need two.
        max_accounts: most accounts at a time, one a client. Each command makes the broker write all of them.
        keep_seconds: how long the session of a client whose credentials ended goes on queueing messages; then its
            account is removed.
    """

    username: str
    password: str
    url: str | None = None
    ca_file: Path | None = None
    prefix: str = "gapless"
    max_accounts: int = 1000
    keep_seconds: float = 86_400.0

    def __post_init__(self) -> None:
        if not self.prefix.isalnum():
            raise ConfigError("broker_auth.mosquitto.prefix is not letters and digits", hint="such as 'gapless'")
        if self.max_accounts < 1:
            raise ConfigError("broker_auth.mosquitto.max_accounts is below 1", hint="leave it out to take the default")

    def __repr__(self) -> str:
        return f"MosquittoOptions(username={self.username!r}, prefix={self.prefix!r})"

    def connection(self, link: LinkOptions | None) -> LinkOptions:
        """How to connect.

        Raises:
            ConfigError: nobody says where, or a file cannot be used.
        """
        url = self.url or (None if link is None else str(link.address))
        if url is None:
            raise ConfigError("broker_auth.mosquitto does not say where", hint="set its url, or [link] url")
        ca_file = self.ca_file or (link.ca_file if link is not None and self.url is None else None)
        return LinkOptions(
            url=url,
            username=self.username,
            password=self.password,
            ca_file=ca_file,
            client_id=f"{self.prefix}-control",
            reconnect_max=10.0,
        )


class BrokerAuthOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may do what at an external broker, by the gateway's rules.

    Attributes:
        secret: what a broker shows when it asks the gateway (Bearer token, Basic password, or the first part of the
            path); at least 16 characters. None answers no broker.
        bind_client_ids: whether a client id must begin with the user's name and `~`, so that nobody takes over
            another's session.
        cache_seconds: how long VerneMQ may keep a yes.
        heartbeat: whether everybody may hear the link's heartbeat, which names all rooms that had events lately.
        urls: where clients reach the broker, in the order in which to try them; none keeps it out of `/api/connect`.
        credentials: what `/api/connect` hands out for it: `token`, the client's own token as password, for brokers
            that ask the gateway; `jwt`, a token with the claim `acl`, for EMQX; `mosquitto`, an account made at
            Mosquitto.
        lifetime: seconds that such credentials last, at most; never longer than the client's token.
        jwt_secret: what EMQX verifies those tokens with (HS256); at least 32 characters, and not that of `[auth]`.
        jwt_lines: most lines of the claim `acl`.
        mosquitto: how Mosquitto is told.

    Raises:
        ConfigError: naming the option and the fix.
    """

    secret: str | None = None
    bind_client_ids: bool = True
    cache_seconds: int = 5
    heartbeat: bool = False
    urls: tuple[str, ...] = ()
    credentials: Literal["token", "jwt", "mosquitto"] = "token"
    lifetime: float = 3600.0
    jwt_secret: str | None = None
    jwt_lines: int = 200
    mosquitto: MosquittoOptions | None = None

    def __post_init__(self) -> None:
        if self.secret is not None and (len(self.secret) < MIN_SECRET or not self.secret.isalnum()):
            raise ConfigError(
                f"broker_auth.secret is shorter than {MIN_SECRET} characters, or has others than letters and digits",
                hint="make one with: openssl rand -hex 24",
            )
        if self.cache_seconds < 0:
            raise ConfigError("broker_auth.cache_seconds is below 0", hint="give seconds; 0 for no cache")
        if self.lifetime < 10:
            raise ConfigError("broker_auth.lifetime is below 10 seconds", hint="leave it out to take the default")
        for url in self.urls:
            if not url.startswith(("mqtt://", "mqtts://", "ws://", "wss://")) or "@" in url:
                raise ConfigError(
                    "broker_auth.urls has one that is no MQTT URL", hint="such as wss://broker.example/mqtt"
                )
        if self.credentials == "jwt" and len(self.jwt_secret or "") < 32:
            raise ConfigError(
                "broker_auth.jwt_secret is missing, or shorter than 32 characters", hint="openssl rand -hex 32"
            )
        if self.credentials == "mosquitto" and self.mosquitto is None:
            raise ConfigError(
                "broker_auth.credentials is 'mosquitto', and nothing says how to reach it",
                hint="add [broker_auth.mosquitto] with username and password",
            )

    def __repr__(self) -> str:
        return f"BrokerAuthOptions(secret={None if self.secret is None else '***'})"
