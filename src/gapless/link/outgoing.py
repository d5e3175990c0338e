"""Which events go to the broker, and what they look like there: payload, QoS, MQTT 5 properties."""

from __future__ import annotations

from collections.abc import Callable

from gapless.envelope import envelope_json
from gapless.event import Event, Record, format_time
from gapless.link.chain import Previous
from gapless.link.connection import Connection
from gapless.link.errors import LinkError
from gapless.link.flight import packet_id_of
from gapless.link.options import LinkOptions
from gapless.link.stats import Complaints, LinkStats
from gapless.mqtt import MqttEncodeError, Properties, ProtocolVersion, encode_publish, matches
from gapless.topicmap import TopicMap

ID, TYPE, TIME, POSITION = "id", "type", "time", "position"
PREVIOUS = "gapless-previous"
"""User property, one for each room: `epoch:offset room`. Nothing of the room lies between that
position and the message's own."""
OUR_PROPERTIES = frozenset({ID, TYPE, TIME, POSITION, PREVIOUS})
"""MQTT 5 user properties that tell what event a message is."""


def payload_of(record: Record, version: ProtocolVersion) -> bytes:
    """The PUBLISH payload.

    MQTT 5: the very bytes that an MQTT client published, or the bytes of binary data; they are
    known again by user properties. 3.1.1 has none, so there every event goes in the envelope;
    only an empty retained message stays empty, because that is how a topic is cleared (§3.3.1.3).
    """
    event = record.event
    if version is ProtocolVersion.V5:
        published = event.mqtt_payload
        if published is not None:
            return published
        return event.data if event.binary else envelope_json(record)
    if clears_topic(event):
        return b""
    return envelope_json(record)


def properties_of(record: Record, *, now: int, previous: Previous = ()) -> Properties:
    """The MQTT 5 properties of a PUBLISH; `now` in milliseconds since the Unix epoch."""
    event = record.event
    own = [(ID, event.id), (TYPE, event.type), (TIME, format_time(event.time))]
    if record.position is not None:
        own.append((POSITION, record.position))
        epoch = record.position.partition(":")[0]
        own += [(PREVIOUS, f"{epoch}:{offset} {room}") for room, offset in previous]
    expiry = None if event.expires is None else max(1, -(-(event.expires - now) // 1000))
    message = event.mqtt
    if message is None:
        return Properties(
            payload_format_indicator=None if event.binary else 1,
            content_type=None if event.binary else "application/json",
            message_expiry_interval=expiry,
            user_properties=own,
        )
    foreign = [pair for pair in message.user_properties if pair[0] not in OUR_PROPERTIES]
    return Properties(
        payload_format_indicator=message.payload_format,
        content_type=message.content_type,
        response_topic=message.response_topic,
        correlation_data=message.correlation_data,
        message_expiry_interval=expiry,
        user_properties=[*foreign, *own],
    )


def clears_topic(event: Event) -> bool:
    """Whether it is the empty retained message that clears its topic."""
    return event.retain and event.mqtt_payload == b""


class Outgoing:
    """Chooses and encodes events for one link.

    Args:
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        *,
        options: LinkOptions,
        topic_map: TopicMap,
        stats: LinkStats,
        complaints: Complaints,
        clock: Callable[[], float],
    ) -> None:
        self._options = options
        self._map = topic_map
        self._stats = stats
        self._complaints = complaints
        self._clock = clock

    def wants(self, event: Event) -> bool:
        """Whether the event is one for the broker: not one that came from it, and let through by the filter."""
        origin = event.origin
        if (origin.door == "link" and origin.client == self._options.name) or event.topic.startswith("$"):
            return False
        patterns = self._options.publish
        if patterns is None:
            return self._map.route(event.topic).row is not None
        return any(matches(pattern, event.topic) for pattern in patterns)

    def qos(self, connection: Connection, event: Event) -> int:
        """The event's own, within the options' bounds (at least 1) and what the broker offers."""
        highest = connection.properties.maximum_qos
        wanted = max(self._options.publish_qos_least, min(event.qos, self._options.publish_qos))
        return wanted if highest is None else min(wanted, highest)

    def encode(
        self, connection: Connection, record: Record, *, qos: int, dup: bool, previous: Previous = ()
    ) -> bytes | None:
        """The PUBLISH; None, counted and logged, where the broker could never take it."""
        event, limits = record.event, connection.properties
        v5 = connection.version is ProtocolVersion.V5
        try:
            data = encode_publish(
                event.topic,
                payload_of(record, connection.version),
                version=connection.version,
                qos=qos,
                packet_id=packet_id_of(record.offset) if qos else 0,
                retain=event.retain and limits.retain_available is not False,
                dup=dup and qos > 0,
                properties=properties_of(record, now=int(self._clock() * 1000), previous=previous) if v5 else None,
            )
        except MqttEncodeError as error:  # it can never be sent, and must not hold up the others
            self._stats.refused += 1
            self._complaints.warn("event not published", event.topic, error)
            return None
        limit = limits.maximum_packet_size
        if limit is None or len(data) <= limit:  # [MQTT-3.2.2-15]
            return data
        if previous:  # without, the next message of the room shows a hole, and that is harmless
            return self.encode(connection, record, qos=qos, dup=dup)
        self._stats.too_large += 1
        large = LinkError("session", "it is larger than the broker's maximum packet size", size=len(data), limit=limit)
        self._complaints.warn("event not published", event.topic, large)
        return None
