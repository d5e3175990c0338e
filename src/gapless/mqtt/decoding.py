"""Bodies of the rarer packets, from bytes to structs: everything but PUBLISH and plain acks.

Each function takes a `Reader` over exactly one packet's body and raises `MqttProtocolError`.
"By client" and "by server" say who sent the packet.
"""

from __future__ import annotations

from gapless.errors import InvalidTopic
from gapless.mqtt import codes
from gapless.mqtt.codes import ProtocolVersion, ReasonCode
from gapless.mqtt.errors import MqttProtocolError
from gapless.mqtt.filters import validate_filter, validate_topic
from gapless.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
)
from gapless.mqtt.properties import Properties, PropertyContext, decode_properties
from gapless.mqtt.wire import Reader, malformed, protocol_error


class TopicLimits:
    """Bounds that the decoder enforces on topics, filters and lists within packets."""

    __slots__ = ("max_bytes", "max_items", "max_levels")

    def __init__(self, *, max_levels: int, max_bytes: int, max_items: int) -> None:
        self.max_levels = max_levels
        self.max_bytes = max_bytes
        self.max_items = max_items

    def check_topic(self, topic: str) -> None:
        """Raises 0x90 on a topic name that is invalid, too long or too deep."""
        try:
            validate_topic(topic, max_levels=self.max_levels, max_bytes=self.max_bytes)
        except InvalidTopic as error:
            raise MqttProtocolError(
                ReasonCode.TOPIC_NAME_INVALID, error.message, hint=error.hint, **error.details
            ) from error

    def check_filter(self, filter_: str) -> None:
        """Raises 0x8F on a filter that is invalid, too long or too deep."""
        try:
            validate_filter(filter_, max_levels=self.max_levels, max_bytes=self.max_bytes)
        except InvalidTopic as error:
            raise MqttProtocolError(
                ReasonCode.TOPIC_FILTER_INVALID, error.message, hint=error.hint, **error.details
            ) from error


def check_message_properties(properties: Properties | None, limits: TopicLimits) -> None:
    """The rules on a message's properties that go beyond their types (MQTT 5 §3.3.2.3.5)."""
    if properties is not None and properties.response_topic is not None:
        limits.check_topic(properties.response_topic)


def check_authentication(properties: Properties | None) -> None:
    """Authentication data needs a method (MQTT 5 §3.1.2.11.10)."""
    if properties is None or properties.authentication_data is None:
        return
    if properties.authentication_method is None:
        raise protocol_error("authentication data without an authentication method")


def decode_connect(reader: Reader, limits: TopicLimits) -> Connect:
    """CONNECT (§3.1). Errors carry the version in which they can be answered."""
    name = reader.binary("the protocol name")
    level = reader.u8("the protocol level")
    if name not in (b"MQTT", b"MQIsdp"):
        raise MqttProtocolError(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION, "the protocol name is not MQTT")
    if name == b"MQIsdp" or level not in (4, 5):
        error = MqttProtocolError(
            ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
            f"protocol level {level} of {name.decode()} is not supported",
            hint="use MQTT 3.1.1 or MQTT 5",
            level=level,
        )
        error.version = ProtocolVersion.V5 if level > 5 else ProtocolVersion.V311
        raise error
    version = ProtocolVersion(level)
    try:
        return _decode_connect_body(reader, version, limits)
    except MqttProtocolError as error:
        error.version = version
        raise


def _decode_connect_body(reader: Reader, version: ProtocolVersion, limits: TopicLimits) -> Connect:
    flags = reader.u8("the connect flags")
    _check_connect_flags(flags, version)
    keep_alive = reader.u16("the keep alive")
    properties = None
    if version is ProtocolVersion.V5:
        properties = decode_properties(reader, PropertyContext.CONNECT, max_items=limits.max_items)
        check_authentication(properties)
    client_id = reader.string("the client identifier")
    will = _decode_will(reader, flags, version, limits) if flags & 0x04 else None
    username = reader.string("the user name") if flags & 0x80 else None
    password = reader.binary("the password") if flags & 0x40 else None
    reader.finish("CONNECT")
    clean_start = bool(flags & 0x02)
    if not client_id and not clean_start and version is ProtocolVersion.V311:
        raise MqttProtocolError(
            ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "an empty client identifier without clean session"
        )
    return Connect(
        client_id=client_id,
        version=version,
        clean_start=clean_start,
        keep_alive=keep_alive,
        will=will,
        username=username,
        password=password,
        properties=properties,
    )


