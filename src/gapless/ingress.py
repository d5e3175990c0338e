"""The one way in: every door hands its publications here.

A publication is checked, routed by the topic map, made an event, and either appended to
the log (its future resolves once it is durable) or, where it is ephemeral, handed to the
hub at once.
"""

from __future__ import annotations

import asyncio
import logging
import time as _time
from asyncio import Future
from collections.abc import Callable, Sequence

import msgspec

from gapless.envelope import Envelope, content_id
from gapless.errors import (
    GaplessError,
    InvalidPayload,
    InvalidRequest,
    InvalidTopic,
    LogError,
    PayloadTooLarge,
    QuotaExceeded,
)
from gapless.event import Author, Event, EventIds, MqttMessage, Origin, Record, is_own_name
from gapless.eventlog import EventLog, StateWrite
from gapless.hub import Hub
from gapless.limits import Limits
from gapless.topicmap import Route, TopicMap

logger = logging.getLogger("gapless.ingress")

_ROUTES = 20_000


class Publication(msgspec.Struct, kw_only=True, gc=False):
    """What a door hands in; None where the publisher was silent.

    Attributes:
        envelope: data and what the payload says of itself.
        origin: the door, and who came through it.
        topic: the topic; where None, the envelope's topic, or the map's for its type.
        qos: 0 to 2; None takes the map's.
        retain: whether to keep it as the topic's last value; None takes the map's.
        user_id: who caused it: the authenticated user, or whom a trusted publisher names. What the
            envelope says of it is not looked at here.
        expires: milliseconds since the Unix epoch.
        mqtt: what an MQTT client published, for MQTT subscribers.
        nobody: a client that did not say who it is: ids that it gives are its kind's alone.
        allow: asked with the topic before anything is accepted; raises `Forbidden` to refuse.
    """

    envelope: Envelope
    origin: Origin
    topic: str | None = None
    qos: int | None = None
    retain: bool | None = None
    user_id: str | None = None
    expires: int | None = None
    mqtt: MqttMessage | None = None
    nobody: bool = False
    allow: Callable[[str], None] | None = None


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The answer to a publisher: `position` is None for an ephemeral event."""

    id: str
    topic: str
    type: str
    position: str | None
    duplicate: bool = False


class Reply:
    """Who published one event, and is told by a call what became of it; see `Ingress.take`.

    Attributes:
        ingress: where it is published.
    """

    __slots__ = ("ingress",)

    def __init__(self, ingress: Ingress) -> None:
        self.ingress = ingress

    def accepted(self, record: Record, *, duplicate: bool) -> None:
        """The event is durable (an ephemeral one, whose record has no position: handed out)."""
        raise NotImplementedError

    def refused(self, error: BaseException) -> None:
        """Nothing was accepted."""
        raise NotImplementedError

    def stored(self, record: Record, *, duplicate: bool) -> None:
        """See `gapless.eventlog.Answer`."""
        if duplicate:
            self.ingress.duplicates += 1
        else:
            self.ingress.accepted_durable += 1
        self.accepted(record, duplicate=duplicate)


class _Promise(Reply):
    """A future of the answer."""

    __slots__ = ("_event", "future")

    def __init__(self, ingress: Ingress, event: Event) -> None:
        super().__init__(ingress)
        self._event = event
        self.future: Future[Accepted] = asyncio.get_running_loop().create_future()

    def accepted(self, record: Record, *, duplicate: bool) -> None:
        if not self.future.done():
            self.future.set_result(answer_of(self._event, record, duplicate=duplicate))

    def refused(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Ingress:
    """Checks, routes, stores.

    Args:
        log: the event log, open.
        hub: where ephemeral events go. (Durable ones reach it from the log's listener.)
        own_ids: whether an id is its author's own (`Event.is_copy_of`): where there is a policy.
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        log: EventLog,
        hub: Hub,
        topic_map: TopicMap,
        *,
        limits: Limits | None = None,
        own_ids: bool = False,
        clock: Callable[[], float] = _time.time,
    ) -> None:
        self.log = log
        self.hub = hub
        self.topic_map = topic_map
        self.limits = limits or Limits()
        self._own_ids = own_ids
        self.clock = clock
        self.new_id = EventIds(clock)
        self.accepted_durable = 0
        self.accepted_ephemeral = 0
        self.duplicates = 0
        self._routes: dict[str, Route] = {}  # of topics that passed all checks

    def take(self, publication: Publication, reply: Reply, *, state: Sequence[StateWrite] = ()) -> None:
        """Take one publication in, and tell `reply`: an ephemeral one's at once, else later.

        Calls take effect in the order in which they are made. See `submit`, which costs a future more.

        Raises:
            InvalidRequest, LogUnavailable, Overloaded: at once, with nothing accepted; `reply` is not told.
        """
        event, ephemeral = self.make_event(publication)
        self.hand_in(event, reply, state, ephemeral=ephemeral)

    def hand_in(self, event: Event, reply: Reply, state: Sequence[StateWrite] = (), *, ephemeral: bool) -> None:
        """The second half of `take`, for an event of `make_event`."""
        if not ephemeral:
            self.log.append_one(event, reply, state=state)
            return
        self._hand_out(event)
        if not state:
            reply.accepted(Record(event), duplicate=False)
            return

        def stored(done: Future[None]) -> None:
            if done.cancelled():
                reply.refused(LogError("the log was closed"))
            elif (error := done.exception()) is not None:
                reply.refused(error)
            else:
                reply.accepted(Record(event), duplicate=False)

        self.log.write_state(state, durable=True).add_done_callback(stored)

    def submit(self, publication: Publication, *, state: Sequence[StateWrite] = ()) -> Future[Accepted]:
        """Take one publication in. Calls take effect in the order in which they are made.

        Args:
            state: state values to store in the same transaction as the event (also where
                the event is ephemeral or a duplicate).

        Returns:
            A future that resolves once the event is durable (an ephemeral one: handed out).
            It may be dropped; the event is stored all the same.

        Raises:
            InvalidRequest: at once, with nothing accepted.
            LogUnavailable: from the future, with nothing accepted.
        """
        event, ephemeral = self.make_event(publication)
        promise = _Promise(self, event)
        try:
            self.hand_in(event, promise, state, ephemeral=ephemeral)
        except GaplessError as error:
            promise.refused(error)
        return promise.future

    async def submit_many(self, publications: Sequence[Publication]) -> list[Accepted]:
        """Take several in, in order, the durable ones in one transaction: all or none.

        Raises:
            InvalidRequest: one of them is bad (its `index` is in the details); nothing was accepted.
            LogUnavailable: nothing was accepted.
        """
        made: list[tuple[Event, bool]] = []
        for index, publication in enumerate(publications):
            try:
                made.append(self.make_event(publication))
            except GaplessError as error:
                error.details["index"] = index
                raise
        durable = [event for event, ephemeral in made if not ephemeral]
        appended = iter(await self.log.append(durable) if durable else ())
        answers: list[Accepted] = []
        for event, ephemeral in made:
            if ephemeral:
                self._hand_out(event)
                answers.append(Accepted(event.id, event.topic, event.type, None))
            else:
                record, duplicate = next(appended)
                if duplicate:
                    self.duplicates += 1
                else:
                    self.accepted_durable += 1
                answers.append(answer_of(event, record, duplicate=duplicate))
        return answers

    def make_event(self, publication: Publication) -> tuple[Event, bool]:
        """The event of a publication, and whether it is ephemeral.

        Raises:
            InvalidRequest: a payload over the limit, a bad or unknown topic, a type that does
                not fit the topic.
            QuotaExceeded: it is to be retained, and does not fit.
        """
        envelope, mqtt = publication.envelope, publication.mqtt
        data, decoded, binary, time = envelope.data, envelope.decoded, envelope.binary, envelope.time
        size = len(data)
        if mqtt is not None and mqtt.payload is not None:
            size = max(size, len(mqtt.payload))
        if size > self.limits.payload_bytes:
            raise self._too_large(size)
        topic = publication.topic if publication.topic is not None else envelope.topic
        route = None if topic is None else self._routes.get(topic)
        if topic is None or route is None:
            topic = self.topic_of(publication)
            route = self._admit(topic)
        if publication.allow is not None:
            publication.allow(topic)
        row = route.row
        qos, retain = publication.qos, publication.retain
        if qos is None:
            qos = 1 if row is None else row.qos
        if retain is None:
            retain = row is not None and row.retain
        always = route.always
        event = Event(
            id=self._id_for(publication, topic) if envelope.id is None else _checked_id(envelope.id),
            type=row.type if row is not None and mqtt is not None else self._type(route, envelope),
            topic=topic,
            rooms=self.topic_map.rooms_of(route, decoded) if route.rooms is None else route.rooms,
            data=data,
            binary=binary,
            time=int(self.clock() * 1000) if time is None else time,
            origin=publication.origin,
            user_id=publication.user_id,
            captures=route.captures,
            qos=qos,
            retain=retain,
            expires=publication.expires,
            mqtt=mqtt,
            author=self._author(publication) if self._own_ids else Author.ANYBODY,
        )
        if retain:
            self._check_retained(event)
        return event, not always and self.topic_map.is_ephemeral(route, qos=qos, data=decoded, raw=data, binary=binary)

    def _check_retained(self, event: Event) -> None:
        limit, retained = self.limits.retained_bytes, self.hub.retained
        if limit and (size := retained.size_with(event)) > max(limit, retained.size):
            raise QuotaExceeded(
                "the retained messages of all topics are over the limit",
                hint="clear some with empty payloads, give them an expiry, or raise limits.retained_bytes",
                size=size,
                limit=limit,
            )

    @staticmethod
    def _author(publication: Publication) -> Author:
        return Author.NOBODY if publication.nobody and publication.user_id is None else Author.KNOWN

    def _admit(self, topic: str) -> Route:
        route = self.topic_map.admit(topic)
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        self._routes[topic] = route
        return route

    def _too_large(self, size: int) -> PayloadTooLarge:
        limit = self.limits.payload_bytes
        return PayloadTooLarge(
            f"the payload has {size} bytes, over the limit of {limit}",
            hint="send a reference to it instead, or raise limits.payload_bytes",
            size=size,
            limit=limit,
        )

    def topic_of(self, publication: Publication) -> str:
        """Where a publication goes.

        Raises:
            InvalidRequest: it names neither topic nor type, an unknown type, or a topic over a limit.
        """
        envelope = publication.envelope
        topic = publication.topic if publication.topic is not None else envelope.topic
        if topic is None:
            if envelope.type is None:
                raise InvalidRequest("the event names neither a topic nor a type", hint='add "topic" or "type"')
            values = envelope.decoded if isinstance(envelope.decoded, dict) else {}
            topic = self.topic_map.topic_for(envelope.type, values)
        size = len(topic.encode("utf-8", "surrogatepass"))
        if size > self.limits.topic_bytes:
            raise InvalidTopic(f"the topic has {size} bytes", hint="shorten it", limit=self.limits.topic_bytes)
        levels = topic.count("/") + 1
        if levels > self.limits.topic_levels:
            raise InvalidTopic(f"the topic has {levels} levels", hint="flatten it", limit=self.limits.topic_levels)
        return topic

    @staticmethod
    def _type(route: Route, envelope: Envelope) -> str:
        if route.row is None:
            return "message" if envelope.type is None or is_own_name(envelope.type) else envelope.type
        if envelope.type is not None and envelope.type != route.row.type:
            raise InvalidPayload(
                f"the type {envelope.type!r} does not fit the topic, whose events are {route.row.type!r}",
                hint="leave one of the two out",
            )
        return route.row.type

    def _id_for(self, publication: Publication, topic: str) -> str:
        envelope = publication.envelope
        mqtt = publication.mqtt
        if mqtt is not None and envelope.time is not None:
            return content_id(topic, envelope.data if mqtt.payload is None else mqtt.payload)
        return self.new_id()

    def _hand_out(self, event: Event) -> None:
        self.accepted_ephemeral += 1
        if event.retain:
            self.log.write_retained(event.topic, event).add_done_callback(_note_failure)
        self.hub.deliver_ephemeral(event)


def _checked_id(event_id: str) -> str:
    if not event_id or (not event_id.isprintable() and min(event_id) < " "):  # the log tells namesakes apart by one
        raise InvalidRequest("the id is empty, or has control characters", hint="use a UUID")
    return event_id


def _note_failure(done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        logger.error("a retained message could not be stored: %s", error)


def answer_of(submitted: Event, record: Record, *, duplicate: bool) -> Accepted:
    """What a publisher is told of a stored event."""
    event = record.event
    if event.topic != submitted.topic:
        # The id is that of an event elsewhere, of which the publisher may not know more than that.
        return Accepted(submitted.id, submitted.topic, submitted.type, None, duplicate)
    return Accepted(event.id, event.topic, event.type, record.position, duplicate)
