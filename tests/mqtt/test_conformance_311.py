"""MQTT 3.1.1: every numbered statement that binds a receiver at packet level.

Each case's id begins with the statement, `3.1.1:MQTT-2.3.1-1`, so that a table can be made from
the collected test ids. Statements about sessions and connections are tested with those.
"""

from __future__ import annotations

import pytest

from gapless.mqtt import (
    Connack,
    Connect,
    Decoder,
    Disconnect,
    MqttEncodeError,
    Publish,
    ReasonCode,
    Suback,
    Subscribe,
    Unsubscribe,
    Will,
    encode,
    matches,
)
from tests.mqtt.raw import V311, accept, connect, frame, publish, refuse, refuse_by, subscribe, text, unsubscribe

MALFORMED = ReasonCode.MALFORMED_PACKET
PROTOCOL = ReasonCode.PROTOCOL_ERROR
TOPIC = ReasonCode.TOPIC_NAME_INVALID
FILTER = ReasonCode.TOPIC_FILTER_INVALID

SURROGATE = b"a\xed\xa0\x80"
OVERLONG = b"a\xc0\xaf"
NUL = b"a\x00b"
WILL = text("w") + text("gone")
CLIENT = text("c")


def _flagged(first: int) -> bytes:
    """A packet of the first byte's type with a body that would be right."""
    bodies = {
        0x40: b"\x00\x01",
        0x50: b"\x00\x01",
        0x60: b"\x00\x01",
        0x70: b"\x00\x01",
        0x80: b"\x00\x01" + text("a") + b"\x00",
        0xA0: b"\x00\x01" + text("a"),
    }
    return frame(first, bodies.get(first & 0xF0, b""))


WRONG_FLAGS = [
    pytest.param(_flagged(first), MALFORMED, id=f"3.1.1:{statement} first byte 0x{first:02X}")
    for statement, kind, right in [
        ("MQTT-2.2.2-1", 0x40, 0),
        ("MQTT-2.2.2-1", 0x50, 0),
        ("MQTT-2.2.2-1", 0x70, 0),
        ("MQTT-2.2.2-2", 0xC0, 0),
        ("MQTT-3.6.1-1", 0x60, 2),
        ("MQTT-3.8.1-1", 0x80, 2),
        ("MQTT-3.10.1-1", 0xA0, 2),
        ("MQTT-3.14.1-1", 0xE0, 0),
    ]
    for first in range(kind, kind + 16)
    if first & 15 != right
]