def _check_connect_flags(flags: int, version: ProtocolVersion) -> None:
    if flags & 0x01:
        raise malformed("the reserved connect flag is set")
    if flags & 0x18 == 0x18:
        raise malformed("the will has QoS 3")
    if flags & 0x38 and not flags & 0x04:
        raise malformed("a will QoS or will retain without a will")
    if flags & 0x40 and not flags & 0x80 and version is ProtocolVersion.V311:
        raise malformed("a password without a user name")


def _decode_will(reader: Reader, flags: int, version: ProtocolVersion, limits: TopicLimits) -> Will:
    properties = None
    if version is ProtocolVersion.V5:
        properties = decode_properties(reader, PropertyContext.WILL, max_items=limits.max_items)
        check_message_properties(properties, limits)
    topic = reader.string("the will topic")
    limits.check_topic(topic)
    payload = reader.binary("the will payload")
    return Will(
        topic=topic,
        payload=payload,
        qos=flags >> 3 & 3,
        retain=bool(flags & 0x20),
        properties=properties,
    )


def reason_code(value: int, allowed: dict[int, ReasonCode], packet: str) -> ReasonCode:
    """The code for a byte; 0x82 where `packet` may not carry it (MQTT 5 §2.4)."""
    code = allowed.get(value)
    if code is None:
        raise protocol_error(f"0x{value:02X} is not a reason code of {packet}")
    return code


def decode_connack(reader: Reader, version: ProtocolVersion, limits: TopicLimits) -> Connack:
    """CONNACK (§3.2), by a server."""
    flags = reader.u8("the connect acknowledge flags")
    if flags > 1:
        raise malformed("reserved connect acknowledge flags are set")
    value = reader.u8("the reason code")
    properties = None
    if version is ProtocolVersion.V5:
        code = reason_code(value, codes.CONNACK_CODES, "CONNACK")
        properties = decode_properties(reader, PropertyContext.CONNACK, max_items=limits.max_items)
        check_authentication(properties)
    else:
        code = reason_code(value, codes.REASON_OF_RETURN_CODE_311, "CONNACK")
    reader.finish("CONNACK")
    if flags and code is not ReasonCode.SUCCESS:
        raise protocol_error("session present together with a refusal")
    return Connack(code, bool(flags), properties)


def decode_subscribe(reader: Reader, version: ProtocolVersion, limits: TopicLimits) -> Subscribe:
    """SUBSCRIBE (§3.8), by a client."""
    packet_id = reader.packet_id()
    properties = None
    if version is ProtocolVersion.V5:
        properties = decode_properties(reader, PropertyContext.SUBSCRIBE, max_items=limits.max_items)
    subscriptions: list[SubscriptionRequest] = []
    while reader.more():
        _check_room(len(subscriptions), limits)
        subscriptions.append(_decode_subscription(reader, version, limits))
    if not subscriptions:
        raise protocol_error("a SUBSCRIBE without a filter")
    return Subscribe(packet_id, subscriptions, properties)


def _check_room(count: int, limits: TopicLimits) -> None:
    if count >= limits.max_items:
        raise MqttProtocolError(ReasonCode.QUOTA_EXCEEDED, "too many filters in one packet", limit=limits.max_items)


def _decode_subscription(reader: Reader, version: ProtocolVersion, limits: TopicLimits) -> SubscriptionRequest:
    filter_ = reader.string("a topic filter")
    limits.check_filter(filter_)
    options = reader.u8("the subscription options")
    if options & (0xC0 if version is ProtocolVersion.V5 else 0xFC):
        raise malformed("reserved subscription options are set")
    qos = options & 3
    if qos == 3:
        raise malformed("a subscription asks for QoS 3")
    if version is ProtocolVersion.V311:
        return SubscriptionRequest(filter_, qos)
    retain_handling = options >> 4 & 3
    if retain_handling == 3:
        raise protocol_error("retain handling is 3")
    no_local = bool(options & 0x04)
    if no_local and filter_.startswith("$share/"):
        raise protocol_error("no local on a shared subscription")
    return SubscriptionRequest(
        filter=filter_,
        qos=qos,
        no_local=no_local,
        retain_as_published=bool(options & 0x08),
        retain_handling=retain_handling,
    )


