"""From packets to bytes, for both versions and both directions.

`encode` takes any packet. For the fan-out of one message to many subscribers there is
`PublishTemplate` in `template`.
"""

from __future__ import annotations

from typing import Final

from gapless.mqtt.codes import (
    CLIENT_DISCONNECT_CODES,
    SERVER_DISCONNECT_CODES,
    ProtocolVersion,
    ReasonCode,
    connect_return_code,
)
from gapless.mqtt.errors import MqttEncodeError, MqttProtocolError
from gapless.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from gapless.mqtt.properties import Properties, PropertyContext, encode_properties
from gapless.mqtt.wire import (
    encode_binary,
    encode_packet_id,
    encode_string,
    encode_u16,
    encode_varint,
)

_V5: Final = ProtocolVersion.V5


def encode(packet: Packet, version: ProtocolVersion) -> bytes:
    """The bytes of one packet.

    A CONNECT is encoded in its own version, whatever `version` says. Properties and reason codes
    are left out where `version` is 3.1.1, failures of a SUBACK become 0x80.

    Raises:
        MqttEncodeError: the packet cannot be said in `version`. The encoder checks what would
            break the framing or the packet's form (lengths, ranges, which packet has which
            property, QoS), not topics and filters.
    """
    match packet:
        case Publish():
            return encode_publish(
                packet.topic,
                packet.payload,
                version=version,
                qos=packet.qos,
                packet_id=packet.packet_id,
                retain=packet.retain,
                dup=packet.dup,
                properties=packet.properties,
            )
        case Puback():
            return _encode_ack(0x40, packet, version, PropertyContext.PUBACK)
        case Pubrec():
            return _encode_ack(0x50, packet, version, PropertyContext.PUBREC)
        case Pubrel():
            return _encode_ack(0x62, packet, version, PropertyContext.PUBREL)
        case Pubcomp():
            return _encode_ack(0x70, packet, version, PropertyContext.PUBCOMP)
        case Connect():
            return _encode_connect(packet)
        case Connack():
            return _encode_connack(packet, version)
        case Subscribe():
            return _encode_subscribe(packet, version)
        case Suback():
            return _encode_suback(packet, version)
        case Unsubscribe():
            return _encode_unsubscribe(packet, version)
        case Unsuback():
            return _encode_unsuback(packet, version)
        case Pingreq():
            return b"\xc0\x00"
        case Pingresp():
            return b"\xd0\x00"
        case Disconnect():
            return _encode_disconnect(packet, version)
        case Auth():
            return _encode_auth(packet, version)


def _frame(first: int, body: bytes) -> bytes:
    return bytes((first,)) + encode_varint(len(body)) + body


def encode_publish(
    topic: str,
    payload: bytes,
    *,
    version: ProtocolVersion,
    qos: int = 0,
    packet_id: int = 0,
    retain: bool = False,
    dup: bool = False,
    properties: Properties | None = None,
) -> bytes:
    """One PUBLISH (§3.3). Subscription identifiers are accepted: a server may send them.

    Raises:
        MqttEncodeError: QoS over 2, a packet identifier missing, or present at QoS 0, DUP at
            QoS 0, a topic over 65,535 bytes, a packet over 268,435,455 bytes.
    """
    if not 0 <= qos <= 2:
        raise MqttEncodeError("the QoS is out of range", value=qos, limit=2)
    if qos == 0 and (packet_id or dup):
        raise MqttEncodeError("a PUBLISH with QoS 0 has neither packet identifier nor DUP")
    parts = [encode_string(topic, "the topic name")]
    if qos:
        parts.append(encode_packet_id(packet_id))
    if version is _V5:
        parts.append(encode_properties(properties, PropertyContext.PUBLISH_BY_SERVER))
    parts.append(payload)
    head = bytes((publish_first_byte(qos, retain=retain, dup=dup),))
    return b"".join((head, encode_varint(sum(map(len, parts))), *parts))


def publish_first_byte(qos: int, *, retain: bool, dup: bool = False) -> int:
    """The first byte of a PUBLISH (§3.3.1)."""
    return 0x30 | (8 if dup else 0) | qos << 1 | (1 if retain else 0)


def _encode_ack(
    first: int,
    packet: Puback | Pubrec | Pubrel | Pubcomp,
    version: ProtocolVersion,
    context: PropertyContext,
) -> bytes:
    packet_id = encode_packet_id(packet.packet_id)
    if version is not _V5 or (packet.reason_code == 0 and packet.properties is None):
        return bytes((first, 2)) + packet_id
    body = packet_id + bytes((packet.reason_code,))
    if packet.properties is not None:
        body += encode_properties(packet.properties, context)
    return _frame(first, body)


