"""What an MQTT subscriber is sent for an event: payload and properties, encoded once per form.

* An event that an MQTT client published: the very bytes it published, with its properties.
* An event from another door: the envelope as JSON; binary data as it is.
* To MQTT 5 subscribers also, as user properties: `id`, `type`, `time`, `position`.
* To those that asked for it (`gapless-payload: data`): the bare data as payload.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from gapless.envelope import envelope_json
from gapless.event import Event, Record, format_time
from gapless.mqtt import Properties, ProtocolVersion, PublishTemplate
from gapless.mqtt.session import Grant, Sent

INCOMPLETE = "gapless-incomplete"
"""User property of the first PUBLISH after a hole, and of a SUBACK: the position after which
events that were asked for are no longer in the log."""

MOST_FORMS = 20
"""Encodings that are kept with one event. Each subscription identifier makes another, with what
`Plain` has of it; past the bound one is made anew for each client, so that an event's memory stays a
few times its size."""

_JSON = "application/json"


def template_of(record: Record, grant: Grant, version: ProtocolVersion, *, retain: bool, now: int) -> PublishTemplate:
    """The PUBLISH of an event, cached in `record.forms` and shared by all who get it so.

    Args:
        retain: the RETAIN flag.
        now: milliseconds since the Unix epoch, for what remains of the message's life.
    """
    if version is not ProtocolVersion.V5:
        key: Any = ("mqtt", 4, retain)
        template: PublishTemplate | None = record.forms.get(key)
        if template is None:
            payload, _ = _content(record, bare=False)
            template = record.forms[key] = PublishTemplate(record.event.topic, payload, version=version, retain=retain)
        return template
    expires = record.event.expires
    remaining = None if expires is None else max(0, (expires - now + 999) // 1000)
    key = ("mqtt", 5, retain, grant.identifiers, grant.bare)
    kept: tuple[int | None, PublishTemplate] | None = record.forms.get(key)
    if kept is not None and kept[0] == remaining:
        return kept[1]
    template = build_v5(record, grant, retain=retain, expiry=remaining)
    if kept is not None or len(record.forms) < MOST_FORMS:
        record.forms[key] = (remaining, template)
    return template


class Plain(msgspec.Struct, frozen=True, gc=False):
    """How an event goes to clients that come back: the same for all who have it so.

    Attributes:
        qos: 0, 1 or 2.
        parts: the packet's bytes.
        size: how many they are.
        sent: what is in flight then.
        packet_id: its packet identifier; 0 at QoS 0.
    """

    qos: int
    parts: tuple[bytes, ...]
    size: int
    sent: Sent
    packet_id: int


@lru_cache(1024)
def plain_key(version: ProtocolVersion, grant: Grant) -> object:
    """By what `plain_of` keeps one: quicker to look up than what it stands for."""
    return object()


def plain_of(record: Record, grant: Grant, version: ProtocolVersion, key: object) -> Plain:
    """An event without expiry, cached in `record.forms` under its `plain_key`."""
    event = record.event
    retain = grant.retain_as_published and event.retain
    qos = min(event.qos, grant.qos)
    template = template_of(record, grant, version, retain=retain, now=0)
    sent = Sent(record.offset, qos, retain, grant.identifiers, grant.bare)
    if qos:
        packet_id = record.offset % 65535 + 1
        head, tail = template.parts(qos)
        plain = Plain(qos, (head, packet_id.to_bytes(2, "big"), tail), template.size(qos), sent, packet_id)
    else:
        plain = Plain(0, (template.qos0(),), template.size(0), sent, 0)
    if qos < 2 and len(record.forms) < MOST_FORMS:
        record.forms[key] = plain
    return plain


def build_v5(
    record: Record, grant: Grant, *, retain: bool, expiry: int | None = None, hole: str | None = None
) -> PublishTemplate:
    """An MQTT 5 PUBLISH, not cached.

    Args:
        expiry: seconds that remain of the message's life [MQTT-3.3.2-6].
        hole: the value of the user property `gapless-incomplete`.
    """
    payload, content = _content(record, bare=grant.bare)
    properties = Properties(
        message_expiry_interval=expiry,
        subscription_identifiers=list(grant.identifiers),
        user_properties=_user_properties(record, hole),
        **content,
    )
    return PublishTemplate(
        record.event.topic, payload, version=ProtocolVersion.V5, retain=retain, properties=properties
    )


def _content(record: Record, *, bare: bool) -> tuple[bytes, dict[str, Any]]:
    event = record.event
    if event.mqtt is not None and (not bare or event.mqtt.payload is None):
        payload = event.mqtt_payload
        assert payload is not None
        return payload, {
            "payload_format_indicator": event.mqtt.payload_format,
            "content_type": event.mqtt.content_type,
            **_request_response(event),
        }
    if event.binary:
        return event.data, _request_response(event)
    payload = event.data if bare else envelope_json(record)
    return payload, {"payload_format_indicator": 1, "content_type": _JSON, **_request_response(event)}


def _request_response(event: Event) -> dict[str, Any]:
    if event.mqtt is None:
        return {}
    return {"response_topic": event.mqtt.response_topic, "correlation_data": event.mqtt.correlation_data}


def _user_properties(record: Record, hole: str | None) -> list[tuple[str, str]]:
    event = record.event
    pairs = list(event.mqtt.user_properties) if event.mqtt is not None else []
    own, theirs = len(pairs), {name for name, _ in pairs}
    if ("id", event.id) not in pairs:
        pairs.append(("id", event.id))
    pairs.append(("type", event.type))
    pairs.append(("time", format_time(event.time)))
    if record.position is not None:
        pairs.append(("position", record.position))
    if hole is not None:
        pairs.append((INCOMPLETE, hole))
    # A publisher's properties are passed on unaltered [MQTT-3.3.2-17]. Of a name the last one counts, which is
    # ours, so that no publisher moves a subscriber's position or tells it of a hole.
    ours = {name for name, _ in pairs[own:]}
    pairs += [(name, "") for name in ("position", INCOMPLETE) if name in theirs and name not in ours]
    return pairs