def decode_suback(reader: Reader, version: ProtocolVersion, limits: TopicLimits) -> Suback:
    """SUBACK (§3.9), by a server."""
    packet_id = reader.packet_id()
    properties = None
    allowed = codes.SUBACK_CODES_311
    if version is ProtocolVersion.V5:
        properties = decode_properties(reader, PropertyContext.SUBACK, max_items=limits.max_items)
        allowed = codes.SUBACK_CODES
    granted: list[ReasonCode] = []
    while reader.more():
        granted.append(reason_code(reader.u8("a reason code"), allowed, "SUBACK"))
    if not granted:
        raise protocol_error("a SUBACK without a reason code")
    return Suback(packet_id, granted, properties)


def decode_unsubscribe(reader: Reader, version: ProtocolVersion, limits: TopicLimits) -> Unsubscribe:
    """UNSUBSCRIBE (§3.10), by a client."""
    packet_id = reader.packet_id()
    properties = None
    if version is ProtocolVersion.V5:
        properties = decode_properties(reader, PropertyContext.UNSUBSCRIBE, max_items=limits.max_items)
    filters: list[str] = []
    while reader.more():
        _check_room(len(filters), limits)
        filter_ = reader.string("a topic filter")
        limits.check_filter(filter_)
        filters.append(filter_)
    if not filters:
        raise protocol_error("an UNSUBSCRIBE without a filter")
    return Unsubscribe(packet_id, filters, properties)


def decode_unsuback(reader: Reader, version: ProtocolVersion, limits: TopicLimits) -> Unsuback:
    """UNSUBACK (§3.11), by a server."""
    packet_id = reader.packet_id()
    if version is ProtocolVersion.V311:
        reader.finish("UNSUBACK")
        return Unsuback(packet_id)
    properties = decode_properties(reader, PropertyContext.UNSUBACK, max_items=limits.max_items)
    done: list[ReasonCode] = []
    while reader.more():
        done.append(reason_code(reader.u8("a reason code"), codes.UNSUBACK_CODES, "UNSUBACK"))
    if not done:
        raise protocol_error("an UNSUBACK without a reason code")
    return Unsuback(packet_id, done, properties)


def decode_disconnect(reader: Reader, version: ProtocolVersion, limits: TopicLimits, *, by_client: bool) -> Disconnect:
    """DISCONNECT (§3.14)."""
    if version is ProtocolVersion.V311:
        reader.finish("DISCONNECT")
        return Disconnect()
    if not reader.more():
        return Disconnect()
    allowed = codes.CLIENT_DISCONNECT_CODES if by_client else codes.SERVER_DISCONNECT_CODES
    code = reason_code(reader.u8("the reason code"), allowed, "DISCONNECT")
    if not reader.more():
        return Disconnect(code)
    context = PropertyContext.DISCONNECT_BY_CLIENT if by_client else PropertyContext.DISCONNECT_BY_SERVER
    properties = decode_properties(reader, context, max_items=limits.max_items)
    reader.finish("DISCONNECT")
    return Disconnect(code, properties)


def decode_auth(reader: Reader, limits: TopicLimits, *, by_client: bool) -> Auth:
    """AUTH (MQTT 5 §3.15)."""
    value = reader.u8("the reason code") if reader.more() else 0
    allowed = codes.CLIENT_AUTH_CODES if by_client else codes.SERVER_AUTH_CODES
    code = reason_code(value, allowed, "AUTH")
    properties = None
    if reader.more():
        properties = decode_properties(reader, PropertyContext.AUTH, max_items=limits.max_items)
    reader.finish("AUTH")
    check_authentication(properties)
    if code is not ReasonCode.SUCCESS and (properties is None or properties.authentication_method is None):
        raise protocol_error("an AUTH without an authentication method")
    return Auth(code, properties)
