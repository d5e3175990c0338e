"""What the link hears: the filters, and keeping the broker's session up with them."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from gapless.errors import ConfigError
from gapless.eventlog import EventLog, StateKind, StateWrite
from gapless.link.connection import Connection
from gapless.link.errors import LinkError, subscribe_refused
from gapless.link.flight import PUBLISH_IDS
from gapless.link.options import LinkOptions
from gapless.mqtt import (
    Packet,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    matches,
    parse_shared,
)
from gapless.topicmap import TopicMap
from gapless.topicmap.row import CAPTURE

logger = logging.getLogger("gapless.link")

_SUBSCRIBE_ID = PUBLISH_IDS + 1
_UNSUBSCRIBE_ID = PUBLISH_IDS + 2


class Answers:
    """Packets that are waited for by packet identifier: SUBACK, UNSUBACK, PUBACK of a status."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[Packet]] = {}

    def put(self, packet_id: int, packet: Packet) -> None:
        """The packet has come; nobody may wait for it."""
        waiter = self._waiting.get(packet_id)
        if waiter is not None and not waiter.done():
            waiter.set_result(packet)

    async def wait(self, packet_id: int, *, seconds: float) -> Packet:
        """The packet with this identifier, once it comes.

        Raises:
            TimeoutError: it did not come in time.
        """
        waiter: asyncio.Future[Packet] = asyncio.get_running_loop().create_future()
        self._waiting[packet_id] = waiter
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        finally:
            self._waiting.pop(packet_id, None)


class Subscriptions:
    """The link's subscriptions.

    Attributes:
        filters: those that are wanted.

    Raises:
        ConfigError: there is nothing to subscribe to.
    """

    def __init__(self, *, options: LinkOptions, topic_map: TopicMap, log: EventLog, answers: Answers) -> None:
        self._options = options
        self._log = log
        self._answers = answers
        self._before: tuple[str, ...] = ()
        self.filters = _filters(options, topic_map)
        self._inner = [shared[1] if (shared := parse_shared(f)) is not None else f for f in self.filters]

    @property
    def are_new(self) -> bool:
        """Whether some of them were not made by the connections before."""
        return not set(self.filters) <= set(self._before)

    def hear(self, topic: str) -> bool:
        """Whether a message on the topic comes to us."""
        return any(matches(pattern, topic) for pattern in self._inner)

    async def load(self) -> None:
        """Read which filters the broker's session may have."""
        raw = await self._log.read_state(StateKind.LINK_FILTERS, self._options.name)
        self._before = () if raw is None else msgspec.json.decode(raw, type=tuple[str, ...])

    async def make(self, connection: Connection, *, session_present: bool) -> list[LinkError]:
        """Subscribe to the filters, and end subscriptions that the session still has from before.

        They are made anew on each connection: that costs one packet, and mends a session that
        the broker has lost in part. MQTT 5 sends no retained messages for those that it has.

        Returns:
            What the broker refused. The link goes on: what it may publish does not wait for what
            it may not hear.

        Raises:
            LinkError: the broker does not answer.
            LogUnavailable: the log is closed or full.
        """
        refused = await self._subscribe(connection)
        old = [pattern for pattern in self._before if pattern not in self.filters]
        if session_present and old:
            connection.send(Unsubscribe(_UNSUBSCRIBE_ID, old))
            await self._answer(_UNSUBSCRIBE_ID)
        if self._before != self.filters:
            raw = msgspec.json.encode(self.filters)
            await self._log.write_state((StateWrite(StateKind.LINK_FILTERS, self._options.name, raw),), durable=False)
            self._before = self.filters
        return refused

    async def _subscribe(self, connection: Connection) -> list[LinkError]:
        highest = connection.properties.maximum_qos
        qos = self._options.subscribe_qos if highest is None else min(highest, self._options.subscribe_qos)
        requests = [
            SubscriptionRequest(
                pattern,
                qos=qos,
                no_local=parse_shared(pattern) is None,  # [MQTT-3.8.3-4]
                retain_as_published=True,
                retain_handling=1,
            )
            for pattern in self.filters
        ]
        connection.send(Subscribe(_SUBSCRIBE_ID, requests))
        answer = await self._answer(_SUBSCRIBE_ID)
        codes = answer.reason_codes if isinstance(answer, Suback) else []
        refused = [
            subscribe_refused(pattern, code)
            for pattern, code in zip(self.filters, codes, strict=False)
            if code.is_failure
        ]
        for error in refused:
            logger.error("link %s: %s (%s)", self._options.name, error.message, error.hint)
        return refused

    async def _answer(self, packet_id: int) -> Packet:
        try:
            return await self._answers.wait(packet_id, seconds=self._options.connect_timeout)
        except TimeoutError as error:
            raise LinkError("subscribe", "the broker does not answer SUBSCRIBE") from error


def _filters(options: LinkOptions, topic_map: TopicMap) -> tuple[str, ...]:
    """The map's patterns with captures as `+`, unless configured."""
    wanted = options.subscribe
    if wanted is None:
        wanted = tuple(CAPTURE.sub("+", row.pattern) for row in topic_map.rows)
    if not wanted:
        raise ConfigError("link: nothing to subscribe to", hint="give the topic map rows, or set link.subscribe")
    history = options.history_topic
    if history is not None and not any(matches(pattern, history) for pattern in wanted):
        wanted = (*wanted, history)  # of overlapping filters some brokers send a copy each
    return tuple(dict.fromkeys(wanted))
