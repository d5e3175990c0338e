"""The gate of a gateway with keys: who it is, what the topic map's rules allow, and when that ends."""

from __future__ import annotations

import asyncio
import logging
import time as _time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from gapless.auth.acl import Acl, acl_of
from gapless.auth.ask import Application, Ask, one_by_one
from gapless.auth.audit import WINDOW, Audit
from gapless.auth.gate import Credentials, Identity, Operation, Source
from gapless.auth.leases import Holder, Lease, Leases
from gapless.auth.options import AuthOptions
from gapless.auth.policy import Decision, Policy, Question
from gapless.auth.renewals import Renewals
from gapless.auth.revocations import Revocation, RevocationKind, Revocations, revoked
from gapless.errors import Forbidden, NotDecided, Unauthorized
from gapless.eventlog import EventLog
from gapless.topicmap import TopicMap

if TYPE_CHECKING:
    from gapless.auth.ask_http import HttpAsk

logger = logging.getLogger("gapless.auth")

ATTEMPTS = 3
"""Times that the application is asked, where its answers are forgotten while they are on their way (`recheck`)."""

MAX_KNOWN = 100_000
"""Decisions kept, which hold as long as the identity does."""

_Whom = tuple[str | None, frozenset[str], tuple[str, ...], bool, str | None, int]


