"""What every broker asks, whatever its language: who is this, may it hear that, may it say that."""

from __future__ import annotations

import hmac
from collections.abc import Callable

import msgspec

from gapless.auth import Acl, Credentials, Gate, Identity
from gapless.auth.acl import EVERYTHING
from gapless.brokers.link_topics import link_filters, link_topics
from gapless.brokers.logins import Logins
from gapless.brokers.names import is_own_client_id, is_own_username, name_of
from gapless.brokers.options import BrokerAuthOptions
from gapless.errors import Forbidden, Unauthorized
from gapless.link import LinkOptions
from gapless.mqtt.filters import covers, validate_filter, validate_topic

LINK = Identity(service=True, token_id="link")
"""The gateway's own connection to the broker."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a client showed the broker.

    Attributes:
        client_id: None where the broker does not say it.
        address: the client's, not the broker's.
        broker: which language the broker speaks, for the audit log.
    """

    username: str
    password: str | None
    client_id: str | None
    address: str | None
    broker: str

    def __repr__(self) -> str:
        return f"Shown(username={self.username!r}, client_id={self.client_id!r}, broker={self.broker!r})"


class Judge:
    """Answers brokers by the gate.

    Args:
        link: the gateway's own account at the broker, and the topics over which it serves history.
        link_client_id: the link's client id, which is nobody else's.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        logins: Logins,
        options: BrokerAuthOptions,
        link: LinkOptions | None = None,
        link_client_id: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._gate = gate
        self._logins = logins
        self._options = options
        self._link = link
        self._link_account = (None, None) if link is None else link.credentials
        self._link_client_id = link_client_id

    async def login(self, shown: Shown) -> Identity:
        """Let a client in, and remember it for what the broker asks next.

        Raises:
            Unauthorized: the password is no token that is good now.
            Forbidden: the user name or the client id is another's.
            LogUnavailable: it cannot be remembered.
        """
        if shown.username and shown.username == self._link_account[0]:
            return self._login_link(shown)
        if shown.client_id is not None and shown.client_id == self._link_client_id():
            raise Forbidden("the client id is the gateway's own", hint="choose another")
        identity = await self._gate.authenticate(
            Credentials(
                token=shown.password,
                username=shown.username,
                client_id=shown.client_id,
                address=shown.address,
                door=shown.broker,
            )
        )
        self._check_names(identity, shown)
        await self._logins.remember(shown.username, shown.client_id or "", identity)
        return identity

    def _login_link(self, shown: Shown) -> Identity:
        wanted = (self._link_account[1] or "").encode()
        given = (shown.password or "").encode("utf-8", "surrogateescape")
        if not wanted or not hmac.compare_digest(wanted, given):
            raise Unauthorized("the password of the gateway's own account is wrong", reason="link")
        return LINK

    def _check_names(self, identity: Identity, shown: Shown) -> None:
        name = name_of(identity)
        if shown.username and not is_own_username(identity, shown.username):
            raise Forbidden(
                "the user name is not that of the token",
                hint=f"use {name!r}, or {name + '~'!r} and more",
                reason="name",
            )
        if not self._options.bind_client_ids or not shown.client_id:
            return
        if not is_own_client_id(identity, shown.client_id):
            raise Forbidden(
                "the client id is not the user's own",
                hint=f"let it begin with {name + '~'!r}, or set broker_auth.bind_client_ids = false",
                reason="client_id",
            )

    async def check_hear(self, username: str, client_id: str | None, topic_filter: str) -> None:
        """Whether a connected client may hear all that a filter covers.

        Raises:
            Forbidden: it may not, or is not known.
            InvalidTopic: that is no filter.
        """
        topic_filter = _without_group(topic_filter)
        validate_filter(topic_filter)
        for identity in self._who(username, client_id):
            if identity is LINK:
                _refuse_system(topic_filter)
            elif not any(covers(own, topic_filter) for own in self.own_subscribe(identity)):
                await self._gate.prepare(identity, filters=[topic_filter])
                self._who(username, client_id)  # its access may have ended meanwhile
                self._gate.check_subscribe_filter(identity, topic_filter)

    async def check_say(self, username: str, client_id: str | None, topic: str) -> None:
        """Whether a connected client may publish to a topic.

        Raises:
            Forbidden: it may not, or is not known.
            InvalidTopic: that is no topic name.
        """
        validate_topic(topic)
        for identity in self._who(username, client_id):
            if identity is LINK:
                _refuse_system(topic)
            elif topic not in self.own_publish():
                await self._gate.prepare(identity, topics=[topic])
                self._who(username, client_id)
                self._gate.check_publish(identity, topic)

    def check_known(self, username: str, client_id: str | None) -> None:
        """Whether the client is one that was let in.

        Raises:
            Forbidden: it is not.
        """
        self._who(username, client_id)

    def check_client_id(self, username: str, client_id: str) -> None:
        """Whether what the broker keeps under a client id is the user's own.

        Raises:
            Forbidden: it is not, or the user is not known.
        """
        for identity in self._who(username, None):
            if identity is LINK:
                if client_id != self._link_client_id():
                    raise Forbidden("that is not the gateway's own")
            elif client_id == self._link_client_id():
                raise Forbidden("that is the gateway's own")
            elif self._options.bind_client_ids and not is_own_client_id(identity, client_id):
                raise Forbidden("that is another user's")

    def _who(self, username: str, client_id: str | None) -> list[Identity]:
        """Whom the broker means: where that may be several clients of one user, all of them must be allowed."""
        if username and username == self._link_account[0]:
            return [LINK]
        found = self._logins.find(username, client_id)
        if not found:
            raise Forbidden("no such client was let in", hint="it must connect again", reason="unknown_client")
        return found

    # --- lists, for brokers that take them

    def rights(self, identity: Identity) -> Acl:
        """What can be listed of what it may hear and say, with the topics of the link that are for everybody."""
        if identity is LINK:
            return EVERYTHING
        return self._gate.rights(identity).with_more(subscribe=self.own_subscribe(identity), publish=self.own_publish())

    def own_subscribe(self, identity: Identity) -> tuple[str, ...]:
        """See `link_filters`."""
        return link_filters(self._link, identity, heartbeat=self._options.heartbeat)

    def own_publish(self) -> tuple[str, ...]:
        """See `link_topics`."""
        return link_topics(self._link)


def _without_group(topic_filter: str) -> str:
    """The filter of a shared subscription (MQTT 5 §4.8.2; `$queue/` is EMQX's)."""
    if topic_filter.startswith("$queue/"):
        return topic_filter[len("$queue/") :]
    if topic_filter.startswith("$share/"):
        _, _, rest = topic_filter[len("$share/") :].partition("/")
        return rest
    return topic_filter


def _refuse_system(topic: str) -> None:
    if topic.startswith("$"):
        raise Forbidden("topics that begin with '$' are the broker's own")
