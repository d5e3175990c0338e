"""The decoder's own business: framing, limits, buffering, what it answers."""

from __future__ import annotations

import pytest

from gapless.mqtt import (
    Connack,
    Connect,
    Decoder,
    Disconnect,
    Pingreq,
    ProtocolVersion,
    Puback,
    Publish,
    ReasonCode,
    Subscribe,
    encode,
)
from tests.mqtt.raw import V5, V311, accept, connect, connected, publish, refuse_by, subscribe, unsubscribe


def test_the_version_comes_from_connect() -> None:
    for version in (V311, V5):
        decoder = Decoder()
        before = decoder.version
        (packet,) = decoder.feed(connect(version))
        assert before is None
        assert isinstance(packet, Connect)
        assert (decoder.version, packet.version) == (version, version)


def test_a_version_is_needed_where_no_connect_tells_it() -> None:
    with pytest.raises(ValueError, match="version"):
        Decoder("client")
    with pytest.raises(ValueError, match="version"):
        Decoder(expect_handshake=False)


def test_packets_may_follow_connect_at_once() -> None:
    assert Decoder().feed(connect(V311) + publish(V311) + b"\xc0\x00")[1:] == [Publish("a/b"), Pingreq()]


def test_empty_input_gives_nothing() -> None:
    decoder = Decoder()
    assert decoder.feed(b"") == []
    assert decoder.buffered == 0


def test_payloads_are_bytes_of_their_own() -> None:
    packet = accept(V311, publish(V311, payload=b"x" * 100))
    assert isinstance(packet, Publish)
    assert type(packet.payload) is bytes


def test_a_packet_over_the_limit_is_refused_at_its_header() -> None:
    decoder = Decoder(version=V5, expect_handshake=False, max_packet_size=100)
    error = refuse_by(decoder, b"\x30\xff\xff\x7f")
    assert error.reason_code is ReasonCode.PACKET_TOO_LARGE
    assert error.details == {"size": 2_097_151 + 4, "limit": 100}
    assert error.answer == encode(Disconnect(ReasonCode.PACKET_TOO_LARGE), V5)
    assert decoder.buffered == 0


def test_the_limit_counts_the_fixed_header() -> None:
    raw = publish(V311, payload=bytes(50))
    decoder = Decoder(version=V311, expect_handshake=False, max_packet_size=len(raw))
    assert len(decoder.feed(raw)) == 1
    decoder = Decoder(version=V311, expect_handshake=False, max_packet_size=len(raw) - 1)
    assert refuse_by(decoder, raw).reason_code is ReasonCode.PACKET_TOO_LARGE


def test_a_large_connect_is_refused_without_an_answer_before_its_version_is_known() -> None:
    error = refuse_by(Decoder(max_packet_size=100), b"\x10\xff\xff\x7f")
    assert (error.reason_code, error.answer) == (ReasonCode.PACKET_TOO_LARGE, b"")


def test_what_is_no_mqtt_is_refused_before_it_is_buffered() -> None:
    decoder = Decoder()
    assert refuse_by(decoder, b"\x80\xff").reason_code is ReasonCode.PROTOCOL_ERROR
    assert decoder.buffered == 0


def test_an_incomplete_packet_is_kept_and_no_more() -> None:
    decoder = connected(V311)
    raw = publish(V311, payload=bytes(100))
    assert decoder.feed(raw + raw[:40]) == [Publish("a/b", bytes(100))]
    assert decoder.buffered == 40
    assert decoder.feed(raw[40:]) == [Publish("a/b", bytes(100))]
    assert decoder.buffered == 0


def test_a_large_packet_in_small_chunks() -> None:
    raw = b"\x30\x83\x80\x0c\x00\x01t" + bytes(3 * 65_536)
    decoder = connected(V311)
    packets = [p for start in range(0, len(raw), 7) for p in decoder.feed(raw[start : start + 7])]
    assert packets == [Publish("t", bytes(3 * 65_536))]


@pytest.mark.parametrize("version", [V311, V5])
def test_topic_limits(version: ProtocolVersion) -> None:
    def fresh() -> Decoder:
        return Decoder(version=version, expect_handshake=False, max_topic_levels=3, max_topic_bytes=8)

    assert fresh().feed(publish(version, topic="a/b/c")) == [Publish("a/b/c")]
    deep = refuse_by(fresh(), publish(version, topic="a/b/c/"))
    assert (deep.reason_code, deep.details) == (ReasonCode.TOPIC_NAME_INVALID, {"levels": 4, "limit": 3})
    long = refuse_by(fresh(), publish(version, topic="\u00e4\u00e4\u00e4\u00e4x"))
    assert (long.reason_code, long.details) == (ReasonCode.TOPIC_NAME_INVALID, {"size": 9, "limit": 8})
    for raw in (subscribe(version, ("a/b/c/d", 0)), unsubscribe(version, "a/b/c/d")):
        assert refuse_by(fresh(), raw).reason_code is ReasonCode.TOPIC_FILTER_INVALID
    assert refuse_by(fresh(), subscribe(version, ("123456789", 0))).reason_code is ReasonCode.TOPIC_FILTER_INVALID


@pytest.mark.parametrize("version", [V311, V5])
def test_the_number_of_filters_is_bounded(version: ProtocolVersion) -> None:
    def fresh() -> Decoder:
        return Decoder(version=version, expect_handshake=False, max_list_items=2)

    (packet,) = fresh().feed(subscribe(version, ("a", 0), ("b", 0)))
    assert isinstance(packet, Subscribe)
    assert refuse_by(fresh(), subscribe(version, *[("a", 0)] * 3)).reason_code is ReasonCode.QUOTA_EXCEEDED
    assert refuse_by(fresh(), unsubscribe(version, "a", "b", "c")).reason_code is ReasonCode.QUOTA_EXCEEDED


def test_a_violation_carries_its_version_and_text() -> None:
    error = refuse_by(connected(V5), b"\x36\x00")
    assert error.version is V5
    assert str(error).endswith("(0x81 MALFORMED_PACKET)")
    assert error.to_wire()["code"] == "mqtt_protocol_error"


def test_a_client_hears_connack_then_the_rest() -> None:
    decoder = Decoder("client", version=V5)
    assert decoder.feed(b"\x20\x03\x00\x00\x00\x40\x02\x00\x07") == [Connack(), Puback(7)]


def test_non_minimal_remaining_lengths_are_taken_from_311() -> None:
    """3.1.1 does not forbid them (§2.2.3)."""
    assert accept(V311, b"\xc0\x80\x00") == Pingreq()
