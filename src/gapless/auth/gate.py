"""The seam between the doors and who may do what: credentials in, identities out, checks on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import quote

import msgspec

from gapless.auth.leases import Holder, Lease

if TYPE_CHECKING:
    from gapless.auth.acl import Acl

Operation = Literal["metrics", "admin"]
"""What people and programs that run the gateway do at it, beside hearing and speaking."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A client certificate that TLS has verified already.

    Attributes:
        common_name: of the subject; None where it has none.
        names: subject alternative names, as `DNS:…`, `URI:…` or `email:…`.
        fingerprint: SHA-256 of the certificate, in lower-case hexadecimal digits.
        not_after: seconds since the Unix epoch at which it ends; None where the door does not know.
    """

    common_name: str | None = None
    names: tuple[str, ...] = ()
    fingerprint: str = ""
    not_after: float | None = None


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What a client shows at a door.

    Attributes:
        token: Bearer header, Socket.IO `auth.token`, `token` query parameter, or MQTT password.
        username: MQTT user name, or a `userId` claim of the client; believed only in development.
        certificate: the verified client certificate of the connection.
        client_id: MQTT client id.
        address: the client's network address, for limits and the audit log.
        door: `rest`, `socketio`, `mqtt`, `sse`, `poll`, `link`, …, for the audit log.
        connection: what the logs call the connection: address and port at its other end, a proxy's where one is
            between. None where a broker or the link speaks for the client.
    """

    token: str | None = None
    username: str | None = None
    certificate: Certificate | None = None
    client_id: str | None = None
    address: str | None = None
    door: str = ""
    connection: str | None = None

    def __repr__(self) -> str:
        token = "***" if self.token else None
        return f"Credentials(door={self.door!r}, token={token}, username={self.username!r}, address={self.address!r})"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where an identity came in, for counting and the audit log; see `Credentials`."""

    door: str = ""
    address: str | None = None
    connection: str | None = None


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the gate let in.

    Attributes:
        user_id: None is an anonymous client, or a service that speaks for nobody.
        roles: such as `ADMIN`, `MANAGER`, `SALES`.
        rooms: what the token's claim `rooms` names, for the rule `rooms`; `*` stands for any text.
        claims: what the token said, for the rules of the topic map. Never logged.
        service: a trusted back end (API key): it may say for whom it publishes.
        expires: seconds since the Unix epoch at which its access ends; None for never.
        issued: seconds since the Unix epoch at which its token was made.
        token_id: the token's `jti`, or the API key's name: what a revocation names.
        source: where it came in.
    """

    user_id: str | None = None
    roles: frozenset[str] = frozenset()
    rooms: tuple[str, ...] = ()
    claims: Mapping[str, Any] = {}
    service: bool = False
    expires: float | None = None
    issued: float | None = None
    token_id: str | None = None
    source: Source = Source()

    @property
    def owner(self) -> str:
        """Whose sessions are its own, which nobody else may resume or take over; empty for anonymous clients."""
        if self.user_id is not None:
            return "u" + quote(self.user_id, safe="")
        if self.service and self.token_id is not None:
            return "s" + quote(self.token_id, safe="")
        return ""

    def speaker(self, named: str | None) -> str | None:
        """The user of an event that it publishes: itself, whomever the event names; a service's word is taken."""
        return (named or self.user_id) if self.service else self.user_id

    def __repr__(self) -> str:
        return f"Identity(user_id={self.user_id!r}, roles={sorted(self.roles)}, service={self.service})"


class Gate(Protocol):
    """Authentication and authorisation, asked by every door.

    The checks are calls without suspension, so that a door may check and act in one step of the
    event loop. Where a rule leaves the decision to the application, the answer must be known by
    then: `prepare` gets it, and a check without it raises `NotDecided`.
    """

    async def authenticate(self, credentials: Credentials) -> Identity:
        """Let a client in.

        Raises:
            Unauthorized: the credentials are absent, wrong, expired or revoked.
        """

    async def prepare(
        self, identity: Identity, *, rooms: Iterable[str] = (), filters: Iterable[str] = (), topics: Iterable[str] = ()
    ) -> None:
        """Get the application's decisions for what is to be checked next, where a rule asks for them.

        Returns at once where none does. An application that does not answer in time denies.

        Args:
            rooms, filters: what the identity wants to hear.
            topics: what it wants to publish to.
        """

    def check_subscribe_room(self, identity: Identity, room: str) -> None:
        """Whether the identity may hear the room, its history and who is present in it.

        Raises:
            Forbidden: it may not. The text is the same whether the room's things exist or not.
            NotDecided: the application must be asked first.
        """

    def check_subscribe_filter(self, identity: Identity, topic_filter: str) -> None:
        """Whether the identity may hear all that the filter (without `$share/…/`) covers.

        Raises:
            Forbidden: it may not.
            NotDecided: the application must be asked first.
        """

    def check_publish(self, identity: Identity, topic: str) -> None:
        """Whether the identity may publish to the topic, as a last will too.

        Raises:
            Forbidden: it may not.
            NotDecided: the application must be asked first.
        """

    def check_will(self, identity: Identity, topic: str) -> None:
        """Whether a last will that is due may be published: its author may have lost its rights since CONNECT.

        An author whose token has merely expired may still. One whose token was revoked may not, nor one whose
        token is so old that a revocation of it would be forgotten.

        Raises:
            Forbidden: it may not.
            NotDecided: the application must be asked first.
        """

    def check_operate(self, identity: Identity, operation: Operation) -> None:
        """Whether the identity may read the metrics, or revoke tokens and see the admin pages.

        Raises:
            Forbidden: it may not.
        """

    def rights(self, identity: Identity) -> Acl:
        """What the identity may hear and say, as far as topic filters can list it, for brokers that keep lists."""

    def hold(self, identity: Identity, holder: Holder) -> Lease:
        """Tie a connection to the identity it was let in with.

        The holder is told within a second when that access ends (expiry, revocation), and when
        rights may have changed. Release the lease when the connection is gone.
        """
