"""MQTT 5 properties (§2.2.2): one typed struct, and which packet may carry which.

A property on a packet that has none of that name is a malformed packet, one that comes twice a
protocol error, and so are values that the standard excludes (a Receive Maximum of 0, …).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from gapless.mqtt.codes import ReasonCode
from gapless.mqtt.errors import MqttEncodeError, MqttProtocolError
from gapless.mqtt.wire import (
    Reader,
    encode_binary,
    encode_string,
    encode_u16,
    encode_u32,
    encode_varint,
    malformed,
    protocol_error,
)


class Properties(msgspec.Struct, frozen=True, gc=False):
    """The properties of one packet (MQTT 5 §2.2.2.2); None means absent.

    Times are in seconds, sizes in bytes. `subscription_identifiers` has at most one entry in a
    SUBSCRIBE and any number in a PUBLISH that a server sends. The order of `user_properties`
    is kept, and names may repeat. The two lists are to be treated as read-only.
    """

    payload_format_indicator: int | None = None
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifiers: list[int] = []
    session_expiry_interval: int | None = None
    assigned_client_identifier: str | None = None
    server_keep_alive: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: bool | None = None
    will_delay_interval: int | None = None
    request_response_information: bool | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: bool | None = None
    user_properties: list[tuple[str, str]] = []
    maximum_packet_size: int | None = None
    wildcard_subscription_available: bool | None = None
    subscription_identifier_available: bool | None = None
    shared_subscription_available: bool | None = None

    def __repr__(self) -> str:
        shown = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is None or value == []:
                continue
            secret = name in ("authentication_data", "correlation_data")
            shown.append(f"{name}={'...' if secret else repr(value)}")
        return f"Properties({', '.join(shown)})"


class PropertyContext(Enum):
    """The packets that carry properties, told apart by sender where the standard does."""

    CONNECT = "CONNECT"
    WILL = "the will of CONNECT"
    CONNACK = "CONNACK"
    PUBLISH_BY_CLIENT = "PUBLISH from a client"
    PUBLISH_BY_SERVER = "PUBLISH from a server"
    PUBACK = "PUBACK"
    PUBREC = "PUBREC"
    PUBREL = "PUBREL"
    PUBCOMP = "PUBCOMP"
    SUBSCRIBE = "SUBSCRIBE"
    SUBACK = "SUBACK"
    UNSUBSCRIBE = "UNSUBSCRIBE"
    UNSUBACK = "UNSUBACK"
    DISCONNECT_BY_CLIENT = "DISCONNECT from a client"
    DISCONNECT_BY_SERVER = "DISCONNECT from a server"
    AUTH = "AUTH"


def _bit(value: int) -> bool:
    return value == 1


class _Kind(Enum):
    """The data types of §2.2.2.2."""

    BYTE = "byte"
    BOOLEAN = "boolean"
    U16 = "two byte integer"
    U32 = "four byte integer"
    VARINT = "variable byte integer"
    STRING = "string"
    BINARY = "binary"
    PAIR = "string pair"


_READ: Final[dict[_Kind, Callable[[Reader, str], Any]]] = {
    _Kind.BYTE: Reader.u8,
    _Kind.BOOLEAN: Reader.u8,
    _Kind.U16: Reader.u16,
    _Kind.U32: Reader.u32,
    _Kind.VARINT: Reader.varint,
    _Kind.STRING: Reader.string,
    _Kind.BINARY: Reader.binary,
}

_WRITE: Final[dict[_Kind, Callable[[Any, str], bytes]]] = {
    _Kind.BYTE: lambda value, what: bytes((value,)),
    _Kind.BOOLEAN: lambda value, what: b"\x01" if value else b"\x00",
    _Kind.U16: encode_u16,
    _Kind.U32: encode_u32,
    _Kind.VARINT: lambda value, what: encode_varint(value),
    _Kind.STRING: encode_string,
    _Kind.BINARY: encode_binary,
    _Kind.PAIR: lambda pair, what: encode_string(pair[0], what) + encode_string(pair[1], what),
}

USER_PROPERTY: Final = 0x26
SUBSCRIPTION_IDENTIFIER: Final = 0x0B

#: identifier -> (field, type): MQTT 5 §2.2.2.2, table 2-4.
FIELDS: Final[dict[int, tuple[str, _Kind]]] = {
    0x01: ("payload_format_indicator", _Kind.BYTE),
    0x02: ("message_expiry_interval", _Kind.U32),
    0x03: ("content_type", _Kind.STRING),
    0x08: ("response_topic", _Kind.STRING),
    0x09: ("correlation_data", _Kind.BINARY),
    0x0B: ("subscription_identifiers", _Kind.VARINT),
    0x11: ("session_expiry_interval", _Kind.U32),
    0x12: ("assigned_client_identifier", _Kind.STRING),
    0x13: ("server_keep_alive", _Kind.U16),
    0x15: ("authentication_method", _Kind.STRING),
    0x16: ("authentication_data", _Kind.BINARY),
    0x17: ("request_problem_information", _Kind.BOOLEAN),
    0x18: ("will_delay_interval", _Kind.U32),
    0x19: ("request_response_information", _Kind.BOOLEAN),
    0x1A: ("response_information", _Kind.STRING),
    0x1C: ("server_reference", _Kind.STRING),
    0x1F: ("reason_string", _Kind.STRING),
    0x21: ("receive_maximum", _Kind.U16),
    0x22: ("topic_alias_maximum", _Kind.U16),
    0x23: ("topic_alias", _Kind.U16),
    0x24: ("maximum_qos", _Kind.BYTE),
    0x25: ("retain_available", _Kind.BOOLEAN),
    0x26: ("user_properties", _Kind.PAIR),
    0x27: ("maximum_packet_size", _Kind.U32),
    0x28: ("wildcard_subscription_available", _Kind.BOOLEAN),
    0x29: ("subscription_identifier_available", _Kind.BOOLEAN),
    0x2A: ("shared_subscription_available", _Kind.BOOLEAN),
}

_MESSAGE: Final = {0x01, 0x02, 0x03, 0x08, 0x09, USER_PROPERTY}
_ACK: Final = frozenset({0x1F, USER_PROPERTY})

#: context -> identifiers it may carry: MQTT 5 §2.2.2.2, table 2-4, and the packets' own sections.
ALLOWED: Final[dict[PropertyContext, frozenset[int]]] = {
    PropertyContext.CONNECT: frozenset({0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27}),
    PropertyContext.WILL: frozenset(_MESSAGE | {0x18}),
    PropertyContext.CONNACK: frozenset(
        {0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A}
    ),
    PropertyContext.PUBLISH_BY_CLIENT: frozenset(_MESSAGE | {0x23}),
    PropertyContext.PUBLISH_BY_SERVER: frozenset(_MESSAGE | {0x23, SUBSCRIPTION_IDENTIFIER}),
    PropertyContext.PUBACK: _ACK,
    PropertyContext.PUBREC: _ACK,
    PropertyContext.PUBREL: _ACK,
    PropertyContext.PUBCOMP: _ACK,
    PropertyContext.SUBSCRIBE: frozenset({SUBSCRIPTION_IDENTIFIER, USER_PROPERTY}),
    PropertyContext.SUBACK: _ACK,
    PropertyContext.UNSUBSCRIBE: frozenset({USER_PROPERTY}),
    PropertyContext.UNSUBACK: _ACK,
    PropertyContext.DISCONNECT_BY_CLIENT: frozenset({0x11, 0x1F, USER_PROPERTY}),
    PropertyContext.DISCONNECT_BY_SERVER: frozenset({0x1C, 0x1F, USER_PROPERTY}),
    PropertyContext.AUTH: frozenset({0x15, 0x16, 0x1F, USER_PROPERTY}),
}


def decode_properties(reader: Reader, context: PropertyContext, *, max_items: int) -> Properties | None:
    """Reads a property length and the properties after it (MQTT 5 §2.2.2).

    Args:
        reader: at the property length; afterwards behind the last property.
        context: whose properties they are.
        max_items: how many user properties (and subscription identifiers) are accepted.

    Returns:
        None where the length is zero.

    Raises:
        MqttProtocolError: 0x81, 0x82, 0x94 (topic alias 0), 0x97 (more than `max_items`).
    """
    size = reader.varint("the property length")
    if not size:
        return None
    end = reader.pos + size
    if end > reader.end:
        raise malformed("the property length reaches past the end of the packet")
    inner = Reader(reader.data, reader.pos, end)
    values = _decode_values(inner, context, max_items)
    reader.pos = end
    return Properties(**values)


def _decode_values(reader: Reader, context: PropertyContext, max_items: int) -> dict[str, Any]:
    allowed = ALLOWED[context]
    values: dict[str, Any] = {}
    while reader.more():
        identifier = reader.u8("a property identifier")
        if identifier not in allowed:
            raise malformed(f"property 0x{identifier:02X} is not one of {context.value}")
        name, kind = FIELDS[identifier]
        if identifier == USER_PROPERTY:
            pair = (reader.string("a user property"), reader.string("a user property"))
            _append(values, name, pair, max_items)
            continue
        value = _check_value(identifier, name, kind, _READ[kind](reader, name))
        if identifier == SUBSCRIPTION_IDENTIFIER:
            if context is PropertyContext.SUBSCRIBE and name in values:
                raise protocol_error("a SUBSCRIBE has two subscription identifiers")
            _append(values, name, value, max_items)
        elif name in values:
            raise protocol_error(f"the property {name} comes twice")
        else:
            values[name] = value
    return values


def _append(values: dict[str, Any], name: str, value: object, max_items: int) -> None:
    items: list[object] = values.setdefault(name, [])
    if len(items) >= max_items:
        raise MqttProtocolError(ReasonCode.QUOTA_EXCEEDED, f"too many {name}", limit=max_items)
    items.append(value)


_AT_LEAST_ONE: Final = frozenset({0x0B, 0x21, 0x27})
_ZERO_OR_ONE: Final = frozenset({0x01, 0x24})


def _check_value(identifier: int, name: str, kind: _Kind, value: Any) -> Any:
    if kind is _Kind.BOOLEAN:
        if value > 1:
            raise protocol_error(f"the property {name} is {value} and not 0 or 1")
        return _bit(value)
    if identifier in _ZERO_OR_ONE and value > 1:
        raise protocol_error(f"the property {name} is {value} and not 0 or 1")
    if identifier in _AT_LEAST_ONE and value == 0:
        raise protocol_error(f"the property {name} is zero")
    if identifier == 0x23 and value == 0:
        raise MqttProtocolError(ReasonCode.TOPIC_ALIAS_INVALID, "the topic alias is zero")
    return value


_BY_NAME: Final = {name: (identifier, kind) for identifier, (name, kind) in FIELDS.items()}
#: name, identifier and writer of each field, in the order of the struct's fields
_ENCODE_ORDER: Final = tuple(
    (name, _BY_NAME[name][0], _WRITE[_BY_NAME[name][1]]) for name in Properties.__struct_fields__
)


def encode_properties(properties: Properties | None, context: PropertyContext) -> bytes:
    """The property length and the properties, in a fixed order (MQTT 5 §2.2.2).

    Raises:
        MqttEncodeError: a property that `context` does not have, or a value out of range.
    """
    if properties is None:
        return b"\x00"
    allowed = ALLOWED[context]
    out = bytearray()
    for value, (name, identifier, write) in zip(astuple(properties), _ENCODE_ORDER, strict=True):
        if value is None or value == []:
            continue
        if identifier not in allowed:
            raise MqttEncodeError(f"{context.value} has no property {name}")
        for item in value if isinstance(value, list) else (value,):
            out.append(identifier)
            out += write(item, name)
    return encode_varint(len(out)) + bytes(out)
