"""The outgoing side of one connection: live events, catch-up from the log, acknowledgements.

A reader is live, or behind (see `gapless.delivery.cursor`). It falls behind when its socket
or its window is full, or while state is being stored that must be stored before what comes
next is sent; its turns then feed it from the log, in order. One line holds for all it sends:
first what was in flight, then by offset, retained messages at their subscription's place.
"""

from __future__ import annotations

import logging
from asyncio import Future
from collections import deque
from collections.abc import Callable, Iterable
from struct import iter_unpack
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gapless.event import MAX_OFFSET, Event, Record
from gapless.eventlog import Selector
from gapless.eventlog.answers import outcome
from gapless.mqtt import ProtocolVersion, Pubcomp, PublishTemplate, Pubrel, ReasonCode, encode
from gapless.mqtt.session import Grant, Sent, Session, Subscription
from gapless.transports.mqtt.feed import PAGE, Feed, Feeder
from gapless.transports.mqtt.forms import Plain, build_v5, plain_key, plain_of, template_of
from gapless.transports.mqtt.options import EdgeStats
from gapless.transports.mqtt.output import Output
from gapless.transports.mqtt.runs import run_after

if TYPE_CHECKING:
    from gapless.transports.mqtt.groups import ShareGroup

logger = logging.getLogger("gapless.mqtt")

TURN = 64
"""Events of one turn at most."""
_RUN_BYTES = 16 * 1024
"""Bytes that are joined for the socket at most, beside one packet."""

_V5 = ProtocolVersion.V5
_PUBACK, _PUBREC, _PUBCOMP = 0x4002, 0x5002, 0x7002  # with the length of the plain ones
_PUBREL = b"\x62\x02"


