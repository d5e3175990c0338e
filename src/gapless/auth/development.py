"""The gate for development: one shared token, or none."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from gapless.auth.acl import EVERYTHING, Acl
from gapless.auth.gate import Credentials, Identity, Operation
from gapless.auth.leases import Holder, Lease, Leases
from gapless.errors import Forbidden, Unauthorized


class DevelopmentGate:
    """One shared token, or none; everybody who is in may do everything. For loopback only.

    Args:
        token: what every client must show; None lets everybody in.
    """

    def __init__(self, token: str | None = None) -> None:
        self._token = token
        self._leases = Leases()

    async def authenticate(self, credentials: Credentials) -> Identity:
        """See `Gate.authenticate`. The user name is believed; without one, what the events say of their user."""
        if self._token is not None and not hmac.compare_digest(
            self._token.encode(), (credentials.token or "").encode("utf-8", "surrogateescape")
        ):
            raise Unauthorized(
                "the token is missing or wrong",
                hint="send the gateway's --token as Bearer header, Socket.IO auth.token or MQTT password",
            )
        return Identity(user_id=credentials.username, service=True)

    async def prepare(
        self, identity: Identity, *, rooms: Iterable[str] = (), filters: Iterable[str] = (), topics: Iterable[str] = ()
    ) -> None:
        """Nobody is asked."""

    def check_subscribe_room(self, identity: Identity, room: str) -> None:
        """Everybody may hear everything."""

    def check_subscribe_filter(self, identity: Identity, topic_filter: str) -> None:
        """Everybody may hear everything."""

    def check_publish(self, identity: Identity, topic: str) -> None:
        """Everybody may publish, but not below `$`, which is the server's own (MQTT 5 §4.7.2)."""
        if topic.startswith("$"):
            raise Forbidden(f"topics that begin with '$' are the server's: {topic[:80]!r}", hint="use another topic")

    def check_will(self, identity: Identity, topic: str) -> None:
        """As any other publish."""
        self.check_publish(identity, topic)

    def check_operate(self, identity: Identity, operation: Operation) -> None:
        """Everybody may."""

    def rights(self, identity: Identity) -> Acl:
        """Everything."""
        return EVERYTHING

    def hold(self, identity: Identity, holder: Holder) -> Lease:
        """See `Gate.hold`. Nothing ends it."""
        return self._leases.hold(identity, holder)
