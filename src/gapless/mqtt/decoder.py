"""From a byte stream to packets: framing, the order of packets, and the fast paths.

Sans-I/O: bytes in, packets out. PUBLISH and the four acknowledgements are decoded in place,
because they are nearly all of the traffic; the rest goes through `decoding`.
"""

from __future__ import annotations

from typing import Final, Literal

from gapless.mqtt import codes
from gapless.mqtt.codes import PacketType, ProtocolVersion, ReasonCode
from gapless.mqtt.decoding import (
    TopicLimits,
    check_message_properties,
    decode_auth,
    decode_connack,
    decode_connect,
    decode_disconnect,
    decode_suback,
    decode_subscribe,
    decode_unsuback,
    decode_unsubscribe,
    reason_code,
)
from gapless.mqtt.encoder import encode_error_answer
from gapless.mqtt.errors import MqttProtocolError
from gapless.mqtt.filters import MAX_TOPIC_BYTES, MAX_TOPIC_LEVELS
from gapless.mqtt.packets import (
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
)
from gapless.mqtt.properties import PropertyContext, decode_properties
from gapless.mqtt.wire import Reader, malformed, protocol_error, varint_size

#: Default bound in bytes on one packet, its fixed header included.
DEFAULT_MAX_PACKET_SIZE: Final = 1 << 20
#: Default bound on filters in one SUBSCRIBE and on user properties in one packet: each costs a
#: hundred bytes of memory and as few as four or five on the wire.
DEFAULT_MAX_LIST_ITEMS: Final = 10_000

_V5: Final = ProtocolVersion.V5
_SUCCESS: Final = ReasonCode.SUCCESS

_Ack = type[Puback] | type[Pubrec] | type[Pubrel] | type[Pubcomp]
#: the first byte of an acknowledgement, its flags right, -> its struct
_ACKS: Final[dict[int, _Ack]] = {0x40: Puback, 0x50: Pubrec, 0x62: Pubrel, 0x70: Pubcomp}
_ACK_CODES: Final = {
    Puback: (codes.PUBACK_CODES, PropertyContext.PUBACK),
    Pubrec: (codes.PUBACK_CODES, PropertyContext.PUBREC),
    Pubrel: (codes.PUBREL_CODES, PropertyContext.PUBREL),
    Pubcomp: (codes.PUBREL_CODES, PropertyContext.PUBCOMP),
}
#: packet types whose reserved flags are 0b0010; all others but PUBLISH have 0b0000 (§2.1.3)
_FLAGS_0010: Final = frozenset({PacketType.PUBREL, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE})

_BOTH_WAYS: Final = {
    PacketType.PUBLISH,
    PacketType.PUBACK,
    PacketType.PUBREC,
    PacketType.PUBREL,
    PacketType.PUBCOMP,
    PacketType.DISCONNECT,
    PacketType.AUTH,
}
#: role of the receiver -> packet types that it may get (MQTT 5 §2.1.2, table 2-1)
_RECEIVES: Final = {
    "server": frozenset(
        _BOTH_WAYS | {PacketType.CONNECT, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE, PacketType.PINGREQ}
    ),
    "client": frozenset(_BOTH_WAYS | {PacketType.CONNACK, PacketType.SUBACK, PacketType.UNSUBACK, PacketType.PINGRESP}),
}


