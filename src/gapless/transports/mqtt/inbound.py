"""The incoming side of one connection: publishes into the log, acknowledged once they are there.

Acknowledgements go out in the order in which the publishes came [MQTT-4.6.0-2, -3]. A QoS 2
identifier is stored in one transaction with its event, before PUBREC, and removed from the
store before PUBCOMP: so a crash at any point neither loses the event nor makes it two.
"""

from __future__ import annotations

import logging
from asyncio import Future
from collections import deque
from collections.abc import Callable

from gapless.auth import Gate, Identity
from gapless.envelope import Envelope, named_user, read_payload
from gapless.errors import (
    Forbidden,
    GaplessError,
    InvalidPayload,
    InvalidRequest,
    InvalidTopic,
    LogError,
    NotDecided,
    Overloaded,
    PayloadTooLarge,
    QuotaExceeded,
    RateLimited,
    TooComplex,
    UnknownTopic,
)
from gapless.event import MqttMessage, Origin
from gapless.eventlog import StateKind, StateWrite
from gapless.eventlog.answers import outcome
from gapless.ingress import Ingress, Publication
from gapless.mqtt import (
    MqttProtocolError,
    Properties,
    ProtocolVersion,
    Puback,
    Publish,
    Pubrec,
    ReasonCode,
    encode,
)
from gapless.mqtt.session import Session
from gapless.mqtt.session_state import received_key
from gapless.transports.mqtt.options import EdgeOptions, EdgeStats
from gapless.transports.mqtt.output import Output
from gapless.transports.mqtt.reader import pubcomp_for
from gapless.transports.mqtt.resent import RecentPublishes
from gapless.transports.mqtt.slots import Slot

logger = logging.getLogger("gapless.mqtt")

_V5 = ProtocolVersion.V5
_PLAIN = MqttMessage()
_STORED = b"\x01"
_PUBACK, _PUBREC = b"\x40\x02", b"\x50\x02"
"""All but the packet identifier of one that says success (MQTT 5 §3.4, §3.5)."""


def refuse_another_user(envelope: Envelope, speaker: Callable[[str | None], str | None]) -> None:
    """Refuse a payload that names another user than the one who publishes it.

    MQTT subscribers get the very bytes, so it cannot be corrected on its way, as it is at other doors.

    Raises:
        Forbidden: it does.
    """
    named = named_user(envelope)
    if named is not None and speaker(named) != named:
        raise Forbidden("the payload names another user than you", hint="leave userId out, or name yourself")


def reason_of(error: BaseException) -> ReasonCode:
    """The reason code that says why a publish was not taken in (MQTT 5 §3.4.2.1)."""
    match error:
        case Forbidden():
            return ReasonCode.NOT_AUTHORIZED
        case InvalidTopic() | UnknownTopic():
            return ReasonCode.TOPIC_NAME_INVALID
        case PayloadTooLarge() | LogError() | Overloaded() | QuotaExceeded() | RateLimited():
            return ReasonCode.QUOTA_EXCEEDED
        case InvalidPayload():
            return ReasonCode.PAYLOAD_FORMAT_INVALID
        case InvalidRequest():
            return ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR
        case _:
            return ReasonCode.UNSPECIFIED_ERROR


