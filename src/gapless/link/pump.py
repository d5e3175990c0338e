"""The pump: the one ordered reader of the log that publishes to the broker.

It keeps its position in the log's database and reads from there, so nothing is dropped while
the broker is away, however long. It publishes strictly in log order, at most a window of
messages ahead of the acknowledgements, and begins again with the first that is not settled.

Killed at any point:

* before the position is stored: events are published again, with the same id (QoS 1) or with
  the packet identifier that the broker knows (QoS 2: no second copy);
* after it: it was stored only once the broker had taken everything up to it.

A power cut may take the last few stored positions along: then some events are published again,
also at QoS 2, with the same id. So they are where the process is killed between CONNECT and CONNACK
while QoS 2 events are under way: whether the broker had our session nobody knows then.
"""

from __future__ import annotations

import asyncio
import logging
import time as _time
from collections import deque
from collections.abc import Callable

from gapless.event import Record
from gapless.eventlog import EVERYTHING, EventLog
from gapless.hub import Hub
from gapless.link.chain import Chain
from gapless.link.connection import Connection
from gapless.link.echoes import Echoes
from gapless.link.errors import LinkError
from gapless.link.flight import Flight, Phase, Sent, packet_id_of
from gapless.link.options import LinkOptions
from gapless.link.outgoing import Outgoing, clears_topic
from gapless.link.progress import Progress
from gapless.link.stats import Complaints, LinkStats
from gapless.mqtt import (
    ProtocolVersion,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    ReasonCode,
)
from gapless.topicmap import TopicMap

logger = logging.getLogger("gapless.link.pump")

_WINDOW_BYTES = 8 << 20
_PAGE = 100
_REMEMBERED = 20_000  # events before the position that a restart looks at, to know the last one of each room
_FORGOTTEN = 1000  # settled publications that a broker with an older state may wait for


