"""What an event looks like on the broker: payload and MQTT 5 properties."""

from __future__ import annotations

from gapless.envelope import envelope_json
from gapless.event import Event, Record, format_time
from gapless.mqtt import Properties, ProtocolVersion

ID, TYPE, TIME, POSITION = "id", "type", "time", "position"
OUR_PROPERTIES = frozenset({ID, TYPE, TIME, POSITION})
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


def properties_of(record: Record, *, now: int) -> Properties:
    """The MQTT 5 properties of a PUBLISH; `now` in milliseconds since the Unix epoch."""
    event = record.event
    own = [(ID, event.id), (TYPE, event.type), (TIME, format_time(event.time))]
    if record.position is not None:
        own.append((POSITION, record.position))
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