class Inbound:
    """What one connected client publishes.

    Args:
        explain: whether the client wants reason strings (Request Problem Information).
        max_packet: the client's Maximum Packet Size in bytes.
        fail: closes the connection with a reason.

    Attributes:
        final: whether a publish on which the application has not decided is refused.
    """

    def __init__(
        self,
        session: Session,
        output: Output,
        *,
        version: ProtocolVersion,
        identity: Identity,
        ingress: Ingress,
        gate: Gate,
        options: EdgeOptions,
        stats: EdgeStats,
        recent: RecentPublishes,
        explain: bool,
        max_packet: int,
        fail: Callable[[ReasonCode, str], None],
    ) -> None:
        self._session = session
        self._output = output
        self._version = version
        self.identity = identity
        self._ingress = ingress
        self._gate = gate
        self._options = options
        self._stats = stats
        self._recent = recent
        self._explain = explain
        self._max_packet = max_packet
        self._fail = fail
        self._aliases: dict[int, str] = {}
        self._slots: deque[Slot] = deque()
        self._open: set[int] = set()  # identifiers that count against the Receive Maximum
        self._under_way: set[int] = set()  # QoS 2 not yet in the log
        self._pending = 0
        self._reading = True
        self.closed = False
        self.final = False

    # PUBLISH

    def publish(self, packet: Publish) -> None:
        """Take a PUBLISH in.

        Raises:
            MqttProtocolError: it breaks the standard; the connection is to be closed.
            NotDecided: the application must be asked first; nothing was done. Where `final`, it is refused.
        """
        qos = packet.qos
        self._stats.received[qos] += 1
        topic = self._topic(packet)
        if qos and self._version is _V5:
            self._open.add(packet.packet_id)
            if len(self._open) > self._options.receive_maximum:
                raise MqttProtocolError(
                    ReasonCode.RECEIVE_MAXIMUM_EXCEEDED,
                    "more QoS 1 and 2 messages than the Receive Maximum allows",
                    limit=self._options.receive_maximum,
                )
        slot = Slot(self._ingress, self, qos, packet.packet_id)
        if qos:
            self._slots.append(slot)
        if qos == 2 and self._seen(packet.packet_id, slot):
            return
        self._pending += 1
        try:
            if packet.payload_format_violated:
                raise InvalidPayload("the payload is announced as UTF-8 and is not")
            self._gate.check_publish(self.identity, topic)
            self._take(packet, topic, slot)
        except GaplessError as error:
            self._pending -= 1
            if isinstance(error, NotDecided) and not self.final:
                self._undo(packet)
                raise
            slot.failed = True
            self._refuse(slot, error)
            return
        if self._pending >= self._options.publish_window:
            self._hold_back()

    def _undo(self, packet: Publish) -> None:
        """The packet comes again, when the application has decided."""
        self._stats.received[packet.qos] -= 1
        if packet.qos:
            self._slots.pop()
            self._open.discard(packet.packet_id)

    def known_topic(self, packet: Publish) -> str:
        """The topic of a packet that waits; empty where an earlier one must tell it first."""
        alias = packet.properties.topic_alias if packet.properties is not None else None
        return packet.topic or (self._aliases.get(alias, "") if alias is not None else "")

    def _topic(self, packet: Publish) -> str:
        """The topic, from the alias where the packet has none [MQTT-3.3.2-7 to -11]."""
        alias = packet.properties.topic_alias if packet.properties is not None else None
        if alias is None:
            return packet.topic
        if alias > self._options.topic_alias_maximum:
            raise MqttProtocolError(
                ReasonCode.TOPIC_ALIAS_INVALID, "the topic alias is too large", limit=self._options.topic_alias_maximum
            )
        if packet.topic:
            self._aliases[alias] = packet.topic
            return packet.topic
        topic = self._aliases.get(alias)
        if topic is None:
            raise MqttProtocolError(ReasonCode.PROTOCOL_ERROR, "the topic alias stands for no topic")
        return topic

    def _seen(self, packet_id: int, slot: Slot) -> bool:
        """Whether a QoS 2 message with this identifier is already taken in [MQTT-4.3.3-10]."""
        if packet_id in self._session.received:
            self._stats.resent_publishes += 1
            self._answer(slot, _PUBREC + packet_id.to_bytes(2))
            return True
        if packet_id not in self._under_way:
            return False
        self._stats.resent_publishes += 1
        self._slots.remove(slot)  # the first one's PUBREC answers both
        return True

    def _publication(self, packet: Publish, topic: str) -> Publication:
        envelope = read_payload(packet.payload)
        refuse_another_user(envelope, self.identity.speaker)
        properties = packet.properties
        payload = None if packet.payload == envelope.data else packet.payload
        expires: int | None = None
        if properties is None:
            mqtt = _PLAIN if payload is None else MqttMessage(payload)
        else:
            for name, value in properties.user_properties:
                if name == "id":
                    self._take_id(envelope, value)
            if properties.message_expiry_interval is not None:
                expires = int((self._ingress.clock() + properties.message_expiry_interval) * 1000)
            mqtt = MqttMessage(
                payload=payload,
                payload_format=properties.payload_format_indicator,
                content_type=properties.content_type,
                response_topic=properties.response_topic,
                correlation_data=properties.correlation_data,
                user_properties=tuple(properties.user_properties),
            )
        return Publication(
            envelope=envelope,
            origin=Origin("mqtt", self._session.client_id, packet.packet_id or None),
            topic=topic,
            qos=packet.qos,
            retain=packet.retain,
            user_id=self.identity.speaker(envelope.user_id),
            nobody=self.identity.user_id is None and not self.identity.service,
            expires=expires,
            mqtt=mqtt,
        )

    @staticmethod
    def _take_id(envelope: Envelope, value: str) -> None:
        if not 0 < len(value) <= 128:
            raise InvalidRequest(f"the user property id has {len(value)} characters", hint="use 1 to 128", limit=128)
        envelope.id = value

    def _take(self, packet: Publish, topic: str, slot: Slot) -> None:
        """Hand a message to the ingress, unless it is one that is there."""
        publication = self._publication(packet, topic)
        session, qos, packet_id = self._session, packet.qos, packet.packet_id
        if qos == 1:
            envelope = publication.envelope
            if envelope.id is None and envelope.time is None:
                fingerprint = hash((topic, packet.payload))
                if packet.dup:
                    known, first = self._recent.find(session.client_id, packet_id, fingerprint)
                    if known:
                        self._was_before(first, slot)
                        return
                self._ingress.take(publication, slot)
                self._recent.remember(session.client_id, packet_id, fingerprint, slot)
                return
        elif qos == 2:
            self._under_way.add(packet_id)
            if session.persistent:
                key = received_key(session.client_id, packet_id)
                self._ingress.take(publication, slot, state=(StateWrite(StateKind.MQTT_SESSION, key, _STORED),))
                return
        self._ingress.take(publication, slot)

    def _was_before(self, first: Slot | None, slot: Slot) -> None:
        self._stats.resent_publishes += 1
        if first is not None and first.waits:
            first.follow(slot)
        else:
            slot.accepted(duplicate=True)

    def committed(self, slot: Slot) -> None:
        """A message is in the log, or handed out."""
        self._pending -= 1
        packet_id = slot.packet_id
        if slot.qos == 1:
            if self._open:
                self._open.discard(packet_id)
            self._answer(slot, _PUBACK + packet_id.to_bytes(2))
        elif slot.qos == 2:
            self._under_way.discard(packet_id)
            self._session.received.add(packet_id)
            self._answer(slot, _PUBREC + packet_id.to_bytes(2))
        if not self._reading:
            self._read_on()

    def not_committed(self, slot: Slot, error: BaseException) -> None:
        """A message is not in the log."""
        self._pending -= 1
        if not isinstance(error, GaplessError):
            logger.error("a publish failed", exc_info=error)
        self._refuse(slot, error)
        self._read_on()

    def _refuse(self, slot: Slot, error: BaseException) -> None:
        """Say no as well as the protocol version can (3.1.1 [MQTT-3.3.5-2]; MQTT 5 §3.3.5)."""
        self._stats.refused_publishes += 1
        if slot.qos == 2:
            self._under_way.discard(slot.packet_id)
        logger.debug("client %r: a publish was refused: %s", self._session.client_id, error)
        if self.closed:
            return
        reason = reason_of(error)
        qos, packet_id = slot.qos, slot.packet_id
        if qos == 0:
            if isinstance(error, PayloadTooLarge):
                self._fail(ReasonCode.PACKET_TOO_LARGE, str(error))
            elif isinstance(error, InvalidPayload) and not isinstance(error, TooComplex):
                self._fail(reason, str(error))  # not what the client itself announced (MQTT 5 §3.3.2.3.2)
            return
        if self._version is not _V5:
            self._fail(reason, str(error))
            return
        self._open.discard(packet_id)
        kind = Puback if qos == 1 else Pubrec
        properties = self._explanation(error)
        data = encode(kind(packet_id, reason, properties), _V5)
        if properties is not None and len(data) > self._max_packet:
            data = encode(kind(packet_id, reason), _V5)
        self._answer(slot, data)

    def _explanation(self, error: BaseException) -> Properties | None:
        if not self._explain or not isinstance(error, GaplessError):
            return None
        text = f"{error.message} ({error.hint})" if error.hint else error.message
        return Properties(reason_string=text[:1000])

    def _answer(self, slot: Slot, data: bytes) -> None:
        """Send this acknowledgement once all before it have been sent."""
        slot.data = data
        slots, send = self._slots, self._output.send
        while slots and (ready := slots[0].data) is not None:
            slots.popleft()
            if not self.closed:
                send(ready)

    # PUBREL

    def pubrel(self, packet_id: int, remove: Callable[[list[StateWrite]], Future[None]]) -> bool:
        """Release a QoS 2 identifier: PUBCOMP goes out once it is removed from the store. False for an unknown one."""
        received = self._session.received
        known = packet_id in received
        received.discard(packet_id)
        if not known or not self._session.persistent:
            self._complete(packet_id, known=known)
            return known

        def removed(done: Future[None]) -> None:
            if outcome(done) is None:
                self._complete(packet_id, known=True)
                return
            received.add(packet_id)
            if not self.closed:
                self._fail(ReasonCode.SERVER_BUSY, "the log takes no writes")

        key = received_key(self._session.client_id, packet_id)
        remove([StateWrite(StateKind.MQTT_SESSION, key, None)]).add_done_callback(removed)
        return True

    def _complete(self, packet_id: int, *, known: bool) -> None:
        self._open.discard(packet_id)
        if not self.closed:
            self._output.send(pubcomp_for(packet_id, known=known, version=self._version))

    # Back pressure

    def _hold_back(self) -> None:
        if self._reading:
            self._reading = False
            self._output.hold_reading("log")

    def _read_on(self) -> None:
        if not self._reading and self._pending <= self._options.publish_window // 2 and not self.closed:
            self._reading = True
            self._output.release_reading("log")
