"""MQTT 3.1.1 and 5 without I/O: packets to and from bytes, topic filters.

    decoder = Decoder(max_packet_size=262_144)
    for packet in decoder.feed(data):
        ...
    transport.write(encode(Puback(packet.packet_id), decoder.version))

Nothing here imports asyncio or opens anything.
"""

from gapless.mqtt.codes import PacketType, ProtocolVersion, ReasonCode, connect_return_code
from gapless.mqtt.decoder import DEFAULT_MAX_LIST_ITEMS, DEFAULT_MAX_PACKET_SIZE, Decoder
from gapless.mqtt.encoder import encode, encode_publish
from gapless.mqtt.errors import MqttEncodeError, MqttProtocolError
from gapless.mqtt.filters import (
    MAX_TOPIC_BYTES,
    MAX_TOPIC_LEVELS,
    FilterTree,
    covers,
    matches,
    parse_shared,
    validate_filter,
    validate_topic,
)
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
    Will,
)
from gapless.mqtt.properties import Properties
from gapless.mqtt.rooms import ROOM_PREFIX, check_room_filter, is_room_filter, room_filter, room_of
from gapless.mqtt.template import PublishTemplate

__all__ = [
    "DEFAULT_MAX_LIST_ITEMS",
    "DEFAULT_MAX_PACKET_SIZE",
    "MAX_TOPIC_BYTES",
    "MAX_TOPIC_LEVELS",
    "ROOM_PREFIX",
    "Auth",
    "Connack",
    "Connect",
    "Decoder",
    "Disconnect",
    "FilterTree",
    "MqttEncodeError",
    "MqttProtocolError",
    "Packet",
    "PacketType",
    "Pingreq",
    "Pingresp",
    "Properties",
    "ProtocolVersion",
    "Puback",
    "Pubcomp",
    "Publish",
    "PublishTemplate",
    "Pubrec",
    "Pubrel",
    "ReasonCode",
    "Suback",
    "Subscribe",
    "SubscriptionRequest",
    "Unsuback",
    "Unsubscribe",
    "Will",
    "check_room_filter",
    "connect_return_code",
    "covers",
    "encode",
    "encode_publish",
    "is_room_filter",
    "matches",
    "parse_shared",
    "room_filter",
    "room_of",
    "validate_filter",
    "validate_topic",
]