class PolicyGate:
    """Authentication by `[auth]`, authorisation by the topic map. See `Gate` for the contract.

    Args:
        topic_map: whose rules hold.
        options: keys, and what tokens must say.
        ask: answers the rule `ask` in place of `options.ask.url`; bounded by the same timeout.
        clock: seconds since the Unix epoch.

    Attributes:
        policy: the rules; `policy.grants()` lists them.
        audit: the audit log, and its counts.
        application: the answers of the application, and its counts.
        renewals: asks again for what live subscriptions rest on.

    Raises:
        ConfigError: the settings cannot work; see the message.
    """

    def __init__(
        self,
        topic_map: TopicMap,
        options: AuthOptions,
        *,
        ask: Ask | None = None,
        clock: Callable[[], float] = _time.time,
    ) -> None:
        # Loaded here: a gateway without keys starts without the libraries for tokens.
        from gapless.auth.authenticator import Authenticator

        self.policy = Policy(topic_map)
        self.audit = Audit()
        self._options = options
        self.authenticator = Authenticator(options, keys_changed=self._keys_changed, clock=clock)
        self._http_ask = _http_ask(options) if ask is None and options.ask.url is not None else None
        self.application = Application(options.ask, self._http_ask if ask is None else one_by_one(ask))
        self.leases = Leases(clock, self.audit.note)
        self.renewals = Renewals(self.application, self.leases, concurrency=options.ask.concurrency // 2)
        # A certificate may live for years, and what it opens must stay closed.
        lifetime = None if options.certificate_user else options.max_lifetime + options.leeway
        self.revocations = Revocations(lifetime, clock)
        self._known: dict[_Whom, _Known] = {}
        self._known_count = 0
        self._keeping: asyncio.Task[None] | None = None

    # --- life

    async def start(self, log: EventLog) -> None:
        """Take what was revoked earlier from the log, fetch key sets, watch files. Before the doors open.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        await self.revocations.load(log)
        await self.authenticator.start()
        self._keeping = asyncio.create_task(self._keep_house(), name="gate")
        self.audit.tell("configured", **self._configuration())

    async def stop(self) -> None:
        """End the gate's tasks. Connections are the doors' to end."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        self.leases.close()
        await self.authenticator.stop()
        await self.renewals.stop()
        await self.application.stop()
        if self._http_ask is not None:
            await self._http_ask.stop()
        self.audit.flush()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(WINDOW)
            try:
                self.audit.flush()
                await self.revocations.forget()
            except Exception:
                logger.exception("the gate could not forget what is over; trying again")

    def _configuration(self) -> dict[str, object]:
        options = self._options
        return {
            "keys": self.authenticator.verifier.names,
            "jwks": options.jwks_url,
            "issuer": options.issuer,
            "audience": list(options.audiences) or None,
            "api_keys": sorted(self.authenticator.api_keys.names) if self.authenticator.api_keys else None,
            "anonymous": None if options.anonymous_roles is None else list(options.anonymous_roles),
            "ask": options.ask.url,
            "revocations": len(self.revocations),
        }

    @property
    def problem(self) -> str:
        """Why nobody's token can be verified, for `/readyz`; empty where they can. Keys known once go on."""
        key_set = self.authenticator.key_set
        if key_set is None or self.authenticator.verifier.keys:
            return ""
        return f"there are no keys: {key_set.problem}"

    # --- who it is

    async def authenticate(self, credentials: Credentials) -> Identity:
        """See `Gate.authenticate`."""
        try:
            identity = await self.authenticator.identify(credentials)
            self.revocations.check(identity)
        except Unauthorized as error:
            self.audit.refused(credentials, str(error.details.get("reason", "")))
            raise
        source = Source(door=credentials.door, address=credentials.address, connection=credentials.connection)
        return msgspec.structs.replace(identity, source=source)

    def hold(self, identity: Identity, holder: Holder) -> Lease:
        """See `Gate.hold`. What was revoked since the authentication ends at once, after this call."""
        lease = self.leases.hold(identity, holder)
        if self._is_over(identity):
            asyncio.get_running_loop().call_soon(self._end_what_is_over)
        return lease

    def _is_over(self, identity: Identity) -> bool:
        try:
            self.revocations.check(identity)
        except Unauthorized:
            return True
        return not self.authenticator.is_current(identity)

    def _end_what_is_over(self) -> int:
        return self.leases.end(self._is_over, revoked())

    def _keys_changed(self) -> None:
        ended = self._end_what_is_over()
        names = sorted(self.authenticator.api_keys.names) if self.authenticator.api_keys else []
        self.audit.tell("keys changed", keys=self.authenticator.verifier.names, api_keys=names, ended=ended)

    # --- what it may

    async def prepare(
        self, identity: Identity, *, rooms: Iterable[str] = (), filters: Iterable[str] = (), topics: Iterable[str] = ()
    ) -> None:
        """See `Gate.prepare`."""
        rooms, filters, topics = tuple(rooms), tuple(filters), tuple(topics)
        for _ in range(ATTEMPTS):
            questions = self._questions(identity, rooms, filters, topics)
            if not questions:
                return
            await self.application.ask(identity, questions)

    def _questions(
        self, identity: Identity, rooms: Iterable[str], filters: Iterable[str], topics: Iterable[str]
    ) -> list[Question]:
        """What the application must be asked before these can be checked."""
        known, answer = self._of(identity), self._answer(identity)
        decisions = [self.policy.room(identity, room, answer) for room in rooms if room not in known.rooms]
        decisions += [self.policy.topic_filter(identity, each, answer) for each in filters if each not in known.filters]
        decisions += [
            self.policy.publish(identity, topic, answer)
            for topic in topics
            if self.policy.subject_of(topic) not in known.topics
        ]
        return [question for decision in decisions for question in decision.questions]

    def check_subscribe_room(self, identity: Identity, room: str) -> None:
        """See `Gate.check_subscribe_room`."""
        known = self._of(identity)
        if room not in known.rooms:
            decision = self.policy.room(identity, room, self._answer(identity))
            self._decide(identity, "room", room, known.rooms, decision)

    def check_subscribe_filter(self, identity: Identity, topic_filter: str) -> None:
        """See `Gate.check_subscribe_filter`."""
        known = self._of(identity)
        if topic_filter not in known.filters:
            decision = self.policy.topic_filter(identity, topic_filter, self._answer(identity))
            self._decide(identity, "filter", topic_filter, known.filters, decision)

    def check_publish(self, identity: Identity, topic: str) -> None:
        """See `Gate.check_publish`."""
        known = self._of(identity)
        kept = self.policy.subject_of(topic)  # of most rows one decision serves all topics
        if kept not in known.topics:
            decision = self.policy.publish(identity, topic, self._answer(identity))
            self._decide(identity, "publish", topic, known.topics, decision, kept)

    def check_will(self, identity: Identity, topic: str) -> None:
        """See `Gate.check_will`."""
        if self._is_over(identity) or self.revocations.may_have_forgotten(identity):
            self.audit.denied(identity, "will", topic)
            raise Forbidden("the access of the will's author was taken back")
        self.check_publish(identity, topic)

    def check_operate(self, identity: Identity, operation: Operation) -> None:
        """See `Gate.check_operate`. Back ends whose key no role narrows may."""
        roles = self._options.metrics_roles if operation == "metrics" else self._options.admin_roles
        if identity.roles.isdisjoint(roles) and not (identity.service and not identity.roles):
            self.audit.denied(identity, "operate", operation)
            raise Forbidden(f"you may not use {operation}", hint=f"it takes one of the roles {', '.join(roles)}")

    def rights(self, identity: Identity) -> Acl:
        """See `Gate.rights`."""
        known = self._of(identity)
        if known.rights is None:
            known.rights = acl_of(self.policy, identity)
            self._known_count += len(known.rights.subscribe) + len(known.rights.publish)
            self._count()
        return known.rights

    def _answer(self, identity: Identity) -> Callable[[Question], bool | None]:
        return lambda question: self.application.answer(identity, question)

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

    def _decide(
        self,
        identity: Identity,
        kind: str,
        subject: str,
        allowed: set[str],
        decision: Decision,
        kept: str | None = None,
    ) -> None:
        if decision.allowed:
            if not decision.asked:  # what the application says holds for a while only
                allowed.add(kept or subject)
                self._count()
            return
        what = f"{_VERBS[kind]} {subject[:120]!r}"
        if decision.allowed is None:
            raise NotDecided(f"you may not {what} before the application has said so", hint="try again")
        self.audit.denied(identity, kind, subject)
        hint = self._narrower(subject) if kind == "filter" else ""
        raise Forbidden(f"you may not {what}", hint=hint or "the rules of the topic map say who may")

    def _narrower(self, topic_filter: str) -> str:
        filters = [each for each in self.policy.narrower(topic_filter) if each != topic_filter]
        return f"ask for less at a time, such as {', '.join(filters[:8])}" if filters else ""

    # --- taking back

    async def revoke(
        self, kind: RevocationKind, subject: str, *, issued_before: float | None = None, by: Identity | None = None
    ) -> tuple[Revocation, int]:
        """Take access back: of one token, of a user's tokens made so far, or of an API key.

        It holds at once on every door, and is durable when this returns.

        Args:
            issued_before: of a user: seconds since the Unix epoch; None is now.
            by: who does so, for the audit log.

        Returns:
            What is kept, and how many connections it ended.

        Raises:
            Overloaded: too many are kept.
            LogUnavailable: it holds, but a restart would forget it: try again.
        """
        adding = asyncio.ensure_future(self.revocations.add(kind, subject, issued_before=issued_before))
        try:
            revocation = await asyncio.shield(adding)  # a caller that goes away does not undo half of it
        finally:
            ended = self._end_what_is_over()
            who = None if by is None else (by.token_id if by.service else by.user_id)
            self.audit.tell("revocation", kind=kind, subject=subject, by=who, ended=ended)
        return revocation, ended

    def recheck(self, user_id: str | None = None, *, by: Identity | None = None) -> int:
        """Rights changed in the application: ask it again, and let connections check what they hear.

        Args:
            user_id: whose; None is everybody's.

        Returns:
            How many connections check.
        """
        self.application.forget(user_id)
        changed = self.leases.change(lambda identity: user_id is None or identity.user_id == user_id)
        who = None if by is None else (by.token_id if by.service else by.user_id)
        self.audit.tell("recheck", user=user_id, by=who, connections=changed)
        return changed


def _http_ask(options: AuthOptions) -> HttpAsk:
    from gapless.auth.ask_http import HttpAsk

    return HttpAsk(options.ask)


_VERBS = {"room": "hear", "filter": "hear all of", "publish": "publish to"}


class _Known:
    """What an identity was found to be allowed, by rules alone."""

    __slots__ = ("claims", "filters", "rights", "rooms", "topics")

    def __init__(self, identity: Identity) -> None:
        self.claims = identity.claims
        self.rooms: set[str] = set()
        self.filters: set[str] = set()
        self.topics: set[str] = set()
        self.rights: Acl | None = None
