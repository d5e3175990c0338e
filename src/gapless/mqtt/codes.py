"""Numbers of the standards: packet types, protocol versions, reason codes and who may send them.

MQTT 5 §2.1.2 (packet types), §2.4 (reason codes), §3.1.2.2 (protocol version).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ProtocolVersion(IntEnum):
    """The protocol level byte of CONNECT (MQTT 5 §3.1.2.2) for the versions spoken here."""

    V311 = 4
    V5 = 5


class PacketType(IntEnum):
    """The upper four bits of the first byte (MQTT 5 §2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class ReasonCode(IntEnum):
    """Reason codes (MQTT 5 §2.4); 0x80 and above are failures.

    The value 0 has three names in the standard; `NORMAL_DISCONNECTION` and `GRANTED_QOS_0`
    are aliases of `SUCCESS`.
    """

    SUCCESS = 0x00
    NORMAL_DISCONNECTION = 0x00
    GRANTED_QOS_0 = 0x00
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL_MESSAGE = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    CONTINUE_AUTHENTICATION = 0x18
    REAUTHENTICATE = 0x19
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2

    @property
    def is_failure(self) -> bool:
        """Whether the code says that something failed (0x80 and above, MQTT 5 §2.4)."""
        return self >= 0x80


def _codes(*values: int) -> dict[int, ReasonCode]:
    return {value: ReasonCode(value) for value in values}


#: Codes that a PUBACK or a PUBREC may carry (MQTT 5 §3.4.2.1, §3.5.2.1).
PUBACK_CODES: Final = _codes(0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
#: Codes that a PUBREL or a PUBCOMP may carry (MQTT 5 §3.6.2.1, §3.7.2.1).
PUBREL_CODES: Final = _codes(0x00, 0x92)
#: Codes that a CONNACK may carry (MQTT 5 §3.2.2.2).
CONNACK_CODES: Final = _codes(
    *(0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A),
    *(0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F),
)
#: Codes that a SUBACK may carry (MQTT 5 §3.9.3).
SUBACK_CODES: Final = _codes(0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2)
#: Codes that a SUBACK may carry in 3.1.1 (§3.9.3).
SUBACK_CODES_311: Final = _codes(0x00, 0x01, 0x02, 0x80)
#: Codes that an UNSUBACK may carry (MQTT 5 §3.11.3).
UNSUBACK_CODES: Final = _codes(0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91)
#: Codes that a client's DISCONNECT may carry (MQTT 5 §3.14.2.1, column "Sent by").
CLIENT_DISCONNECT_CODES: Final = _codes(
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99
)
#: Codes that a server's DISCONNECT may carry (MQTT 5 §3.14.2.1, column "Sent by").
SERVER_DISCONNECT_CODES: Final = _codes(
    *(0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95),
    *(0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2),
)
#: Codes that a client's AUTH may carry (MQTT 5 §3.15.2.1).
CLIENT_AUTH_CODES: Final = _codes(0x18, 0x19)
#: Codes that a server's AUTH may carry (MQTT 5 §3.15.2.1).
SERVER_AUTH_CODES: Final = _codes(0x00, 0x18)

_RETURN_CODES_311: Final = {
    ReasonCode.SUCCESS: 0,
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: 1,
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: 2,
    ReasonCode.SERVER_UNAVAILABLE: 3,
    ReasonCode.SERVER_BUSY: 3,
    ReasonCode.QUOTA_EXCEEDED: 3,
    ReasonCode.CONNECTION_RATE_EXCEEDED: 3,
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: 4,
    ReasonCode.NOT_AUTHORIZED: 5,
    ReasonCode.BANNED: 5,
    ReasonCode.BAD_AUTHENTICATION_METHOD: 5,
}

#: What a 3.1.1 CONNACK return code means in the words of MQTT 5 (3.1.1 §3.2.2.3).
REASON_OF_RETURN_CODE_311: Final = {
    0: ReasonCode.SUCCESS,
    1: ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    2: ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
    3: ReasonCode.SERVER_UNAVAILABLE,
    4: ReasonCode.BAD_USER_NAME_OR_PASSWORD,
    5: ReasonCode.NOT_AUTHORIZED,
}


def connect_return_code(reason: ReasonCode) -> int | None:
    """The 3.1.1 CONNACK return code (0 to 5) that says `reason` (3.1.1 §3.2.2.3).

    Returns:
        The return code, or None where none of the six is applicable: a 3.1.1 server then
        closes the connection without a CONNACK [3.1.1:MQTT-3.2.2-6].
    """
    return _RETURN_CODES_311.get(reason)