def _encode_connect(packet: Connect) -> bytes:
    will = packet.will
    is_v5 = packet.version is _V5
    if packet.password is not None and packet.username is None and not is_v5:
        raise MqttEncodeError("3.1.1 has no password without a user name")
    flags = 0x02 if packet.clean_start else 0
    payload = [encode_string(packet.client_id, "the client identifier")]
    if will is not None:
        if not 0 <= will.qos <= 2:
            raise MqttEncodeError("the will QoS is out of range", value=will.qos, limit=2)
        flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        if is_v5:
            payload.append(encode_properties(will.properties, PropertyContext.WILL))
        payload.append(encode_string(will.topic, "the will topic"))
        payload.append(encode_binary(will.payload, "the will payload"))
    if packet.username is not None:
        flags |= 0x80
        payload.append(encode_string(packet.username, "the user name"))
    if packet.password is not None:
        flags |= 0x40
        payload.append(encode_binary(packet.password, "the password"))
    head = b"\x00\x04MQTT" + bytes((packet.version, flags)) + encode_u16(packet.keep_alive, "keep alive")
    if is_v5:
        head += encode_properties(packet.properties, PropertyContext.CONNECT)
    return _frame(0x10, head + b"".join(payload))


def _encode_connack(packet: Connack, version: ProtocolVersion) -> bytes:
    if version is _V5:
        properties = encode_properties(packet.properties, PropertyContext.CONNACK)
        return _frame(0x20, bytes((packet.session_present, packet.reason_code)) + properties)
    code = connect_return_code(packet.reason_code)
    if code is None:
        raise MqttEncodeError(f"3.1.1 has no return code for {packet.reason_code.name}")
    return bytes((0x20, 2, packet.session_present, code))


def _encode_subscribe(packet: Subscribe, version: ProtocolVersion) -> bytes:
    parts = [encode_packet_id(packet.packet_id)]
    if version is _V5:
        parts.append(encode_properties(packet.properties, PropertyContext.SUBSCRIBE))
    for request in packet.subscriptions:
        parts.append(encode_string(request.filter, "a topic filter"))
        parts.append(bytes((_subscription_options(request, version),)))
    return _frame(0x82, b"".join(parts))


def _subscription_options(request: SubscriptionRequest, version: ProtocolVersion) -> int:
    if not (0 <= request.qos <= 2 and 0 <= request.retain_handling <= 2):
        raise MqttEncodeError("the QoS or retain handling of a subscription is out of range", limit=2)
    if version is not _V5:
        return request.qos
    no_local = 0x04 if request.no_local else 0
    as_published = 0x08 if request.retain_as_published else 0
    return request.qos | no_local | as_published | request.retain_handling << 4


def _encode_suback(packet: Suback, version: ProtocolVersion) -> bytes:
    head = encode_packet_id(packet.packet_id)
    if version is _V5:
        head += encode_properties(packet.properties, PropertyContext.SUBACK)
        return _frame(0x90, head + bytes(packet.reason_codes))
    return _frame(0x90, head + bytes(min(code, 0x80) for code in packet.reason_codes))


def _encode_unsubscribe(packet: Unsubscribe, version: ProtocolVersion) -> bytes:
    parts = [encode_packet_id(packet.packet_id)]
    if version is _V5:
        parts.append(encode_properties(packet.properties, PropertyContext.UNSUBSCRIBE))
    parts.extend(encode_string(filter_, "a topic filter") for filter_ in packet.filters)
    return _frame(0xA2, b"".join(parts))


def _encode_unsuback(packet: Unsuback, version: ProtocolVersion) -> bytes:
    head = encode_packet_id(packet.packet_id)
    if version is not _V5:
        return _frame(0xB0, head)
    head += encode_properties(packet.properties, PropertyContext.UNSUBACK)
    return _frame(0xB0, head + bytes(packet.reason_codes))


def _encode_disconnect(packet: Disconnect, version: ProtocolVersion) -> bytes:
    if version is not _V5 or (packet.reason_code == 0 and packet.properties is None):
        return b"\xe0\x00"
    body = bytes((packet.reason_code,))
    if packet.properties is not None:
        # a server's DISCONNECT has the Server Reference, a client's the session expiry interval
        by_client = packet.properties.server_reference is None
        body += encode_properties(
            packet.properties,
            PropertyContext.DISCONNECT_BY_CLIENT if by_client else PropertyContext.DISCONNECT_BY_SERVER,
        )
    return _frame(0xE0, body)


def _encode_auth(packet: Auth, version: ProtocolVersion) -> bytes:
    if version is not _V5:
        raise MqttEncodeError("3.1.1 has no AUTH")
    if packet.reason_code == 0 and packet.properties is None:
        return b"\xf0\x00"
    properties = encode_properties(packet.properties, PropertyContext.AUTH)
    return _frame(0xF0, bytes((packet.reason_code,)) + properties)


def encode_error_answer(error: MqttProtocolError, *, by_server: bool, connected: bool) -> bytes:
    """What to send before closing on `error` (MQTT 5 §4.13.1), possibly nothing.

    Args:
        error: its `version` says in which version to answer.
        by_server: whether we are the server, the only side that sends CONNACK.
        connected: whether the CONNECT (for a client the CONNACK) was received and right.
    """
    version = error.version
    if version is None:
        return b""
    if connected:
        if version is not _V5:
            return b""
        allowed = SERVER_DISCONNECT_CODES if by_server else CLIENT_DISCONNECT_CODES
        code = allowed.get(error.reason_code, ReasonCode.PROTOCOL_ERROR)
        return encode(Disconnect(code), version)
    if not by_server:
        return b""
    if version is _V5:
        return encode(Connack(error.reason_code), version)
    if connect_return_code(error.reason_code) is None:
        return b""  # [3.1.1:MQTT-3.1.4-1]: close without a CONNACK
    return encode(Connack(error.reason_code), version)