REFUSED = [
    *WRONG_FLAGS,
    pytest.param(publish(V311, topic=SURROGATE), MALFORMED, id="3.1.1:MQTT-1.5.3-1 surrogate in a topic"),
    pytest.param(publish(V311, topic=OVERLONG), MALFORMED, id="3.1.1:MQTT-1.5.3-1 overlong form in a topic"),
    pytest.param(publish(V311, topic=NUL), MALFORMED, id="3.1.1:MQTT-1.5.3-2 U+0000 in a topic"),
    pytest.param(subscribe(V311, (NUL, 0)), MALFORMED, id="3.1.1:MQTT-1.5.3-2 U+0000 in a filter"),
    pytest.param(publish(V311, flags=2, packet_id=b"\0\0"), PROTOCOL, id="3.1.1:MQTT-2.3.1-1 PUBLISH QoS 1"),
    pytest.param(publish(V311, flags=4, packet_id=b"\0\0"), PROTOCOL, id="3.1.1:MQTT-2.3.1-1 PUBLISH QoS 2"),
    pytest.param(subscribe(V311, ("a", 0), packet_id=0), PROTOCOL, id="3.1.1:MQTT-2.3.1-1 SUBSCRIBE"),
    pytest.param(unsubscribe(V311, "a", packet_id=0), PROTOCOL, id="3.1.1:MQTT-2.3.1-1 UNSUBSCRIBE"),
    pytest.param(b"\x40\x02\x00\x00", PROTOCOL, id="3.1.1:MQTT-2.3.1-6 PUBACK of no packet"),
    pytest.param(connect(V311), PROTOCOL, id="3.1.1:MQTT-3.1.0-2 second CONNECT"),
    pytest.param(publish(V311, flags=8), MALFORMED, id="3.1.1:MQTT-3.3.1-2 DUP with QoS 0"),
    pytest.param(publish(V311, flags=6, packet_id=b"\0\1"), MALFORMED, id="3.1.1:MQTT-3.3.1-4 QoS 3"),
    pytest.param(b"\x30\x00", MALFORMED, id="3.1.1:MQTT-3.3.2-1 no topic name"),
    pytest.param(b"\x30\x03\x00\x09a", MALFORMED, id="3.1.1:MQTT-3.3.2-1 topic name past the end"),
    pytest.param(publish(V311, topic=b"\xff"), MALFORMED, id="3.1.1:MQTT-3.3.2-1 topic name is not UTF-8"),
    pytest.param(publish(V311, topic="a/+"), TOPIC, id="3.1.1:MQTT-3.3.2-2 plus in a topic name"),
    pytest.param(publish(V311, topic="a/#"), TOPIC, id="3.1.1:MQTT-3.3.2-2 hash in a topic name"),
    pytest.param(publish(V311, topic="a+b"), TOPIC, id="3.1.1:MQTT-4.7.1-1 plus inside a level"),
    pytest.param(subscribe(V311, (b"\xff", 0)), MALFORMED, id="3.1.1:MQTT-3.8.3-1 filter is not UTF-8"),
    pytest.param(subscribe(V311), PROTOCOL, id="3.1.1:MQTT-3.8.3-3 SUBSCRIBE without filters"),
    *(
        pytest.param(subscribe(V311, ("a", options)), MALFORMED, id=f"3.1.1:MQTT-3-8.3-4 options 0x{options:02X}")
        for options in (0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80)
    ),
    pytest.param(unsubscribe(V311, b"\xff"), MALFORMED, id="3.1.1:MQTT-3.10.3-1 filter is not UTF-8"),
    pytest.param(unsubscribe(V311), PROTOCOL, id="3.1.1:MQTT-3.10.3-2 UNSUBSCRIBE without filters"),
    *(
        pytest.param(subscribe(V311, (name, 0)), FILTER, id=f"3.1.1:MQTT-4.7.1-2 filter {name}")
        for name in ("a#", "a/#/b", "#/a", "##", "a/b#")
    ),
    *(
        pytest.param(subscribe(V311, (name, 0)), FILTER, id=f"3.1.1:MQTT-4.7.1-3 filter {name}")
        for name in ("a+", "+a", "a/b+/c", "++")
    ),
    pytest.param(unsubscribe(V311, "a/b#"), FILTER, id="3.1.1:MQTT-4.7.1-2 in UNSUBSCRIBE"),
    pytest.param(publish(V311, topic=""), TOPIC, id="3.1.1:MQTT-4.7.3-1 empty topic name"),
    pytest.param(subscribe(V311, ("", 0)), FILTER, id="3.1.1:MQTT-4.7.3-1 empty filter"),
    pytest.param(subscribe(V311, (NUL, 0)), MALFORMED, id="3.1.1:MQTT-4.7.3-2 U+0000 in a filter"),
    pytest.param(b"\x00\x00", MALFORMED, id="3.1.1:2.2.1 packet type 0"),
    pytest.param(b"\xf0\x00", MALFORMED, id="3.1.1:2.2.1 packet type 15"),
    pytest.param(b"\x30\xff\xff\xff\xff\x01", MALFORMED, id="3.1.1:2.2.3 remaining length of five bytes"),
    pytest.param(b"\x90\x03\x00\x01\x00", PROTOCOL, id="3.1.1:2.2.1 SUBACK from a client"),
    pytest.param(b"\xd0\x00", PROTOCOL, id="3.1.1:2.2.1 PINGRESP from a client"),
    pytest.param(b"\xb0\x02\x00\x01", PROTOCOL, id="3.1.1:2.2.1 UNSUBACK from a client"),
    pytest.param(b"\x20\x02\x00\x00", PROTOCOL, id="3.1.1:2.2.1 CONNACK from a client"),
    pytest.param(b"\x40\x03\x00\x01\x00", MALFORMED, id="3.1.1:3.4.2 PUBACK with a reason code"),
    pytest.param(b"\x40\x01\x00", MALFORMED, id="3.1.1:3.4.2 PUBACK of one byte"),
    pytest.param(b"\xc0\x01\x00", MALFORMED, id="3.1.1:3.12.2 PINGREQ with a body"),
    pytest.param(b"\xe0\x01\x00", MALFORMED, id="3.1.1:3.14.2 DISCONNECT with a body"),
]


