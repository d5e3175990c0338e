"""What `/api/connect` hands out for an external broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gapless.auth import Identity


class BrokerOffer(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials for an external broker.

    Attributes:
        username, password, client_id: for CONNECT.
        expires: seconds since the Unix epoch at which they end; None for no end of their own.
        filters: those of the asked ones that may be subscribed to with them.
        history_topic, replies: where history is asked for, and below which topic the answers may come; None where
            it is not on offer.
        heartbeat_topic: where the link tells the last positions of rooms; None where it may not be heard.
    """

    username: str
    password: str
    client_id: str
    expires: float | None
    filters: tuple[str, ...]
    history_topic: str | None = None
    replies: str | None = None
    heartbeat_topic: str | None = None

    def __repr__(self) -> str:
        return f"BrokerOffer(username={self.username!r}, client_id={self.client_id!r})"


class BrokerDesk(Protocol):
    """Hands credentials out."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the broker is, in the order in which to try them."""

    async def offer(
        self, identity: Identity, *, token: str | None, device: str | None, filters: Sequence[str]
    ) -> BrokerOffer | None:
        """Credentials for an identity; None where there are none for it.

        Args:
            token: what it showed.
            device: what its client id ends in; None draws one.
            filters: which it wants, and may hear.

        Raises:
            Overloaded: the broker cannot be told of them now.
        """
