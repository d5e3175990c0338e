"""The incoming side of one connection: publishes into the log, acknowledged once they are there.

Acknowledgements go out in the order in which the publishes came [MQTT-4.6.0-2, -3]. A QoS 2
identifier is stored in one transaction with its event, before PUBREC, and removed from the
store before PUBCOMP: so a crash at any point neither loses the event nor makes it two.
"""

from __future__ import annotations

import asyncio
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
    RateLimited,
    UnknownTopic,
)
from gapless.event import MqttMessage, Origin
from gapless.eventlog import StateKind, StateWrite
from gapless.ingress import Accepted, Ingress, Publication
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

logger = logging.getLogger("gapless.mqtt")

_V5 = ProtocolVersion.V5
_PLAIN = MqttMessage()
_STORED = b"\x01"


class _Slot:
    """Place of one acknowledgement in the order."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data: bytes | None = None


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
        case PayloadTooLarge() | LogError() | Overloaded() | RateLimited():
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
        self._slots: deque[_Slot] = deque()
        self._open: set[int] = set()  # identifiers that count against the Receive Maximum
        self._under_way: dict[int, Future[Accepted]] = {}  # QoS 2 not yet in the log
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
        slot = _Slot()
        if qos:
            self._slots.append(slot)
        if qos == 2 and self._seen(packet.packet_id, slot):
            return
        try:
            if packet.payload_format_violated:
                raise InvalidPayload("the payload is announced as UTF-8 and is not")
            self._gate.check_publish(self.identity, topic)
            publication = self._publication(packet, topic)
            future = self._submit(packet, topic, publication)
        except GaplessError as error:
            if isinstance(error, NotDecided) and not self.final:
                self._undo(packet)
                raise
            self._refuse(packet, slot, error)
            return
        self._pending += 1
        self._hold_back()
        if qos == 2:
            self._under_way[packet.packet_id] = future
        future.add_done_callback(lambda done: self._committed(packet, slot, done))

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

    def _seen(self, packet_id: int, slot: _Slot) -> bool:
        """Whether a QoS 2 message with this identifier is already taken in [MQTT-4.3.3-10]."""
        if packet_id in self._session.received:
            self._stats.resent_publishes += 1
            self._answer(slot, encode(Pubrec(packet_id), self._version))
            return True
        under_way = self._under_way.get(packet_id)
        if under_way is None:
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
            expires=expires,
            mqtt=mqtt,
        )

    @staticmethod
    def _take_id(envelope: Envelope, value: str) -> None:
        if not 0 < len(value) <= 128:
            raise InvalidRequest(f"the user property id has {len(value)} characters", hint="use 1 to 128", limit=128)
        envelope.id = value

    def _submit(self, packet: Publish, topic: str, publication: Publication) -> Future[Accepted]:
        session = self._session
        if packet.qos == 2 and session.persistent:
            key = received_key(session.client_id, packet.packet_id)
            return self._ingress.submit(publication, state=(StateWrite(StateKind.MQTT_SESSION, key, _STORED),))
        envelope = publication.envelope
        if packet.qos != 1 or envelope.id is not None or envelope.time is not None:
            return self._ingress.submit(publication)
        payload = packet.payload
        if packet.dup:
            known, future = self._recent.find(session.client_id, packet.packet_id, topic=topic, payload=payload)
            if known:
                self._stats.resent_publishes += 1
                return future if future is not None else self._done_before()
        future = self._ingress.submit(publication)
        self._recent.remember(session.client_id, packet.packet_id, topic=topic, payload=payload, future=future)
        return future

    @staticmethod
    def _done_before() -> Future[Accepted]:
        done: Future[Accepted] = asyncio.get_running_loop().create_future()
        done.set_result(Accepted("", "", "", None, duplicate=True))
        return done

    def _committed(self, packet: Publish, slot: _Slot, done: Future[Accepted]) -> None:
        self._pending -= 1
        packet_id = packet.packet_id
        if packet.qos == 2:
            self._under_way.pop(packet_id, None)
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            if error is not None and not isinstance(error, GaplessError):
                logger.error("a publish failed", exc_info=error)
            self._refuse(packet, slot, error or LogError("the log was closed"))
        elif packet.qos == 1:
            self._open.discard(packet_id)
            self._answer(slot, encode(Puback(packet_id), self._version))
        elif packet.qos == 2:
            self._session.received.add(packet_id)
            self._answer(slot, encode(Pubrec(packet_id), self._version))
        self._read_on()

    def _refuse(self, packet: Publish, slot: _Slot, error: BaseException) -> None:
        """Say no as well as the protocol version can (3.1.1 [MQTT-3.3.5-2]; MQTT 5 §3.3.5)."""
        self._stats.refused_publishes += 1
        logger.debug("client %r: a publish was refused: %s", self._session.client_id, error)
        if self.closed:
            return
        reason = reason_of(error)
        qos, packet_id = packet.qos, packet.packet_id
        if qos == 0:
            if isinstance(error, PayloadTooLarge):
                self._fail(ReasonCode.PACKET_TOO_LARGE, str(error))
            elif isinstance(error, InvalidPayload):
                self._fail(reason, str(error))
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

    def _answer(self, slot: _Slot, data: bytes) -> None:
        """Send this acknowledgement once all before it have been sent."""
        slot.data = data
        slots = self._slots
        while slots and (ready := slots[0].data) is not None:
            slots.popleft()
            if not self.closed:
                self._output.send(ready)

    # PUBREL

    def pubrel(self, packet_id: int, remove: Callable[[list[StateWrite]], Future[None]]) -> None:
        """Release a QoS 2 identifier: PUBCOMP goes out once it is removed from the store."""
        received = self._session.received
        known = packet_id in received
        received.discard(packet_id)
        if not known or not self._session.persistent:
            self._complete(packet_id, known=known)
            return

        def removed(done: Future[None]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._complete(packet_id, known=True)
                return
            received.add(packet_id)
            if not self.closed:
                self._fail(ReasonCode.SERVER_BUSY, "the log takes no writes")

        key = received_key(self._session.client_id, packet_id)
        remove([StateWrite(StateKind.MQTT_SESSION, key, None)]).add_done_callback(removed)

    def _complete(self, packet_id: int, *, known: bool) -> None:
        self._open.discard(packet_id)
        if not self.closed:
            self._output.send(pubcomp_for(packet_id, known=known, version=self._version))

    # Back pressure

    def _hold_back(self) -> None:
        if self._reading and self._pending >= self._options.publish_window:
            self._reading = False
            self._output.hold_reading("log")

    def _read_on(self) -> None:
        if not self._reading and self._pending <= self._options.publish_window // 2 and not self.closed:
            self._reading = True
            self._output.release_reading("log")
