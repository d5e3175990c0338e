"""The data representations of MQTT (MQTT 5 §1.5): integers, strings, binary data.

`Reader` reads the packets that are rare; PUBLISH and the acknowledgements are read by hand in
`decoder`, because they are most of the traffic.
"""

from __future__ import annotations

from typing import Final

from gapless.mqtt.codes import ReasonCode
from gapless.mqtt.errors import MqttEncodeError, MqttProtocolError

#: The largest variable byte integer, and so the largest remaining length (MQTT 5 §1.5.5).
MAX_VARINT: Final = 268_435_455
#: The longest string or binary value in bytes (MQTT 5 §1.5.4, §1.5.6).
MAX_STRING_BYTES: Final = 65_535


def malformed(message: str) -> MqttProtocolError:
    """An error that says that the packet cannot be parsed (0x81, MQTT 5 §1.2)."""
    return MqttProtocolError(ReasonCode.MALFORMED_PACKET, message)


def protocol_error(message: str) -> MqttProtocolError:
    """An error that says that a packet or value is not allowed here (0x82, MQTT 5 §1.2)."""
    return MqttProtocolError(ReasonCode.PROTOCOL_ERROR, message)


def decode_utf8(raw: bytes, what: str) -> str:
    """The text of a UTF-8 encoded string, a byte order mark kept as it is (MQTT 5 §1.5.4).

    Raises:
        MqttProtocolError: 0x81 on ill-formed UTF-8 (surrogates and overlong forms among it)
            or on U+0000.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise malformed(f"{what} is not well-formed UTF-8") from error
    if "\0" in text:
        raise malformed(f"{what} contains U+0000")
    return text


class Reader:
    """Reads values from `data[pos:end]` one after another; never past `end`.

    Every method raises `MqttProtocolError` (0x81) where the packet ends too early; `what` names
    the field in the error.
    """

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: bytes, pos: int, end: int) -> None:
        self.data = data
        self.pos = pos
        self.end = end

    def _advance(self, size: int, what: str) -> int:
        pos = self.pos
        if size > self.end - pos:
            raise malformed(f"the packet ends inside {what}")
        self.pos = pos + size
        return pos

    def u8(self, what: str) -> int:
        """One byte."""
        return self.data[self._advance(1, what)]

    def u16(self, what: str) -> int:
        """Two byte integer, big-endian (MQTT 5 §1.5.2)."""
        pos = self._advance(2, what)
        return self.data[pos] << 8 | self.data[pos + 1]

    def u32(self, what: str) -> int:
        """Four byte integer, big-endian (MQTT 5 §1.5.3)."""
        pos = self._advance(4, what)
        return int.from_bytes(self.data[pos : pos + 4], "big")

    def varint(self, what: str) -> int:
        """Variable byte integer, which must be in its shortest form (MQTT 5 §1.5.5)."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.u8(what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise malformed(f"{what} is not in its shortest form")
                return value
        raise malformed(f"{what} is longer than four bytes")

    def binary(self, what: str) -> bytes:
        """Binary data with a two byte length (MQTT 5 §1.5.6)."""
        size = self.u16(what)
        pos = self._advance(size, what)
        return self.data[pos : pos + size]

    def string(self, what: str) -> str:
        """UTF-8 encoded string with a two byte length (MQTT 5 §1.5.4)."""
        return decode_utf8(self.binary(what), what)

    def packet_id(self) -> int:
        """A packet identifier, which is never zero [MQTT-2.2.1-3]."""
        value = self.u16("the packet identifier")
        if value == 0:
            raise protocol_error("the packet identifier is zero")
        return value

    def more(self) -> bool:
        """Whether bytes are left."""
        return self.pos < self.end

    def finish(self, what: str) -> None:
        """Raises 0x81 where bytes are left over after the last field."""
        if self.pos != self.end:
            raise malformed(f"{self.end - self.pos} bytes too many at the end of {what}")


def encode_varint(value: int) -> bytes:
    """A variable byte integer in its shortest form (MQTT 5 §1.5.5).

    Raises:
        MqttEncodeError: `value` is negative or over 268,435,455.
    """
    if 0 <= value < 0x80:
        return bytes((value,))
    if not 0 <= value <= MAX_VARINT:
        raise MqttEncodeError("a variable byte integer is out of range", value=value, limit=MAX_VARINT)
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_size(value: int) -> int:
    """How many bytes `encode_varint` would give, 1 to 4."""
    return 1 if value < 0x80 else 2 if value < 0x4000 else 3 if value < 0x20_0000 else 4


def encode_u16(value: int, what: str) -> bytes:
    """A two byte integer; `MqttEncodeError` out of range."""
    return _encode_int(value, 2, what)


def encode_u32(value: int, what: str) -> bytes:
    """A four byte integer; `MqttEncodeError` out of range."""
    return _encode_int(value, 4, what)


def encode_packet_id(value: int) -> bytes:
    """A packet identifier, 1 to 65,535; `MqttEncodeError` out of range."""
    if not 0 < value <= 0xFFFF:
        raise MqttEncodeError("the packet identifier is out of range", value=value, limit=0xFFFF)
    return value.to_bytes(2, "big")


def _encode_int(value: int, size: int, what: str) -> bytes:
    try:
        return value.to_bytes(size, "big")
    except OverflowError as error:
        raise MqttEncodeError(f"{what} is out of range", value=value, limit=(1 << 8 * size) - 1) from error


def encode_binary(value: bytes, what: str) -> bytes:
    """Binary data with its two byte length; `MqttEncodeError` over 65,535 bytes."""
    if len(value) > MAX_STRING_BYTES:
        raise MqttEncodeError(f"{what} is too long", size=len(value), limit=MAX_STRING_BYTES)
    return len(value).to_bytes(2, "big") + value


def encode_string(value: str, what: str) -> bytes:
    """A UTF-8 encoded string with its two byte length.

    Raises:
        MqttEncodeError: over 65,535 bytes, a surrogate, or U+0000.
    """
    try:
        raw = value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MqttEncodeError(f"{what} contains a surrogate") from error
    if b"\0" in raw:
        raise MqttEncodeError(f"{what} contains U+0000")
    size = len(raw)
    if size > MAX_STRING_BYTES:
        raise MqttEncodeError(f"{what} is too long", size=size, limit=MAX_STRING_BYTES)
    return size.to_bytes(2, "big") + raw
