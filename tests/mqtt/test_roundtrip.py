"""Properties over all packets: round trips, any chunking, garbage and damage."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.mqtt import Decoder, MqttProtocolError, Packet, ProtocolVersion, encode
from tests.mqtt.raw import connected
from tests.mqtt.strategies import conversations, repeatable

Role = Literal["server", "client"]
ROLES: tuple[Role, ...] = ("server", "client")
SIDES = pytest.mark.parametrize(("version", "role"), [(version, role) for version in ProtocolVersion for role in ROLES])


def _bytes(packets: list[Packet], version: ProtocolVersion) -> bytes:
    return b"".join(encode(packet, version) for packet in packets)


def _decoder(version: ProtocolVersion, role: Role, *, max_packet_size: int = 1 << 20) -> Decoder:
    return Decoder(role, version=None if role == "server" else version, max_packet_size=max_packet_size)


@SIDES
@repeatable
@given(data=st.data())
def test_what_is_encoded_decodes_to_the_same(version: ProtocolVersion, role: Role, data: st.DataObject) -> None:
    packets = data.draw(conversations(version, role))
    decoder = _decoder(version, role)
    assert decoder.feed(_bytes(packets, version)) == packets
    assert decoder.version is version
    assert decoder.buffered == 0


@SIDES
@repeatable
@given(data=st.data())
def test_any_chunking_gives_the_same_packets(version: ProtocolVersion, role: Role, data: st.DataObject) -> None:
    """3.1.1:MQTT-6.0.0-2 and 5:MQTT-6.0.0-2 ask for it of WebSocket frames; TCP does the same."""
    packets = data.draw(conversations(version, role))
    raw = _bytes(packets, version)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=20)))
    decoder = _decoder(version, role)
    got: list[Packet] = []
    for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        got += decoder.feed(raw[start:stop])
    assert got == packets
    assert decoder.buffered == 0


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-6.0.0-2", "5:MQTT-6.0.0-2"])
@repeatable
@given(data=st.data())
def test_byte_by_byte(statement: str, data: st.DataObject) -> None:
    version = ProtocolVersion.V5 if statement.startswith("5:") else ProtocolVersion.V311
    packets = data.draw(conversations(version, "server"))
    decoder = Decoder()
    got = [packet for byte in _bytes(packets, version) for packet in decoder.feed(bytes((byte,)))]
    assert got == packets


def _outcome(decoder: Decoder, chunks: list[bytes]) -> tuple[list[Packet], Any]:
    got: list[Packet] = []
    for chunk in chunks:
        try:
            got += decoder.feed(chunk)
        except MqttProtocolError as error:
            return got + error.packets_before, (error.reason_code, error.message, error.answer)
    return got, None


@SIDES
@repeatable
@given(data=st.data())
def test_damaged_streams_raise_only_protocol_errors(version: ProtocolVersion, role: Role, data: st.DataObject) -> None:
    raw = bytearray(_bytes(data.draw(conversations(version, role)), version))
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                raw[index] = data.draw(st.integers(0, 255))
            case 1:
                raw[index:index] = data.draw(st.binary(max_size=4))
            case _:
                del raw[index : index + data.draw(st.integers(1, 4))]
                raw += b"\x00"
    decoder = _decoder(version, role, max_packet_size=2_000)
    packets, _ = _outcome(decoder, [bytes(raw)])
    assert len(packets) <= len(raw) // 2
    assert decoder.buffered <= len(raw)


@SIDES
@repeatable
@given(garbage=st.binary(max_size=200), first=st.integers(0, 255))
def test_garbage_raises_only_protocol_errors_and_buffers_little(
    version: ProtocolVersion, role: Role, garbage: bytes, first: int
) -> None:
    decoder = Decoder(role, version=version, expect_handshake=False, max_packet_size=64)
    _outcome(decoder, [bytes((first,)) + garbage])
    assert decoder.buffered <= 64


@SIDES
@repeatable
@given(data=st.data(), garbage=st.binary(min_size=1, max_size=60))
def test_chunking_changes_neither_packets_nor_violation(
    version: ProtocolVersion, role: Role, data: st.DataObject, garbage: bytes
) -> None:
    packets = data.draw(conversations(version, role))
    raw = _bytes(packets, version) + garbage
    whole = _outcome(_decoder(version, role), [raw])
    bytewise = _outcome(_decoder(version, role), [raw[i : i + 1] for i in range(len(raw))])
    assert bytewise[0] == whole[0]
    if bytewise[1] is None or whole[1] is None:
        assert bytewise[1] == whole[1]
    else:  # a packet with several faults may be refused for another one at its header
        assert (bytewise[1][2] == b"") == (whole[1][2] == b"")


@SIDES
def test_a_failed_decoder_stays_failed(version: ProtocolVersion, role: Role) -> None:
    decoder = connected(version, role)
    with pytest.raises(MqttProtocolError) as first:
        decoder.feed(b"\x00\x00")
    with pytest.raises(MqttProtocolError) as second:
        decoder.feed(b"\xe0\x00")
    assert second.value.reason_code is first.value.reason_code
    assert (second.value.packets_before, second.value.answer) == ([], b"")
