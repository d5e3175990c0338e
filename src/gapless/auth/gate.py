"""The gate that every door asks, and the one for development."""

from __future__ import annotations

import hmac
from typing import Protocol

import msgspec

from gapless.errors import Forbidden, Unauthorized


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What a client shows at a door.

    Attributes:
        token: Bearer header, Socket.IO `auth.token`, `token` query parameter, or MQTT password.
        username: MQTT user name, or a `userId` claim of the client; believed only in development.
    """

    token: str | None = None
    username: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(token={'***' if self.token else None}, username={self.username!r})"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the gate let in; `user_id` None is an anonymous client."""

    user_id: str | None = None


class Gate(Protocol):
    """Authentication and authorisation, asked by every door."""

    async def authenticate(self, credentials: Credentials) -> Identity:
        """Let a client in.

        Raises:
            Unauthorized: the credentials are absent or wrong.
        """

    def check_subscribe_room(self, identity: Identity, room: str) -> None:
        """Raises `Forbidden` where the identity may not hear the room."""

    def check_subscribe_filter(self, identity: Identity, topic_filter: str) -> None:
        """Raises `Forbidden` where the identity may not hear all that the filter covers."""

    def check_publish(self, identity: Identity, topic: str) -> None:
        """Raises `Forbidden` where the identity may not publish to the topic."""


class DevelopmentGate:
    """One shared token, or none; everybody who is in may do everything. For loopback only.

    Args:
        token: what every client must show; None lets everybody in.
    """

    def __init__(self, token: str | None = None) -> None:
        self._token = token

    async def authenticate(self, credentials: Credentials) -> Identity:
        """See `Gate.authenticate`. The user name is believed."""
        if self._token is not None and not hmac.compare_digest(
            self._token.encode(), (credentials.token or "").encode("utf-8", "surrogateescape")
        ):
            raise Unauthorized(
                "the token is missing or wrong",
                hint="send the gateway's --token as Bearer header, Socket.IO auth.token or MQTT password",
            )
        return Identity(user_id=credentials.username)

    def check_subscribe_room(self, identity: Identity, room: str) -> None:
        """Everybody may hear everything."""

    def check_subscribe_filter(self, identity: Identity, topic_filter: str) -> None:
        """Everybody may hear everything."""

    def check_publish(self, identity: Identity, topic: str) -> None:
        """Everybody may publish, but not below `$`, which is the server's own (MQTT 5 §4.7.2)."""
        if topic.startswith("$"):
            raise Forbidden(f"topics that begin with '$' are the server's: {topic[:80]!r}", hint="use another topic")