class Pump:
    """Publishes the log's events over one connection after another. A fan-out of the hub.

    Args:
        hears: whether a message published to a topic comes back where the broker has no No Local.
        clock: seconds since the Unix epoch.

    Attributes:
        chain: which event of each room was published last.
    """

    def __init__(
        self,
        *,
        options: LinkOptions,
        hub: Hub,
        log: EventLog,
        topic_map: TopicMap,
        stats: LinkStats,
        echoes: Echoes,
        hears: Callable[[str], bool],
        clock: Callable[[], float] = _time.time,
    ) -> None:
        self._options = options
        self._hub = hub
        self._log = log
        self._stats = stats
        self._echoes = echoes
        self._hears = hears
        self._clock = clock
        self._complaints = Complaints(options.name)
        self._outgoing = Outgoing(
            options=options, topic_map=topic_map, stats=stats, complaints=self._complaints, clock=clock
        )
        self._progress = Progress(name=options.name, hub=hub, log=log, on_stored=self._release)
        self.chain = Chain(0)
        self._wake = asyncio.Event()
        self._connection: Connection | None = None
        self._session_present = False
        self._again: deque[Sent] = deque()
        self._page: deque[Record] = deque()
        self._draining = False
        self._answered = asyncio.Event()
        self._maybe_sent = 0
        self._over_quota = False
        self._window = options.window

    @property
    def _flight(self) -> Flight:
        return self._progress.flight

    @property
    def position(self) -> int:
        """Everything up to this offset was taken over by the broker, or is not for it."""
        return self._flight.position

    @property
    def stored_position(self) -> int | None:
        """The position as it is stored: what a process killed right now goes on from. None before `load`."""
        stored = self._progress.stored
        return stored.position if stored.epoch == self._hub.epoch else None

    @property
    def scanned(self) -> int:
        """Everything up to this offset was published, or is not for the broker."""
        return self._flight.scanned

    @property
    def behind(self) -> int:
        """Events between the position and the head."""
        return max(0, self._hub.head - self._flight.position)

    def owes(self, record: Record) -> bool:
        """Whether the record is still to be published, or its acknowledgement is due."""
        return record.offset > self._flight.position and self._outgoing.wants(record.event)

    # From start to end

    async def load(self) -> None:
        """Read the stored state, or begin at the log's end.

        Raises:
            LogUnavailable: the log is closed.
        """
        if await self._progress.load():
            self._maybe_sent = self._options.window
        await self._load_chain()

    async def _load_chain(self) -> None:
        position = self.position
        after = max(0, position - _REMEMBERED, self._log.oldest - 1)
        self.chain = Chain(after)
        while after < position:
            page = await self._hub.page(EVERYTHING, after, limit=1000)
            for record in page.records:
                if record.offset <= position and self._outgoing.wants(record.event):
                    self.chain.add(record.offset, record.event.rooms)
            after = page.through

    async def before_connect(self) -> None:
        """Call it before each CONNECT: see `PumpState.connecting`."""
        if self._flight.state("").received:
            self._progress.connecting = True
            await self._progress.store_now()

    async def attach(self, connection: Connection, *, session_present: bool) -> None:
        """Publish over this connection from now on: `feed` does."""
        self._again = deque(self._flight.reconnected(session_present=session_present))
        if self._progress.connecting:
            self._progress.connecting = False
            await self._progress.store_now()
        self._session_present = session_present
        if not session_present:
            self._maybe_sent = 0
        self._page.clear()
        self._window = min(self._options.window, connection.properties.receive_maximum or 65_535)
        self._connection = connection
        if self._over_quota and session_present:
            self._release_forgotten(connection)
        if self._flight.to_store():
            self._progress.store_soon(urgent=True)

    def detach(self) -> None:
        """The connection has ended."""
        self._connection = None
        self._answered.set()
        self._again.clear()
        self._page.clear()

    async def wait_settled(self, offset: int) -> None:
        """Wait until the broker has taken over everything up to an offset that was published."""
        while self.position < offset:
            self._answered.clear()
            await self._answered.wait()

    async def drain(self) -> None:
        """Publish nothing more, and wait until all that was published is answered."""
        self._draining = True
        while self._connection is not None and not self._connection.closed and self._flight.open:
            self._answered.clear()
            await self._answered.wait()

    def look_again(self) -> None:
        """Perhaps the connection has ended, and what waits for answers waits for nothing."""
        self._answered.set()

    async def wait_certain(self) -> None:
        """Wait until nothing that was published could be heard a second time if it were published again."""
        while self._connection is not None and not self._connection.closed and self._flight.doubtful:
            self._answered.clear()
            await self._answered.wait()

    async def close(self) -> None:
        """Store the position for good.

        Raises:
            LogUnavailable: the last position was not written; an older one is.
        """
        self.detach()
        await self._progress.close()

    # Called by the hub, and by the connection

    def deliver(self, record: Record) -> None:
        """Each new event, in log order; ephemeral ones have offset 0."""
        if record.offset:
            self._wake.set()
        elif self._outgoing.wants(record.event):
            self._send_ephemeral(record)

    def wake(self) -> None:
        """The connection takes data again."""
        self._wake.set()

    def on_answer(self, packet: Puback | Pubrec | Pubcomp) -> None:
        """What the broker says to a publication."""
        match packet:
            case Puback():
                self._check_quota(packet.reason_code)
                sent = self._flight.acknowledged(packet.packet_id)
                if sent is not None:
                    self._settled(sent, packet.reason_code)
            case Pubrec():
                self._on_pubrec(packet)
            case Pubcomp():
                sent = self._flight.completed(packet.packet_id)
                if sent is not None:  # 0x92, not found, after a reconnect: it was completed before
                    self._settled(sent, ReasonCode.SUCCESS)

    def _on_pubrec(self, packet: Pubrec) -> None:
        self._check_quota(packet.reason_code)
        sent = self._flight.received(packet.packet_id)
        if sent is None:
            if self._connection is not None:
                self._connection.send(Pubrel(packet.packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND))
        elif packet.reason_code.is_failure:
            self._flight.refused(sent)
            self._settled(sent, packet.reason_code)
        elif sent.phase is Phase.STORED:
            self._send_pubrel(sent)
        else:
            self._progress.store_soon(urgent=True)

    def _check_quota(self, reason: ReasonCode) -> None:
        """A quota is not for ever: the connection is closed, and the event published again later.

        Raises:
            LinkError: the reason is 0x97.
        """
        if reason is ReasonCode.QUOTA_EXCEEDED:
            self._over_quota = True
            raise LinkError("session", "the broker takes no more: a quota is exceeded", reason=reason)

    def _release_forgotten(self, connection: Connection) -> None:
        """Free what a killed broker may hold since it has woken up with an older state of the session.

        Publications of ours that it had completed wait there for a PUBREL that would never come
        again, and fill its window. To a broker that does not know an identifier PUBREL is no error
        (MQTT 5 §3.7.2.1, 0x92).
        """
        self._over_quota = False
        position = self._flight.position
        for offset in range(max(1, position - _FORGOTTEN + 1), position + 1):
            connection.send(Pubrel(packet_id_of(offset)))

    def _settled(self, sent: Sent, reason: ReasonCode) -> None:
        if reason.is_failure:
            self._stats.refused += 1
            error = LinkError("session", f"the broker refused it (0x{reason:02X} {reason.name})", reason=reason)
            self._complaints.warn("event not published", sent.record.event.topic, error)
        else:
            self._stats.acknowledged += 1
        self._progress.store_soon()
        self._wake.set()
        self._answered.set()

    def _release(self, stored: list[Sent]) -> None:
        for sent in stored:
            if self._flight.stored(sent):
                self._send_pubrel(sent)
        self._wake.set()

    def _send_pubrel(self, sent: Sent) -> None:
        if self._connection is not None:
            self._flight.reopen(sent)
            self._connection.send(Pubrel(sent.packet_id))

    # Publishing

    async def feed(self) -> None:
        """Publish for as long as a connection is attached, until cancelled or `drain`ed.

        Raises:
            LogError: the log cannot be read.
        """
        while (connection := self._connection) is not None:
            self._wake.clear()
            if self._draining:
                return
            blocked = self._send_what_fits(connection)
            if not blocked and self._flight.scanned < self._hub.head:
                await self._load_page()
                await asyncio.sleep(0)  # the turn of others, also where the page came from memory
            else:
                await self._wake.wait()

    def _send_what_fits(self, connection: Connection) -> bool:
        """Send until nothing is at hand (False) or no more may be sent (True)."""
        flight = self._flight
        while self._again:
            sent = self._again[0]
            if not connection.writable or flight.open >= self._window or flight.holds_back(sent.offset, qos=sent.qos):
                return True
            self._again.popleft()
            self._send_again(connection, sent)
        while self._page:
            record = self._page[0]
            if not connection.writable or not flight.takes(record.offset, window=self._window, size=_WINDOW_BYTES):
                return True
            if flight.holds_back(record.offset, qos=self._outgoing.qos(connection, record.event)):
                return True
            self._page.popleft()
            if record.offset > flight.scanned:
                self._send(connection, record)
        return False

    async def _load_page(self) -> None:
        after = self._flight.scanned
        page = self._hub.page_now(EVERYTHING, after, limit=_PAGE)
        if page is None:
            page = await self._hub.page(EVERYTHING, after, limit=_PAGE)
        if not page.complete:
            self._count_missed(after, page.records[0].offset if page.records else page.through + 1)
        if page.records:
            self._page.extend(page.records)
        else:
            self._flight.skip(page.through)
            self._progress.store_soon()

    def _count_missed(self, after: int, oldest: int) -> None:
        missed = oldest - after - 1
        self._stats.missed += missed
        logger.error(
            "link %s: retention removed %d events that were not published, while the gateway ran without this link",
            *(self._options.name, missed),
        )

    def _send(self, connection: Connection, record: Record) -> None:
        flight, event = self._flight, record.event
        if flight.was_taken_over(record.offset):
            self._send_pubrel(flight.add_taken_over(record, previous=self.chain.add(record.offset, event.rooms)))
            return
        expired = event.expires is not None and event.expires <= self._clock() * 1000
        if expired or not self._outgoing.wants(event):
            if expired:
                self._stats.expired += 1
            else:
                self._stats.skipped += 1
            flight.skip(record.offset)
            self._progress.store_soon()
            return
        qos = self._outgoing.qos(connection, event)
        previous = self.chain.add(record.offset, event.rooms)
        data = self._outgoing.encode(connection, record, qos=qos, dup=self._maybe_sent > 0, previous=previous)
        self._maybe_sent = max(0, self._maybe_sent - 1)
        if data is None or qos == 0:
            flight.skip(record.offset)
            self._progress.store_soon()
        else:
            flight.add(record, qos=qos, size=len(data), previous=previous)
        if data is not None:
            self._write(connection, record, data)

    def _send_again(self, connection: Connection, sent: Sent) -> None:
        if sent.phase is Phase.STORED:
            self._send_pubrel(sent)
        elif sent.phase is Phase.PUBLISHED:
            data = self._outgoing.encode(
                connection, sent.record, qos=sent.qos, dup=self._session_present, previous=sent.previous
            )
            if data is None:
                self._flight.refused(sent)
                self._progress.store_soon()
                return
            self._stats.resent += 1
            self._flight.reopen(sent)
            self._write(connection, sent.record, data)

    def _send_ephemeral(self, record: Record) -> None:
        connection = self._connection
        if connection is None or not connection.writable:
            self._stats.ephemeral_dropped += 1
            return
        data = self._outgoing.encode(connection, record, qos=0, dup=False)
        if data is not None:
            self._stats.ephemeral += 1
            self._echoes.sent_ephemeral(record.event.id)
            self._write(connection, record, data)

    def _write(self, connection: Connection, record: Record, data: bytes) -> None:
        self._stats.published += 1
        v5 = connection.version is ProtocolVersion.V5
        if not v5 and clears_topic(record.event) and self._hears(record.event.topic):
            self._echoes.sent_clearing(record.event.topic)
        connection.write(data)