@pytest.mark.parametrize(("raw", "reason"), REFUSED)
def test_refused_after_connect(raw: bytes, reason: ReasonCode) -> None:
    error = refuse(V311, raw)
    assert error.reason_code is reason
    assert error.answer == b""  # 3.1.1 has no way to tell: the connection is just closed


@pytest.mark.parametrize(
    ("raw", "reason", "answer"),
    [
        pytest.param(b"\xc0\x00", PROTOCOL, b"", id="3.1.1:MQTT-3.1.0-1 PINGREQ first"),
        pytest.param(publish(V311), PROTOCOL, b"", id="3.1.1:MQTT-3.1.0-1 PUBLISH first"),
        pytest.param(
            connect(V311, name=b"HTTP"), ReasonCode.UNSUPPORTED_PROTOCOL_VERSION, b"", id="3.1.1:MQTT-3.1.2-1"
        ),
        pytest.param(
            connect(V311, name=b"MQIsdp", level=3),
            ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
            b"\x20\x02\x00\x01",
            id="3.1.1:MQTT-3.1.2-2 MQTT 3.1",
        ),
        pytest.param(
            connect(V311, level=3),
            ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
            b"\x20\x02\x00\x01",
            id="3.1.1:MQTT-3.1.2-2 level 3",
        ),
        pytest.param(connect(V311, flags=0x03), MALFORMED, b"", id="3.1.1:MQTT-3.1.2-3"),
        pytest.param(connect(V311, flags=0x06), MALFORMED, b"", id="3.1.1:MQTT-3.1.2-9 no will fields"),
        pytest.param(
            connect(V311, payload=CLIENT + WILL), MALFORMED, b"", id="3.1.1:MQTT-3.1.2-11 will fields without the flag"
        ),
        pytest.param(connect(V311, flags=0x0A), MALFORMED, b"", id="3.1.1:MQTT-3.1.2-13 will QoS 1 without a will"),
        pytest.param(
            connect(V311, flags=0x1E, payload=CLIENT + WILL), MALFORMED, b"", id="3.1.1:MQTT-3.1.2-14 will QoS 3"
        ),
        pytest.param(connect(V311, flags=0x22), MALFORMED, b"", id="3.1.1:MQTT-3.1.2-15 will retain without a will"),
        pytest.param(
            connect(V311, payload=CLIENT + text("u")), MALFORMED, b"", id="3.1.1:MQTT-3.1.2-18 user name without flag"
        ),
        pytest.param(connect(V311, flags=0x82), MALFORMED, b"", id="3.1.1:MQTT-3.1.2-19 no user name"),
        pytest.param(
            connect(V311, flags=0x82, payload=CLIENT + text("u") + text("p")),
            MALFORMED,
            b"",
            id="3.1.1:MQTT-3.1.2-20 password without flag",
        ),
        pytest.param(
            connect(V311, flags=0xC2, payload=CLIENT + text("u")), MALFORMED, b"", id="3.1.1:MQTT-3.1.2-21 no password"
        ),
        pytest.param(
            connect(V311, flags=0x42, payload=CLIENT + text("p")),
            MALFORMED,
            b"",
            id="3.1.1:MQTT-3.1.2-22 password without user name",
        ),
        pytest.param(connect(V311, payload=b""), MALFORMED, b"", id="3.1.1:MQTT-3.1.3-3 no client identifier"),
        pytest.param(
            connect(V311, payload=text(SURROGATE)), MALFORMED, b"", id="3.1.1:MQTT-3.1.3-4 client identifier not UTF-8"
        ),
        pytest.param(
            connect(V311, flags=0, payload=b"\x00\x00"),
            ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
            b"\x20\x02\x00\x02",
            id="3.1.1:MQTT-3.1.3-8",
        ),
        pytest.param(
            connect(V311, flags=0x06, payload=CLIENT + text(b"\xff") + text("x")),
            MALFORMED,
            b"",
            id="3.1.1:MQTT-3.1.3-10 will topic not UTF-8",
        ),
        pytest.param(
            connect(V311, flags=0x82, payload=CLIENT + text(b"\xff")),
            MALFORMED,
            b"",
            id="3.1.1:MQTT-3.1.3-11 user name not UTF-8",
        ),
        pytest.param(connect(V311, payload=CLIENT + b"x"), MALFORMED, b"", id="3.1.1:MQTT-3.1.4-1 trailing bytes"),
        pytest.param(
            connect(V311, flags=0x06, payload=CLIENT + text("a/#") + text("x")),
            TOPIC,
            b"",
            id="3.1.1:MQTT-4.7.1-1 wildcard in the will topic",
        ),
    ],
)
def test_refused_at_connect(raw: bytes, reason: ReasonCode, answer: bytes) -> None:
    error = refuse_by(Decoder(), raw)
    assert error.reason_code is reason
    assert error.answer == answer


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-1.5.3-3"])
def test_a_byte_order_mark_is_kept(statement: str) -> None:
    packet = accept(V311, publish(V311, topic="\ufeffa/\ufeff"))
    assert packet == Publish("\ufeffa/\ufeff")


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-2.3.1-5"])
def test_qos_0_has_no_packet_identifier(statement: str) -> None:
    assert accept(V311, publish(V311, payload=b"\x00\x01x")) == Publish("a/b", b"\x00\x01x")
    with pytest.raises(MqttEncodeError):
        encode(Publish("a", packet_id=1), V311)


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-3.1.3-1", "3.1.1:MQTT-3.1.2-9", "3.1.1:MQTT-3.1.2-19"])
def test_the_fields_of_connect_come_in_order(statement: str) -> None:
    raw = connect(V311, flags=0xF6, payload=CLIENT + WILL + text("u") + text("p"))
    assert Decoder().feed(raw) == [
        Connect(
            "c",
            V311,
            clean_start=True,
            keep_alive=60,
            will=Will("w", b"gone", qos=2, retain=True),
            username="u",
            password=b"p",
        )
    ]


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-3.1.3-5"])
def test_client_identifiers_of_23_letters_and_digits_are_allowed(statement: str) -> None:
    name = "0123456789abcdefghiXYZA"
    (packet,) = Decoder().feed(connect(V311, payload=text(name)))
    assert isinstance(packet, Connect)
    assert packet.client_id == name


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-3.1.3-6", "3.1.1:MQTT-3.1.3-7"])
def test_an_empty_client_identifier_with_clean_session_is_allowed(statement: str) -> None:
    (packet,) = Decoder().feed(connect(V311, payload=b"\x00\x00"))
    assert isinstance(packet, Connect)
    assert packet.client_id == ""


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-3.1.4-5"])
def test_nothing_after_a_refused_connect_is_processed(statement: str) -> None:
    decoder = Decoder()
    error = refuse_by(decoder, connect(V311, flags=3) + publish(V311))
    assert error.packets_before == []
    assert refuse_by(decoder, publish(V311)).packets_before == []


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-3.2.2-4"])
def test_a_refusing_connack_with_session_present_is_refused(statement: str) -> None:
    error = refuse_by(Decoder("client", version=V311), b"\x20\x02\x01\x05")
    assert error.reason_code is PROTOCOL


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\xb0\x03\x00\x01\x00", id="3.1.1:3.11.3 UNSUBACK with a body"),
        pytest.param(b"\xd0\x01\x00", id="3.1.1:3.13.2 PINGRESP with a body"),
    ],
)
def test_a_client_refuses_trailing_bytes(raw: bytes) -> None:
    assert refuse(V311, raw, "client").reason_code is MALFORMED


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-3.2.2-6"])
def test_no_connack_where_no_return_code_applies(statement: str) -> None:
    with pytest.raises(MqttEncodeError):
        encode(Connack(ReasonCode.PACKET_TOO_LARGE), V311)


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-3.2.0-1"])
def test_a_client_wants_connack_first(statement: str) -> None:
    error = refuse_by(Decoder("client", version=V311), b"\xd0\x00")
    assert error.reason_code is PROTOCOL


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-3.9.3-2"])
def test_suback_codes(statement: str) -> None:
    raw = encode(Suback(9, [ReasonCode.GRANTED_QOS_1, ReasonCode.NOT_AUTHORIZED]), V311)
    assert raw == b"\x90\x04\x00\x09\x01\x80"
    assert refuse(V311, b"\x90\x03\x00\x09\x03", "client").reason_code is PROTOCOL


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-3.8.4-4", "3.1.1:MQTT-3.9.3-1"])
def test_filters_keep_their_order(statement: str) -> None:
    packet = accept(V311, subscribe(V311, ("b", 1), ("a", 0), ("b", 2)))
    assert isinstance(packet, Subscribe)
    assert [(request.filter, request.qos) for request in packet.subscriptions] == [("b", 1), ("a", 0), ("b", 2)]


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-3.10.4-6"])
def test_filters_of_unsubscribe_keep_their_order(statement: str) -> None:
    packet = accept(V311, unsubscribe(V311, "b", "a/#"))
    assert isinstance(packet, Unsubscribe)
    assert packet.filters == ["b", "a/#"]


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-3.14.1-1"])
def test_a_right_disconnect_is_accepted(statement: str) -> None:
    assert accept(V311, b"\xe0\x00") == Disconnect()


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-4.7.2-1"])
@pytest.mark.parametrize("name", ["#", "+/monitor", "+/#", "+"])
def test_leading_wildcards_do_not_match_dollar_topics(statement: str, name: str) -> None:
    assert not matches(name, "$SYS/monitor")
    assert not matches(name, "$SYS")


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-4.7.3-3"])
def test_topics_of_65535_bytes_are_accepted(statement: str) -> None:
    topic = "x" * 65_535
    raw = b"\x30" + b"\x81\x80\x04" + b"\xff\xff" + topic.encode()
    assert accept(V311, raw) == Publish(topic)
    with pytest.raises(MqttEncodeError):
        encode(Publish(topic + "x"), V311)


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-4.7.3-4"])
def test_topics_are_not_normalised(statement: str) -> None:
    for topic in ("/a", "a/", "A", "a//b", "cafe\u0301", " a "):
        packet = accept(V311, publish(V311, topic=topic))
        assert isinstance(packet, Publish)
        assert packet.topic == topic
    assert not matches("caf\u00e9", "cafe\u0301")
    assert not matches("a", "/a")


@pytest.mark.parametrize("statement", ["3.1.1:MQTT-4.8.0-1"])
def test_packets_before_a_violation_are_kept(statement: str) -> None:
    error = refuse(V311, publish(V311, payload=b"1") + publish(V311, payload=b"2") + b"\x36\x00" + b"\xc0\x00")
    assert error.packets_before == [Publish("a/b", b"1"), Publish("a/b", b"2")]