class Keeper(Protocol):
    """Where a reader's session is stored. The session store, seen from here."""

    def store(self, reader: Reader, *, durable: bool) -> Future[None]:
        """Store the session as it is now."""

    def touch(self, reader: Reader) -> None:
        """The session changed: store it soon, with others."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""


class _RetainedBatch(NamedTuple):
    """Retained messages of one new subscription, to be sent once the cursor is at `place`."""

    place: int
    subscription: Subscription
    records: deque[Record]


class Reader(Feed):
    """What one connected client gets.

    Args:
        window: how many QoS 1 and 2 messages may be unacknowledged (its Receive Maximum).
        max_packet: the client's Maximum Packet Size in bytes.
        fail: closes the connection, when state cannot be stored.
        may_hear: whether a message that was in flight may be sent again.
    """

    __slots__ = (
        "_failed",
        "_held",
        "_may_hear",
        "_released",
        "_releasing",
        "_resend",
        "_retained",
        "_storing",
        "client_id",
        "groups",
        "inflight",
        "keeper",
        "max_packet",
        "output",
        "paused",
        "persistent",
        "quota",
        "session",
        "stats",
        "version",
        "window",
    )

    def __init__(
        self,
        session: Session,
        output: Output,
        *,
        version: ProtocolVersion,
        window: int,
        max_packet: int,
        keeper: Keeper,
        feeder: Feeder,
        stats: EdgeStats,
        fail: Callable[[BaseException], None],
        may_hear: Callable[[Event], bool],
    ) -> None:
        super().__init__(session.position, feeder)
        self._may_hear = may_hear
        self.session = session
        self.inflight = session.inflight
        self.client_id = session.client_id
        self.output = output
        self.version = version
        self.window = window
        self.quota = window
        self.max_packet = max_packet
        self.keeper = keeper
        self.stats = stats
        self.persistent = session.persistent
        self.paused = False
        self.groups: tuple[ShareGroup, ...] = ()
        self._failed = fail
        self._storing = 0
        self._resend: deque[int] = deque(session.inflight)
        self._retained: deque[_RetainedBatch] = deque()
        self._held: list[bytes] = []
        self._released: list[int] = []
        self._releasing = False

    def on_broken(self, error: Exception) -> None:
        """A turn failed: the connection is closed."""
        self._failed(error)

    # State

    @property
    def can_send(self) -> bool:
        """Whether anything at all may be written now."""
        return not (self.paused or self._storing or self.closed)

    @property
    def sending_again(self) -> bool:
        """Whether messages of an earlier connection are still to be sent again."""
        return bool(self._resend)

    def can_take(self, qos: int) -> bool:
        """Whether a message of a shared subscription can be sent now."""
        return self.can_send and not self._resend and (not qos or self.quota > 0)

    def stamp(self) -> None:
        """Note in the session what was sent so far, before it is stored."""
        self.session.position = self.where

    def lag(self) -> None:
        """Take no more live events; what was handed out so far was delivered."""
        if self.live:
            self.stats.slow += 1
            self.fall_behind(self.hub.head)

    def wake(self) -> None:
        """Something that held the reader up is over."""
        if not self.can_send:
            return
        if not self.live or self._resend:
            self.feeder.schedule(self)
        for group in self.groups:
            if not group.live:
                self.feeder.schedule(group)

    def pause(self) -> None:
        """The socket is full."""
        self.paused = True
        self.lag()

    def resume(self) -> None:
        """The socket has drained."""
        self.paused = False
        self.wake()

    def hold(self, stored: Future[None], then: Callable[[], None]) -> None:
        """Send nothing until the state is stored; then do `then`, and go on from there."""
        if self.live:
            self.fall_behind(self.hub.head)
        self._storing += 1

        def over(done: Future[None]) -> None:
            self._storing -= 1
            if self.closed:
                return
            if (error := outcome(done)) is not None:
                self._failed(error)
                return
            then()
            self.go_on()

        stored.add_done_callback(over)

    def go_on(self) -> None:
        """A turn at once, and more where needed."""
        if not self.closed and (self.turn() or not self.live):
            self.wake()

    def begin(self) -> None:
        """The client is told that it is connected: send what was in flight, then what it missed."""
        for sub in list(self.session.subscriptions.values()):
            if sub.retained_due:
                self.add_retained(sub, self.retained_of(sub), place=self.hub.head)
        self._send_run()
        self.go_on()

    def _send_run(self) -> None:
        """Begin with what others at the same place get, too."""
        inflight = self.inflight
        if inflight or self._retained or not self.can_send or self.position >= self.hub.head:
            return
        most = min(self.quota, PAGE)
        run = run_after(self.hub, self.session, self.version, self.position, selector=self.make_selector, most=most)
        if run is None or run.largest > self.max_packet:
            return
        inflight.update(run.sent)
        self.quota -= len(run.sent)
        self.position = run.through
        self.stats.sent[1] += len(run.sent)
        self.stats.sent[0] += run.at_qos0
        if run.kept:
            self._touch()
        if run.data:
            self.output.send(run.data)

    # Live events, called by the fan-out

    def live_qos(self, template: PublishTemplate, sent: Sent) -> None:
        """A logged event at QoS 1 or 2 that the fan-out cannot write as it writes it to others."""
        if not self.live:
            return
        if not self.quota:
            self.stats.slow += 1
            self.fall_behind(sent.offset - 1)
            return
        self._send_qos(template, sent)
        if self._held:
            self._store_held()

    def live_record(self, record: Record, *, own: bool) -> None:
        """An event for a reader that needs a closer look (No Local)."""
        if not self.live:
            self.stats.dropped_ephemeral += not record.offset
            return
        event = record.event
        grant = self.session.grant(event.topic, record.offset or MAX_OFFSET, rooms=event.rooms, own=own)
        if grant is None:
            return
        if self._deliver(record, grant):
            if self._held:
                self._store_held()
        else:
            self.stats.slow += 1
            self.fall_behind(record.offset - 1)

    def take_shared(self, record: Record, subscription: Subscription, share: str) -> bool:
        """An event of a shared subscription, after `can_take` said yes; whether it is in flight now."""
        quota = self.quota
        grant = Grant(
            subscription.qos,
            subscription.retain_as_published,
            (subscription.identifier,) if subscription.identifier else (),
            subscription.bare,
        )
        self._deliver(record, grant, share=share)
        if self._held:
            self._store_held()
        return self.quota < quota

    # Catching up

    def make_selector(self) -> Selector:
        """What this client wants from the log."""
        return Selector(rooms=self.session.rooms, filters=self.session.plain_filters)

    def on_hole(self, position: int) -> None:
        """Events that this client should have had are gone: it is told with the next PUBLISH."""
        self.stats.incomplete += 1
        if self.session.hole is None:
            self.session.hole = self.hub.position(position)
        logger.warning(
            "client %r missed events after %s: the log no longer has them (retention)",
            self.client_id,
            self.hub.position(position),
        )

    def step_back(self, position: int) -> None:
        """The subscriptions changed; go on from here."""
        if position < self.where:
            self.live = False
            self.position = position
        elif self.live:
            self.fall_behind(self.hub.head)
        self.reset()

    def retained_of(self, subscription: Subscription) -> list[Record]:
        """The retained messages that a subscription brings: of its topics, or in its room."""
        retained, now, room = self.hub.retained, self.keeper.now_ms(), subscription.room
        return retained.matching(subscription.filter, now=now) if room is None else retained.in_room(room, now=now)

    def add_retained(self, subscription: Subscription, records: Iterable[Record], *, place: int) -> None:
        """Send the retained messages of a new subscription [MQTT-3.3.1-9].

        Args:
            place: after the events up to this offset, before those after it.
        """
        self.drop_retained(subscription.filter)
        waiting = deque(records)
        if waiting:
            if self.live:
                self.fall_behind(self.hub.head)
            self._retained.append(_RetainedBatch(place, subscription, waiting))
            self._retained = deque(sorted(self._retained, key=lambda batch: batch.place))
        else:
            self.session.retained_sent(subscription.filter)

    def drop_retained(self, filter_: str) -> None:
        """The subscription was replaced or removed: forget what of it was not sent yet."""
        self._retained = deque(batch for batch in self._retained if batch.subscription.filter != filter_)

    def turn(self) -> bool:
        """Send what can be sent, up to a bound; whether there is more at once."""
        if not self.can_send:
            return False
        left = TURN
        more = True
        while left > 0 and more and self.can_send:
            done = self._run(left)
            if not done:
                more = self._step()
            left -= done or 1
        if self._held:
            self._store_held()
        return more and self.can_send

    def _run(self, most: int) -> int:
        """Send of what was read ahead as many as are plain, one after the other; how many of it are done with.

        Hot: a client that was away is fed by it. Plain is what was not published by this client, does not expire and
        goes out at QoS 0 or 1, where nothing is to be sent before or with it: all get the same bytes, under the packet
        identifier that goes with the offset. The rest, also where that is in use, is left to `_step`.
        """
        session = self.session
        if self._resend or self._retained or self._held or self.live or session.hole is not None:
            return 0
        ahead, grant_of, inflight, client_id = self._ahead, session.grant, self.inflight, self.client_id
        quota, position, max_packet, version = self.quota, self.position, self.max_packet, self.version
        packets: list[bytes] = []
        done = size = sent_qos1 = sent_qos0 = 0
        kept = False  # something that the session has to remember
        last: Grant | None = None
        key: Any = None
        try:
            while ahead and done < most and size < _RUN_BYTES:
                record = ahead[0]
                offset, event = record.offset, record.event
                if offset > position:
                    if event.expires is not None or event.origin.client == client_id:
                        break
                    grant = grant_of(event.topic, offset, rooms=event.rooms)
                    if grant is not None:
                        if grant is not last:
                            last, key = grant, plain_key(version, grant)
                        plain: Plain = record.forms.get(key) or plain_of(record, grant, version, key)
                        if plain.size > max_packet:
                            break
                        qos = plain.qos
                        if qos == 1:
                            packet_id = plain.packet_id
                            if not quota or packet_id in inflight:
                                break
                            inflight[packet_id] = plain.sent
                            quota -= 1
                            kept = True
                            sent_qos1 += 1
                        elif qos:
                            break
                        else:
                            kept = kept or grant.qos > 0
                            sent_qos0 += 1
                        packets += plain.parts
                        size += plain.size
                    position = offset
                    done += 1
                ahead.popleft()
        finally:  # what is in flight now is sent, whatever comes after it
            self.position, self.quota = position, quota
            self.stats.sent[1] += sent_qos1
            self.stats.sent[0] += sent_qos0
            if kept:
                self._touch()
            if packets:
                self.output.send(b"".join(packets))
        return done

    def _step(self) -> bool:
        """One message, or one move of the cursor; False where nothing more can be done now."""
        if self._resend:
            return self._send_again(self._resend[0])
        batch = self._retained[0] if self._retained else None
        if batch is not None and self.position >= batch.place:
            return self._send_retained(batch)
        if self.live:
            return False
        if not self.read_ahead:
            start = self.session.start_of_interest(self.position)
            if start > self.position:
                self.position = min(start, self.hub.head)
                return True
        record = self.peek()
        if record is not None:
            if batch is not None and record.offset > batch.place:
                self.position = batch.place
                return True
            if not self._offer(record):
                return False
            self.position = record.offset
            return True
        if self._reading:
            return False
        if batch is None and self.join(self.hub.head):
            self.session.passed(self.position)
            return False
        return True

    def _offer(self, record: Record) -> bool:
        """Deliver a record of the log; False where the window is full."""
        event = record.event
        if event.expires is not None and event.expires <= self.keeper.now_ms():
            return True
        own = event.origin.client == self.client_id and event.origin.door == "mqtt"
        grant = self.session.grant(event.topic, record.offset, rooms=event.rooms, own=own)
        return grant is None or self._deliver(record, grant)

    def _send_retained(self, batch: _RetainedBatch) -> bool:
        record = batch.records[0]
        event = record.event
        sub = batch.subscription
        if event.expires is None or event.expires > self.keeper.now_ms():
            grant = Grant(sub.qos, True, (sub.identifier,) if sub.identifier else (), sub.bare)
            if not self._deliver(record, grant, retained=True):
                return False
        batch.records.popleft()
        if not batch.records:
            self._retained.popleft()
            self.session.retained_sent(sub.filter)
            self._touch()
        return True

    # Sending

    def _deliver(self, record: Record, grant: Grant, *, share: str | None = None, retained: bool = False) -> bool:
        """Send one event; False where the window is full."""
        event = record.event
        qos = min(event.qos, grant.qos) if record.offset else 0
        if qos and not self.quota:
            return False
        retain = retained or (grant.retain_as_published and event.retain)
        template = self._template(record, grant, retain=retain)
        if not qos:
            if template.size(0) > self.max_packet:
                self.stats.too_large += 1
                return True
            self.stats.sent[0] += 1
            self._put(template.qos0())
            if grant.qos:
                self._touch()
            return True
        topic = event.topic if retained else None
        self._send_qos(template, Sent(record.offset, qos, retain, grant.identifiers, grant.bare, topic, share))
        return True

    def _template(self, record: Record, grant: Grant, *, retain: bool) -> PublishTemplate:
        now = self.keeper.now_ms()
        hole = self.session.hole
        if hole is None or self.version is not _V5:
            return template_of(record, grant, self.version, retain=retain, now=now)
        self.session.hole = None
        expires = record.event.expires
        expiry = None if expires is None else max(0, (expires - now + 999) // 1000)
        return build_v5(record, grant, retain=retain, expiry=expiry, hole=hole)

    def _send_qos(self, template: PublishTemplate, sent: Sent) -> None:
        qos = sent.qos
        if template.size(qos) > self.max_packet:
            self.stats.too_large += 1
            return
        packet_id = self.session.assign(sent)
        self.quota -= 1
        self.stats.sent[qos] += 1
        data = template.with_packet_id(qos, packet_id)
        if self.persistent:
            if qos == 2 or self._held:
                self._held.append(data)  # goes out once the identifier is stored
                return
            self.keeper.touch(self)
        self.output.send(data)

    def _put(self, data: bytes) -> None:
        if self._held:
            self._held.append(data)
        else:
            self.output.send(data)

    def _touch(self) -> None:
        if self.persistent:
            self.keeper.touch(self)

    def _store_held(self) -> None:
        held, self._held = self._held, []
        if self.live:
            self.fall_behind(self.hub.head)  # before the session is stored, at this position

        def send() -> None:
            for data in held:
                self.output.send(data)

        self.hold(self.keeper.store(self, durable=True), send)

    # What was in flight when the last connection ended [MQTT-4.4.0-1]

    def _send_again(self, packet_id: int) -> bool:
        session = self.session
        if packet_id not in session.inflight:
            self._resend.popleft()
            return True
        sent = session.inflight[packet_id]
        if sent is None:
            self.output.send(encode(Pubrel(packet_id), self.version))
            self._resend.popleft()
            return True
        if not self.quota:
            return False
        found, record = self._find(sent)
        if not found:
            return False
        self._resend.popleft()
        if record is None or not self._may_hear(record.event):
            del session.inflight[packet_id]
            if record is None:
                self.on_hole(sent.offset - 1)
            self._touch()
            return True
        grant = Grant(sent.qos, sent.retain, sent.identifiers, sent.bare)
        template = self._template(record, grant, retain=sent.retain)
        self.quota -= 1
        if template.size(sent.qos) > self.max_packet:
            self.quota += 1
            self.stats.too_large += 1
            del session.inflight[packet_id]
            return True
        self.stats.sent[sent.qos] += 1
        self.output.send(template.with_packet_id(sent.qos, packet_id, dup=True))
        return True

    def _find(self, sent: Sent) -> tuple[bool, Record | None]:
        """The record of a message in flight: (found out, record); None where it is gone."""
        if sent.topic is not None:
            kept = self.hub.retained.get(sent.topic)
            if kept is not None and kept.offset == sent.offset:
                return True, kept
        return self.find_record(sent.offset)

    # Acknowledgements of the client

    def acknowledged(self, data: bytes) -> int:
        """Take the plain acknowledgements that `data` begins with; how many bytes they were.

        Hot. What is not just the next step of a message in flight is left, for the decoder.
        """
        if self.groups:
            return 0  # they are told what is completed
        inflight = self.inflight
        released: list[bytes] = []
        at = done = 0
        for kind, packet_id in iter_unpack(">HH", data[: len(data) & ~3]):
            sent = inflight.get(packet_id)
            if kind == _PUBACK and sent is not None and sent.qos == 1:
                del inflight[packet_id]
                done += 1
            elif kind == _PUBREC and sent is not None and sent.qos == 2 and not self.persistent:
                inflight[packet_id] = None
                released.append(_PUBREL + data[at + 2 : at + 4])
            elif kind == _PUBCOMP and sent is None and packet_id in inflight:
                del inflight[packet_id]
                done += 1
            else:
                break
            at += 4
        if released:
            self.output.send_now(b"".join(released))
        if done:
            self.quota = min(self.quota + done, self.window)
            if self.persistent:
                self.keeper.touch(self)
            if not self.live:
                self.wake()
        return at

    def puback(self, packet_id: int, reason: ReasonCode) -> bool:
        """PUBACK; with a failure too the message is done [MQTT-4.4.0-2]. False where none awaits one."""
        sent = self.session.puback(packet_id)
        if sent is not None:
            self._done(sent)
        return sent is not None

    def pubrec(self, packet_id: int, reason: ReasonCode) -> bool:
        """PUBREC: the message's part is over; PUBREL goes out once that is stored. False where none awaits one."""
        if reason.is_failure:
            sent = self.session.refused(packet_id)
            if sent is not None:
                self._done(sent)
            return sent is not None
        sent = self.session.inflight.get(packet_id)
        if not self.session.pubrec(packet_id):
            self.output.send(encode(Pubrel(packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND), self.version))
            return False
        if sent is not None and sent.share is not None:
            self._returned(sent)
        if self.persistent:
            self._released.append(packet_id)
        else:
            self.output.send(encode(Pubrel(packet_id), self.version))
        return True

    def pubcomp(self, packet_id: int) -> bool:
        """PUBCOMP. False where none awaits one."""
        known = self.session.pubcomp(packet_id)
        if known:
            self._more_quota()
            self._touch()
        return known

    def end_of_batch(self) -> None:
        """The packets of one read are done: store what they changed, and feed on."""
        if self._released and not self._releasing:
            self._release()

    def _release(self) -> None:
        released, self._released = self._released, []
        self._releasing = True

        def over(done: Future[None]) -> None:
            self._releasing = False
            if self.closed:
                return
            if (error := outcome(done)) is not None:
                self._failed(error)
                return
            for packet_id in released:
                self.output.send(encode(Pubrel(packet_id), self.version))
            if self._released:
                self._release()

        self.keeper.store(self, durable=True).add_done_callback(over)

    def _done(self, sent: Sent) -> None:
        if sent.share is not None:
            self._returned(sent)
        self._more_quota()
        self._touch()

    def _returned(self, sent: Sent) -> None:
        for group in self.groups:
            if group.key == sent.share:
                group.completed(self.client_id, sent.offset)

    def _more_quota(self) -> None:
        if self.quota < self.window:
            self.quota += 1
            if not self.live or self.groups:
                self.wake()


def pubcomp_for(packet_id: int, *, known: bool, version: ProtocolVersion) -> bytes:
    """PUBCOMP, with 0x92 for an identifier that is not in use (MQTT 5 §4.3.3)."""
    reason = ReasonCode.SUCCESS if known else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
    return encode(Pubcomp(packet_id, reason), version)
