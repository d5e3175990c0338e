"""Integers and strings on the wire, with the standard's own examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.mqtt import MqttEncodeError, MqttProtocolError, ReasonCode
from gapless.mqtt.wire import (
    MAX_VARINT,
    Reader,
    encode_binary,
    encode_packet_id,
    encode_string,
    encode_u16,
    encode_u32,
    encode_varint,
    varint_size,
)
from tests.mqtt.strategies import repeatable

VARINTS = [  # MQTT 5 §1.5.5, table 1-1
    (0, "00"),
    (127, "7f"),
    (128, "8001"),
    (16_383, "ff7f"),
    (16_384, "808001"),
    (2_097_151, "ffff7f"),
    (2_097_152, "80808001"),
    (268_435_455, "ffffff7f"),
]


def _reader(raw: bytes) -> Reader:
    return Reader(raw, 0, len(raw))


@pytest.mark.parametrize(("value", "raw"), VARINTS)
def test_variable_byte_integers_of_the_standard(value: int, raw: str) -> None:
    assert encode_varint(value).hex() == raw
    assert varint_size(value) == len(raw) // 2
    assert _reader(bytes.fromhex(raw)).varint("it") == value


@repeatable
@given(st.integers(0, MAX_VARINT))
def test_variable_byte_integers_round_trip(value: int) -> None:
    raw = encode_varint(value)
    assert _reader(raw).varint("it") == value
    assert varint_size(value) == len(raw)


@pytest.mark.parametrize("value", [-1, MAX_VARINT + 1])
def test_variable_byte_integers_have_bounds(value: int) -> None:
    with pytest.raises(MqttEncodeError):
        encode_varint(value)


@pytest.mark.parametrize("raw", [b"\x80\x00", b"\xff\xff\xff\xff\x01", b"\x80", b""])
def test_wrong_variable_byte_integers_are_malformed(raw: bytes) -> None:
    with pytest.raises(MqttProtocolError) as caught:
        _reader(raw).varint("it")
    assert caught.value.reason_code is ReasonCode.MALFORMED_PACKET


def test_the_string_of_the_standard() -> None:
    """MQTT 5 §1.5.4, figure 1-2: an A and U+2A6D4."""
    raw = bytes.fromhex("000541f0aa9b94")
    assert encode_string("A\U0002a6d4", "it") == raw
    assert _reader(raw).string("it") == "A\U0002a6d4"


@pytest.mark.parametrize("value", ["x" * 65_536, "\ud800", "a\0"])
def test_strings_that_cannot_be_said(value: str) -> None:
    with pytest.raises(MqttEncodeError):
        encode_string(value, "it")


def test_binary_data_is_bounded() -> None:
    assert encode_binary(b"\0\xff", "it") == b"\x00\x02\x00\xff"
    with pytest.raises(MqttEncodeError):
        encode_binary(bytes(65_536), "it")


def test_integers_are_bounded() -> None:
    assert encode_u16(65_535, "it") + encode_u32(1, "it") == b"\xff\xff\x00\x00\x00\x01"
    for value in (-1, 65_536):
        with pytest.raises(MqttEncodeError):
            encode_u16(value, "it")
    with pytest.raises(MqttEncodeError):
        encode_u32(1 << 32, "it")


@pytest.mark.parametrize("value", [0, -1, 65_536])
def test_packet_identifiers_are_bounded(value: int) -> None:
    with pytest.raises(MqttEncodeError):
        encode_packet_id(value)


def test_a_reader_never_reads_past_its_end() -> None:
    reader = Reader(b"\x00\x03abcdef", 0, 4)
    with pytest.raises(MqttProtocolError):
        reader.string("it")
    assert Reader(b"\x01\x02", 0, 1).u8("it") == 1
    with pytest.raises(MqttProtocolError):
        Reader(b"\x01\x02", 0, 1).u16("it")
    with pytest.raises(MqttProtocolError):
        Reader(b"\x01\x02\x03\x04", 0, 3).u32("it")


def test_left_over_bytes_are_malformed() -> None:
    reader = _reader(b"\x01\x02")
    reader.u8("it")
    assert reader.more()
    with pytest.raises(MqttProtocolError) as caught:
        reader.finish("it")
    assert caught.value.reason_code is ReasonCode.MALFORMED_PACKET