class Decoder:
    """Turns the bytes of one connection into packets, strictly by the standard.

    Any chunking of the stream gives the same packets. At most one incomplete packet is kept, of
    at most `max_packet_size` bytes; a larger one is refused at its header.

    Args:
        role: who is listening: a "server" decodes what a client sends, and the reverse.
        version: the protocol version; a server learns it from CONNECT, a client must give it.
        max_packet_size: bytes, fixed header included; over it is 0x95.
        max_topic_levels: levels of a topic or filter; over it is 0x90 or 0x8F.
        max_topic_bytes: bytes of a topic or filter; over it is 0x90 or 0x8F.
        max_list_items: filters or user properties in one packet; over it is 0x97.
        expect_handshake: whether the first packet must be CONNECT (for a client CONNACK, or
            AUTH); False, with a version, for a stream whose beginning was read elsewhere.

    Attributes:
        version: None until a server has seen CONNECT.
    """

    __slots__ = (
        "_by_client",
        "_failure",
        "_limits",
        "_max_size",
        "_needed",
        "_pending",
        "_publish_context",
        "_ready",
        "_receives",
        "version",
    )

    def __init__(
        self,
        role: Literal["server", "client"] = "server",
        *,
        version: ProtocolVersion | None = None,
        max_packet_size: int = DEFAULT_MAX_PACKET_SIZE,
        max_topic_levels: int = MAX_TOPIC_LEVELS,
        max_topic_bytes: int = MAX_TOPIC_BYTES,
        max_list_items: int = DEFAULT_MAX_LIST_ITEMS,
        expect_handshake: bool = True,
    ) -> None:
        if version is None and (role == "client" or not expect_handshake):
            raise ValueError("a protocol version is needed where no CONNECT tells it")
        self.version = version
        self._by_client = role == "server"
        self._receives = _RECEIVES[role]
        self._publish_context = (
            PropertyContext.PUBLISH_BY_CLIENT if self._by_client else PropertyContext.PUBLISH_BY_SERVER
        )
        self._limits = TopicLimits(max_levels=max_topic_levels, max_bytes=max_topic_bytes, max_items=max_list_items)
        self._max_size = max_packet_size
        self._ready = not expect_handshake
        self._pending = bytearray()
        self._needed = 0
        self._failure: MqttProtocolError | None = None

    @property
    def buffered(self) -> int:
        """Bytes of the incomplete packet that are kept."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[Packet]:
        """Takes the next bytes and gives the packets that they complete, in order.

        Raises:
            MqttProtocolError: on the first violation. The packets before it in `data` are in
                its `packets_before`, what to send before closing in its `answer`. Nothing after
                it is read: from then on every call raises the same violation again, with
                neither packets nor an answer.
        """
        if self._failure is not None:
            raise self._again(self._failure)
        pending = self._pending
        if pending:
            pending += data
            if len(pending) < self._needed:
                return []
            data = bytes(pending)
            pending.clear()
        packets: list[Packet] = []
        try:
            consumed = self._decode(data, packets)
        except MqttProtocolError as error:
            self._fail(error, packets)
            raise
        if consumed < len(data):
            pending += data[consumed:] if consumed else data
        return packets

    def _fail(self, error: MqttProtocolError, packets: list[Packet]) -> None:
        error.packets_before = packets
        if error.version is None:
            error.version = self.version
        error.answer = encode_error_answer(error, by_server=self._by_client, connected=self._ready)
        self._failure = error

    def _again(self, failure: MqttProtocolError) -> MqttProtocolError:
        error = MqttProtocolError(failure.reason_code, failure.message, hint=failure.hint, **failure.details)
        error.version = failure.version
        return error

    def _decode(self, data: bytes, packets: list[Packet]) -> int:
        """Decodes whole packets into `packets`; returns how many bytes they took."""
        pos = 0
        end = len(data)
        while True:
            if end - pos < 2:
                self._needed = 2
                return pos
            first = data[pos]
            size = data[pos + 1]
            start = pos + 2
            if size > 0x7F and start < end and 0 < (second := data[start]) <= 0x7F:  # two bytes, as of most
                size = size & 0x7F | second << 7
                start += 1
            elif size > 0x7F:
                size, start = self._remaining_length(data, pos + 1, end)
                if size < 0:
                    self._check_header(first)
                    self._needed = end - pos + 1
                    return pos
            stop = start + size
            if stop > end or stop - pos > self._max_size:
                self._check_header(first)
                self._check_size(stop - pos)
                self._needed = stop - pos
                return pos
            if first & 0xF0 == 0x30 and self._ready:
                packets.append(self._publish(data, first, start, stop))
            elif (ack := _ACKS.get(first)) is not None and self._ready:
                if size == 2:
                    packet_id = data[start] << 8 | data[start + 1]
                    if not packet_id:
                        raise protocol_error("the packet identifier is zero")
                    packets.append(ack(packet_id, _SUCCESS, None))
                else:
                    packets.append(self._ack(ack, Reader(data, start, stop)))
            else:
                self._check_header(first)
                packets.append(self._rare(first >> 4, Reader(data, start, stop), start - pos - 1))
            pos = stop

    def _remaining_length(self, data: bytes, pos: int, end: int) -> tuple[int, int]:
        """The remaining length at `pos` and where it ends; (-1, 0) where bytes are missing (§2.1.4)."""
        value = 0
        for index in range(4):
            if pos + index >= end:
                return -1, 0
            byte = data[pos + index]
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if byte == 0 and index and self.version is _V5:
                    raise malformed("the remaining length is not in its shortest form")
                return value, pos + index + 1
        raise malformed("the remaining length is longer than four bytes")

    def _check_size(self, size: int) -> None:
        if size > self._max_size:
            raise MqttProtocolError(
                ReasonCode.PACKET_TOO_LARGE, "the packet is too large", size=size, limit=self._max_size
            )

    def _check_header(self, first: int) -> None:
        """Checks the first byte: a type that may come now, with the right flags (§2.1.2, §2.1.3)."""
        kind = first >> 4
        if kind == 0 or (kind == PacketType.AUTH and self.version is not _V5 and self._ready):
            raise malformed(f"packet type {kind} is reserved")
        if not self._ready:
            self._check_first(kind)
        elif kind == PacketType.CONNECT or kind == PacketType.CONNACK:
            raise protocol_error(f"a second {PacketType(kind).name}")
        if kind not in self._receives:
            raise protocol_error(f"{PacketType(kind).name} goes the other way")
        flags = first & 0x0F
        if kind != PacketType.PUBLISH and flags != (2 if kind in _FLAGS_0010 else 0):
            raise malformed(f"the flags of {PacketType(kind).name} are {flags:04b}")

    def _check_first(self, kind: int) -> None:
        if self._by_client:
            if kind != PacketType.CONNECT:
                raise protocol_error("the first packet is not CONNECT")
        elif kind != PacketType.CONNACK and not (kind == PacketType.AUTH and self.version is _V5):
            raise protocol_error("the first packet is not CONNACK")

    def _publish(self, data: bytes, first: int, start: int, stop: int) -> Publish:
        """PUBLISH (§3.3), hand-tuned."""
        topic_start = start + 2
        if topic_start > stop:
            raise malformed("the packet ends inside the topic name")
        pos = topic_start + (data[start] << 8 | data[start + 1])
        if pos > stop:
            raise malformed("the packet ends inside the topic name")
        try:
            topic = data[topic_start:pos].decode()
        except UnicodeDecodeError as error:
            raise malformed("the topic name is not well-formed UTF-8") from error
        limits = self._limits
        if (
            "+" in topic
            or "#" in topic
            or "\0" in topic
            or not topic
            or pos - topic_start > limits.max_bytes
            or topic.count("/") >= limits.max_levels
        ):
            self._check_publish_topic(topic)
        packet_id = 0
        qos = first >> 1 & 3
        if qos:
            if qos == 3:
                raise malformed("a PUBLISH has QoS 3")
            if pos + 2 > stop:
                raise malformed("the packet ends inside the packet identifier")
            packet_id = data[pos] << 8 | data[pos + 1]
            if not packet_id:
                raise protocol_error("the packet identifier is zero")
            pos += 2
        elif first & 8:
            raise malformed("a PUBLISH with QoS 0 has DUP set")
        properties = None
        if self.version is _V5:
            if pos < stop and not data[pos]:
                pos += 1  # no properties
            else:
                reader = Reader(data, pos, stop)
                properties = decode_properties(reader, self._publish_context, max_items=limits.max_items)
                check_message_properties(properties, limits)
                pos = reader.pos
            if not topic and (properties is None or properties.topic_alias is None):
                raise protocol_error("a PUBLISH with neither a topic name nor a topic alias")
        return Publish(topic, data[pos:stop], qos, first & 1 == 1, first & 8 == 8, packet_id, properties)

    def _check_publish_topic(self, topic: str) -> None:
        """Raises for what is wrong with the topic; an empty one may have an alias in MQTT 5."""
        if "\0" in topic:
            raise malformed("the topic name contains U+0000")
        if topic or self.version is not _V5:
            self._limits.check_topic(topic)

    def _ack(self, ack: _Ack, reader: Reader) -> Packet:
        """An acknowledgement that is more than its packet identifier (MQTT 5 §3.4 to §3.7)."""
        packet_id = reader.packet_id()
        if self.version is not _V5:
            reader.finish(ack.__name__.upper())
        allowed, context = _ACK_CODES[ack]
        code = reason_code(reader.u8("the reason code"), allowed, ack.__name__.upper())
        properties = None
        if reader.more():
            properties = decode_properties(reader, context, max_items=self._limits.max_items)
        reader.finish(ack.__name__.upper())
        return ack(packet_id, code, properties)

    def _rare(self, kind: int, reader: Reader, length_bytes: int) -> Packet:
        """Any packet whose header was checked, but PUBLISH and the acknowledgements."""
        if kind == PacketType.CONNECT:
            return self._connect(reader, length_bytes)
        version = self.version
        assert version is not None  # only CONNECT may come without one
        limits = self._limits
        match PacketType(kind):
            case PacketType.CONNACK:
                connack = decode_connack(reader, version, limits)
                self._ready = True
                return connack
            case PacketType.SUBSCRIBE:
                return decode_subscribe(reader, version, limits)
            case PacketType.SUBACK:
                return decode_suback(reader, version, limits)
            case PacketType.UNSUBSCRIBE:
                return decode_unsubscribe(reader, version, limits)
            case PacketType.UNSUBACK:
                return decode_unsuback(reader, version, limits)
            case PacketType.PINGREQ:
                reader.finish("PINGREQ")
                return Pingreq()
            case PacketType.PINGRESP:
                reader.finish("PINGRESP")
                return Pingresp()
            case PacketType.DISCONNECT:
                return decode_disconnect(reader, version, limits, by_client=self._by_client)
            case PacketType.AUTH:
                return decode_auth(reader, limits, by_client=self._by_client)
            case other:
                raise AssertionError(f"{other.name} has its own path")

    def _connect(self, reader: Reader, length_bytes: int) -> Packet:
        size = reader.end - reader.pos
        connect = decode_connect(reader, self._limits)
        self.version = connect.version
        if connect.version is _V5 and length_bytes != varint_size(size):
            raise malformed("the remaining length is not in its shortest form")
        self._ready = True
        return connect
