"""One encoding of a PUBLISH for every subscriber.

At QoS 0 the bytes are the same for everyone; at QoS 1 and 2 they differ in the two bytes of the
packet identifier. So a message is encoded once per version and set of properties, and each
subscriber costs one `bytes.join`.
"""

from __future__ import annotations

from typing import Final

from gapless.mqtt.codes import ProtocolVersion
from gapless.mqtt.encoder import publish_first_byte
from gapless.mqtt.errors import MqttEncodeError
from gapless.mqtt.properties import Properties, PropertyContext, encode_properties
from gapless.mqtt.wire import MAX_VARINT, encode_string, encode_varint, varint_size

_NO_PROPERTIES: Final = b"\x00"


class PublishTemplate:
    """A PUBLISH (§3.3) in which only QoS, DUP and packet identifier are open.

    Encodings are made at first use and kept, so a template is meant to be shared by all
    subscribers of one message. What needs other bytes is another template, which the caller keeps
    by what distinguishes it: version, retain flag, subscription identifiers, topic alias.

    Args:
        topic: the topic name; may be empty with a topic alias.
        payload: kept by reference until the first encoding.
        version: the subscribers' protocol version.
        retain: the RETAIN flag.
        properties: MQTT 5 properties; ignored for 3.1.1.

    Raises:
        MqttEncodeError: topic or properties cannot be encoded, or the packet would be over
            268,435,455 bytes.
    """

    __slots__ = ("_heads", "_qos0", "_retain", "_size", "_sizes", "_tail", "_topic", "version")

    def __init__(
        self,
        topic: str,
        payload: bytes,
        *,
        version: ProtocolVersion,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        self.version = version
        self._retain = retain
        self._topic = encode_string(topic, "the topic name")
        self._tail = payload
        if version is ProtocolVersion.V5:
            encoded = (
                _NO_PROPERTIES
                if properties is None
                else encode_properties(properties, PropertyContext.PUBLISH_BY_SERVER)
            )
            self._tail = encoded + payload
        self._size = len(self._topic) + len(self._tail)
        if self._size + 2 > MAX_VARINT:
            raise MqttEncodeError("the packet is too large", size=self._size + 2, limit=MAX_VARINT)
        size = self._size
        self._sizes = (1 + varint_size(size) + size, 3 + varint_size(size + 2) + size)
        self._qos0: bytes | None = None
        self._heads: dict[tuple[int, bool], bytes] = {}

    def size(self, qos: int) -> int:
        """The size in bytes of the whole packet at this QoS, for maximum packet size checks.

        Costs no encoding.
        """
        return self._sizes[qos > 0]

    def qos0(self) -> bytes:
        """The finished packet at QoS 0; the same object at every call."""
        encoded = self._qos0
        if encoded is None:
            first = publish_first_byte(0, retain=self._retain)
            head = bytes((first,)) + encode_varint(self._size)
            encoded = self._qos0 = b"".join((head, self._topic, self._tail))
        return encoded

    def parts(self, qos: int, *, dup: bool = False) -> tuple[bytes, bytes]:
        """What comes before and after the two bytes of the packet identifier at QoS 1 or 2.

        Raises:
            MqttEncodeError: `qos` is neither 1 nor 2.
        """
        return self._head(qos, dup=dup), self._tail

    def with_packet_id(self, qos: int, packet_id: int, dup: bool = False) -> bytes:
        """The packet at QoS 1 or 2 with this packet identifier (1 to 65,535).

        Raises:
            MqttEncodeError: `qos` is neither 1 nor 2, or `packet_id` is out of range.
        """
        if not 0 < packet_id < 0x10000:
            raise MqttEncodeError("the packet identifier is out of range", value=packet_id, limit=0xFFFF)
        head = self._heads.get((qos, dup)) or self._head(qos, dup=dup)
        return b"".join((head, packet_id.to_bytes(2, "big"), self._tail))

    def _head(self, qos: int, *, dup: bool) -> bytes:
        if qos not in (1, 2):
            raise MqttEncodeError("only QoS 1 and 2 have a packet identifier", value=qos)
        key = (qos, dup)
        head = self._heads.get(key)
        if head is None:
            first = publish_first_byte(qos, retain=self._retain, dup=dup)
            head = self._heads[key] = bytes((first,)) + encode_varint(self._size + 2) + self._topic
        return head
