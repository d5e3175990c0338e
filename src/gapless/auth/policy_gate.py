"""The gate of a gateway with keys: tokens, and the rules of the topic map."""

from __future__ import annotations

import time as _time
from collections.abc import Callable, Iterable

import msgspec

from gapless.auth.gate import Credentials, Identity, Operation, Source
from gapless.auth.keys import load_keys
from gapless.auth.leases import Holder, Lease, Leases
from gapless.auth.options import AuthOptions, check_auth
from gapless.auth.policy import Decision, Policy, Question
from gapless.auth.tokens import TokenVerifier
from gapless.errors import Forbidden, GaplessError, NotDecided, Unauthorized
from gapless.topicmap import TopicMap

MAX_KNOWN = 100_000
"""Decisions kept, which hold as long as the identity does."""

_Whom = tuple[str | None, frozenset[str], tuple[str, ...], bool, str | None, int]


class PolicyGate:
    """Authentication by `[auth]`, authorisation by the topic map. See `Gate` for the contract.

    Args:
        topic_map: whose rules hold.
        options: keys, and what tokens must say.
        clock: seconds since the Unix epoch.

    Raises:
        ConfigError: the settings cannot work; see the message.
    """

    def __init__(self, topic_map: TopicMap, options: AuthOptions, *, clock: Callable[[], float] = _time.time) -> None:
        check_auth(options)
        self.policy = Policy(topic_map)
        self._options = options
        self._verifier = TokenVerifier(options, load_keys(options), clock)
        self._leases = Leases(clock)
        self._known: dict[_Whom, _Known] = {}
        self._known_count = 0

    async def authenticate(self, credentials: Credentials) -> Identity:
        """See `Gate.authenticate`."""
        identity = self._identify(credentials)
        source = Source(door=credentials.door, address=credentials.address, connection=credentials.connection)
        return msgspec.structs.replace(identity, source=source)

    def _identify(self, credentials: Credentials) -> Identity:
        if credentials.token:
            return self._verifier.verify(credentials.token)
        if self._options.anonymous_roles is not None:
            return Identity(roles=frozenset(self._options.anonymous_roles))
        raise Unauthorized(
            "there is no token",
            hint="send it as Bearer header, Socket.IO auth.token or MQTT password",
            reason="missing",
        )

    async def prepare(
        self, identity: Identity, *, rooms: Iterable[str] = (), filters: Iterable[str] = (), topics: Iterable[str] = ()
    ) -> None:
        """See `Gate.prepare`."""

    def check_subscribe_room(self, identity: Identity, room: str) -> None:
        """See `Gate.check_subscribe_room`."""
        known = self._of(identity)
        if room not in known.rooms:
            self._decide(known.rooms, room, self.policy.room(identity, room, self._answer), f"hear {room[:120]!r}")

    def check_subscribe_filter(self, identity: Identity, topic_filter: str) -> None:
        """See `Gate.check_subscribe_filter`."""
        known = self._of(identity)
        if topic_filter not in known.filters:
            decision = self.policy.topic_filter(identity, topic_filter, self._answer)
            what = f"hear all of {topic_filter[:120]!r}"
            self._decide(known.filters, topic_filter, decision, what, self._narrower(topic_filter))

    def check_publish(self, identity: Identity, topic: str) -> None:
        """See `Gate.check_publish`."""
        known = self._of(identity)
        if topic not in known.topics:
            decision = self.policy.publish(identity, topic, self._answer)
            self._decide(known.topics, topic, decision, f"publish to {topic[:120]!r}")

    def check_operate(self, identity: Identity, operation: Operation) -> None:
        """See `Gate.check_operate`. Back ends whose key no role narrows may."""
        roles = self._options.metrics_roles if operation == "metrics" else self._options.admin_roles
        if identity.roles.isdisjoint(roles) and not (identity.service and not identity.roles):
            raise Forbidden(f"you may not use {operation}", hint=f"it takes one of the roles {', '.join(roles)}")

    def hold(self, identity: Identity, holder: Holder) -> Lease:
        """See `Gate.hold`."""
        return self._leases.hold(identity, holder)

    def _of(self, identity: Identity) -> _Known:
        # An identity is kept apart by what the rules look at: so one token has one set of decisions, however
        # many requests bring it. Claims are compared by the object, which the entry keeps alive.
        claims = id(identity.claims)
        whom = (identity.user_id, identity.roles, identity.rooms, identity.service, identity.token_id, claims)
        known = self._known.get(whom)
        if known is None:
            known = self._known[whom] = _Known(identity)
            self._count()
        return known

    def _count(self) -> None:
        self._known_count += 1
        if self._known_count > MAX_KNOWN:
            self._known.clear()
            self._known_count = 0

    def _decide(self, allowed: set[str], subject: str, decision: Decision, what: str, hint: str = "") -> None:
        if decision.allowed:
            if not decision.asked:
                allowed.add(subject)
                self._count()
            return
        error: type[GaplessError] = NotDecided if decision.allowed is None else Forbidden
        raise error(f"you may not {what}", hint=hint or "the rules of the topic map say who may")

    def _narrower(self, topic_filter: str) -> str:
        filters = [each for each in self.policy.narrower(topic_filter) if each != topic_filter]
        return f"ask for less at a time, such as {', '.join(filters[:8])}" if filters else ""

    def _answer(self, question: Question) -> bool | None:
        return False


class _Known:
    """What an identity was found to be allowed, by rules alone."""

    __slots__ = ("claims", "filters", "rooms", "topics")

    def __init__(self, identity: Identity) -> None:
        self.claims = identity.claims
        self.rooms: set[str] = set()
        self.filters: set[str] = set()
        self.topics: set[str] = set()
