"""MQTT 5: every numbered statement that binds a receiver at packet level, and unnumbered ones.

Each case's id begins with the statement, `5:MQTT-2.2.1-3`, or where the standard gives no number
with the section, `5:3.1.2.11.3`. Statements about sessions and connections are tested with those.
"""

from __future__ import annotations

import pytest

from gapless.mqtt import (
    Auth,
    Connack,
    Connect,
    Decoder,
    Disconnect,
    MqttEncodeError,
    Properties,
    Puback,
    Publish,
    ReasonCode,
    Subscribe,
    Unsubscribe,
    Will,
    encode,
    matches,
)
from tests.mqtt.raw import V5, accept, connect, frame, props, publish, refuse, refuse_by, subscribe, text, unsubscribe

MALFORMED = ReasonCode.MALFORMED_PACKET
PROTOCOL = ReasonCode.PROTOCOL_ERROR
TOPIC = ReasonCode.TOPIC_NAME_INVALID
FILTER = ReasonCode.TOPIC_FILTER_INVALID
ALIAS = ReasonCode.TOPIC_ALIAS_INVALID
VERSION = ReasonCode.UNSUPPORTED_PROTOCOL_VERSION

SURROGATE = b"a\xed\xbf\xbf"
OVERLONG = b"a\xc0\x80"
NUL = b"a\x00b"
CLIENT = text("c")
WILL = b"\x00" + text("w") + text("gone")


def _flagged(first: int) -> bytes:
    bodies = {
        0x40: b"\x00\x01",
        0x50: b"\x00\x01",
        0x60: b"\x00\x01",
        0x70: b"\x00\x01",
        0x80: b"\x00\x01\x00" + text("a") + b"\x00",
        0xA0: b"\x00\x01\x00" + text("a"),
        0xF0: b"\x18" + props(b"\x15" + text("M")),
    }
    return frame(first, bodies.get(first & 0xF0, b""))


WRONG_FLAGS = [
    pytest.param(_flagged(first), MALFORMED, id=f"5:{statement} first byte 0x{first:02X}")
    for statement, kind, right in [
        ("MQTT-2.1.3-1", 0x40, 0),
        ("MQTT-2.1.3-1", 0x50, 0),
        ("MQTT-2.1.3-1", 0x70, 0),
        ("MQTT-2.1.3-1", 0xC0, 0),
        ("MQTT-3.6.1-1", 0x60, 2),
        ("MQTT-3.8.1-1", 0x80, 2),
        ("MQTT-3.10.1-1", 0xA0, 2),
        ("MQTT-3.14.1-1", 0xE0, 0),
        ("MQTT-3.15.1-1", 0xF0, 0),
    ]
    for first in range(kind, kind + 16)
    if first & 15 != right
]

USER = b"\x26" + text("k") + text("v")


def _with(*items: bytes) -> bytes:
    return publish(V5, properties=props(*items))


REFUSED = [
    *WRONG_FLAGS,
    pytest.param(publish(V5, topic=SURROGATE), MALFORMED, id="5:MQTT-1.5.4-1 surrogate in a topic"),
    pytest.param(publish(V5, topic=OVERLONG), MALFORMED, id="5:MQTT-1.5.4-1 overlong form in a topic"),
    pytest.param(publish(V5, topic=NUL), MALFORMED, id="5:MQTT-1.5.4-2 U+0000 in a topic"),
    pytest.param(_with(b"\x03" + text(NUL)), MALFORMED, id="5:MQTT-1.5.4-2 U+0000 in a property"),
    pytest.param(b"\x30\x86\x00\x00\x01a\x00xx", MALFORMED, id="5:MQTT-1.5.5-1 long remaining length"),
    pytest.param(frame(0x30, text("a") + b"\x82\x00\x01\x01"), MALFORMED, id="5:MQTT-1.5.5-1 long property length"),
    pytest.param(frame(0x30, text("a") + b"\xff" * 5), MALFORMED, id="5:MQTT-1.5.5-1 property length of five bytes"),
    pytest.param(_with(b"\x26" + text(b"\xff") + text("v")), MALFORMED, id="5:MQTT-1.5.7-1 name is not UTF-8"),
    pytest.param(_with(b"\x26" + text("k") + text(NUL)), MALFORMED, id="5:MQTT-1.5.7-1 value with U+0000"),
    pytest.param(publish(V5, flags=2, packet_id=b"\0\0"), PROTOCOL, id="5:MQTT-2.2.1-3 PUBLISH QoS 1"),
    pytest.param(publish(V5, flags=4, packet_id=b"\0\0"), PROTOCOL, id="5:MQTT-2.2.1-3 PUBLISH QoS 2"),
    pytest.param(subscribe(V5, ("a", 0), packet_id=0), PROTOCOL, id="5:MQTT-2.2.1-3 SUBSCRIBE"),
    pytest.param(unsubscribe(V5, "a", packet_id=0), PROTOCOL, id="5:MQTT-2.2.1-3 UNSUBSCRIBE"),
    pytest.param(b"\x40\x02\x00\x00", PROTOCOL, id="5:MQTT-2.2.1-5 PUBACK of no packet"),
    pytest.param(connect(V5), PROTOCOL, id="5:MQTT-3.1.0-2 second CONNECT"),
    pytest.param(publish(V5, flags=8), MALFORMED, id="5:MQTT-3.3.1-2 DUP with QoS 0"),
    pytest.param(publish(V5, flags=6, packet_id=b"\0\1"), MALFORMED, id="5:MQTT-3.3.1-4 QoS 3"),
    pytest.param(publish(V5, flags=2), MALFORMED, id="5:3.3.2.2 PUBLISH ends before its packet identifier"),
    pytest.param(b"\x30\x00", MALFORMED, id="5:MQTT-3.3.2-1 no topic name"),
    pytest.param(publish(V5, topic=b"\xff"), MALFORMED, id="5:MQTT-3.3.2-1 topic name is not UTF-8"),
    pytest.param(publish(V5, topic="a/+"), TOPIC, id="5:MQTT-3.3.2-2 plus in a topic name"),
    pytest.param(publish(V5, topic="a/#"), TOPIC, id="5:MQTT-3.3.2-2 hash in a topic name"),
    pytest.param(publish(V5, topic="a+"), TOPIC, id="5:MQTT-4.7.0-1 plus inside a level"),
    pytest.param(_with(b"\x23\x00\x00"), ALIAS, id="5:MQTT-3.3.2-8 topic alias 0"),
    pytest.param(_with(b"\x08" + text(b"\xff")), MALFORMED, id="5:MQTT-3.3.2-13 response topic is not UTF-8"),
    pytest.param(_with(b"\x08" + text("a/+")), TOPIC, id="5:MQTT-3.3.2-14 wildcard in the response topic"),
    pytest.param(_with(b"\x03" + text(b"\xff")), MALFORMED, id="5:MQTT-3.3.2-19 content type is not UTF-8"),
    pytest.param(_with(b"\x0b\x01"), MALFORMED, id="5:MQTT-3.3.4-6 subscription identifier from a client"),
    pytest.param(publish(V5, topic=""), PROTOCOL, id="5:3.3.2.1 neither topic nor alias"),
    pytest.param(_with(b"\x01\x02"), PROTOCOL, id="5:3.3.2.3.2 payload format indicator 2"),
    pytest.param(_with(b"\x01\x01", b"\x01\x01"), PROTOCOL, id="5:3.3.2.3.2 payload format indicator twice"),
    pytest.param(_with(b"\x02\0\0\0\1", b"\x02\0\0\0\1"), PROTOCOL, id="5:3.3.2.3.3 message expiry twice"),
    pytest.param(_with(b"\x23\0\1", b"\x23\0\1"), PROTOCOL, id="5:3.3.2.3.4 topic alias twice"),
    pytest.param(_with(b"\x08" + text("a"), b"\x08" + text("a")), PROTOCOL, id="5:3.3.2.3.5 response topic twice"),
    pytest.param(_with(b"\x09" + text("a"), b"\x09" + text("a")), PROTOCOL, id="5:3.3.2.3.6 correlation data twice"),
    pytest.param(_with(b"\x03" + text("a"), b"\x03" + text("a")), PROTOCOL, id="5:3.3.2.3.9 content type twice"),
    pytest.param(_with(b"\x11\0\0\0\1"), MALFORMED, id="5:2.2.2.2 session expiry in PUBLISH"),
    pytest.param(_with(b"\x7f\x00"), MALFORMED, id="5:2.2.2.2 unknown property"),
    pytest.param(_with(b"\x02\0\0"), MALFORMED, id="5:2.2.2.2 property cut off"),
    pytest.param(frame(0x30, text("a") + b"\x05\x01\x01"), MALFORMED, id="5:2.2.2.1 property length past the end"),
    pytest.param(frame(0x30, text("a")), MALFORMED, id="5:2.2.2.1 no property length"),
    *(
        pytest.param(bytes((first, 4, 0, 1, code, 0)), PROTOCOL, id=f"5:{statement} code 0x{code:02X}")
        for statement, first, code in [
            ("MQTT-3.4.2-1", 0x40, 0x01),
            ("MQTT-3.4.2-1", 0x40, 0x92),
            ("MQTT-3.5.2-1", 0x50, 0x02),
            ("MQTT-3.6.2-1", 0x62, 0x80),
            ("MQTT-3.7.2-1", 0x70, 0x10),
        ]
    ),
    pytest.param(b"\x40\x06\x00\x01\x00\x02\x01\x01", MALFORMED, id="5:3.4.2.2 PUBACK with a foreign property"),
    pytest.param(b"\x40\x05\x00\x01\x00\x00\x00", MALFORMED, id="5:3.4.2.2 PUBACK with trailing bytes"),
    pytest.param(b"\x40\x01\x00", MALFORMED, id="5:3.4.2 PUBACK of one byte"),
    pytest.param(subscribe(V5, (b"\xff", 0)), MALFORMED, id="5:MQTT-3.8.3-1 filter is not UTF-8"),
    pytest.param(subscribe(V5), PROTOCOL, id="5:MQTT-3.8.3-2 SUBSCRIBE without filters"),
    pytest.param(subscribe(V5, ("$share/g/a", 4)), PROTOCOL, id="5:MQTT-3.8.3-4 no local on a shared one"),
    pytest.param(subscribe(V5, ("a", 0x40)), MALFORMED, id="5:MQTT-3.8.3-5 options 0x40"),
    pytest.param(subscribe(V5, ("a", 0x80)), MALFORMED, id="5:MQTT-3.8.3-5 options 0x80"),
    pytest.param(subscribe(V5, ("a", 0x03)), MALFORMED, id="5:3.8.3.1 QoS 3"),
    pytest.param(subscribe(V5, ("a", 0x30)), PROTOCOL, id="5:3.8.3.1 retain handling 3"),
    pytest.param(
        subscribe(V5, ("a", 0), properties=props(b"\x0b\x00")), PROTOCOL, id="5:3.8.2.1.2 subscription identifier 0"
    ),
    pytest.param(
        subscribe(V5, ("a", 0), properties=props(b"\x0b\x01\x0b\x02")),
        PROTOCOL,
        id="5:3.8.2.1.2 two subscription identifiers",
    ),
    pytest.param(b"\x82\x06\x00\x01\x00\x00\x01a", MALFORMED, id="5:3.8.3 filter without options"),
    pytest.param(unsubscribe(V5, b"\xff"), MALFORMED, id="5:MQTT-3.10.3-1 filter is not UTF-8"),
    pytest.param(unsubscribe(V5), PROTOCOL, id="5:MQTT-3.10.3-2 UNSUBSCRIBE without filters"),
    pytest.param(b"\xe0\x01\x8e", PROTOCOL, id="5:MQTT-3.14.2-1 a server's code from a client"),
    pytest.param(b"\xe0\x01\x7f", PROTOCOL, id="5:MQTT-3.14.2-1 no such code"),
    pytest.param(
        frame(0xE0, b"\x00" + props(b"\x1c" + text("s"))), MALFORMED, id="5:3.14.2.2.5 server reference from a client"
    ),
    pytest.param(frame(0xE0, b"\x00" + props(b"\x1f" + text("x")) + b"!"), MALFORMED, id="5:3.14.2 trailing bytes"),
    pytest.param(frame(0xF0, b"\x01" + props(b"\x15" + text("M"))), PROTOCOL, id="5:MQTT-3.15.2-1 no such code"),
    pytest.param(b"\xf0\x00", PROTOCOL, id="5:MQTT-3.15.2-1 success from a client"),
    pytest.param(b"\xf0\x01\x18", PROTOCOL, id="5:3.15.2.2.2 no authentication method"),
    pytest.param(frame(0xF0, b"\x18" + props(b"\x16" + text("d"))), PROTOCOL, id="5:3.15.2.2.3 data without a method"),
    pytest.param(frame(0xF0, b"\x18" + props(b"\x15" + text("M")) + b"!"), MALFORMED, id="5:3.15.2 trailing bytes"),
    pytest.param(b"\x40\x06\x00\x01\x00\x03\x26\x00", MALFORMED, id="5:2.2.2.1 property length one too long"),
    pytest.param(b"\xc0\x01\x00", MALFORMED, id="5:3.12.2 PINGREQ with a body"),
    *(
        pytest.param(subscribe(V5, (name, 0)), FILTER, id=f"5:MQTT-4.7.1-1 filter {name}")
        for name in ("a#", "a/#/b", "#/a", "##", "$share/g/a#")
    ),
    *(
        pytest.param(subscribe(V5, (name, 0)), FILTER, id=f"5:MQTT-4.7.1-2 filter {name}")
        for name in ("a+", "+a", "a/b+/c", "$share/g/+a")
    ),
    pytest.param(subscribe(V5, ("", 0)), FILTER, id="5:MQTT-4.7.3-1 empty filter"),
    pytest.param(
        publish(V5, topic="", properties=props(b"\x08" + text(""), b"\x23\0\1")),
        TOPIC,
        id="5:MQTT-4.7.3-1 empty response topic",
    ),
    pytest.param(subscribe(V5, (NUL, 0)), MALFORMED, id="5:MQTT-4.7.3-2 U+0000 in a filter"),
    *(
        pytest.param(subscribe(V5, (name, 0)), FILTER, id=f"5:MQTT-4.8.2-1 filter {name}")
        for name in ("$share//a", "$share/", "$share")
    ),
    *(
        pytest.param(subscribe(V5, (name, 0)), FILTER, id=f"5:MQTT-4.8.2-2 filter {name}")
        for name in ("$share/g", "$share/g/", "$share/g+/a", "$share/#/a")
    ),
    pytest.param(b"\x00\x00", MALFORMED, id="5:2.1.2 packet type 0"),
    pytest.param(b"\x90\x04\x00\x01\x00\x00", PROTOCOL, id="5:2.1.2 SUBACK from a client"),
    pytest.param(b"\xd0\x00", PROTOCOL, id="5:2.1.2 PINGRESP from a client"),
]


@pytest.mark.parametrize(("raw", "reason"), REFUSED)
def test_refused_after_connect(raw: bytes, reason: ReasonCode) -> None:
    error = refuse(V5, raw)
    assert error.reason_code is reason
    assert error.answer == encode(Disconnect(reason), V5)


def _connect_with(*items: bytes) -> bytes:
    return connect(V5, properties=props(*items))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(connect(V5, level=6), VERSION, id="5:MQTT-3.1.2-2 level 6"),
        pytest.param(connect(V5, flags=0x03), MALFORMED, id="5:MQTT-3.1.2-3"),
        pytest.param(connect(V5, flags=0x06), MALFORMED, id="5:MQTT-3.1.2-9 no will fields"),
        pytest.param(connect(V5, flags=0x0A), MALFORMED, id="5:MQTT-3.1.2-11 will QoS 1 without a will"),
        pytest.param(connect(V5, flags=0x1E, payload=CLIENT + WILL), MALFORMED, id="5:MQTT-3.1.2-12 will QoS 3"),
        pytest.param(connect(V5, flags=0x22), MALFORMED, id="5:MQTT-3.1.2-13 will retain without a will"),
        pytest.param(connect(V5, payload=CLIENT + text("u")), MALFORMED, id="5:MQTT-3.1.2-16 user name, no flag"),
        pytest.param(connect(V5, flags=0x82), MALFORMED, id="5:MQTT-3.1.2-17 no user name"),
        pytest.param(
            connect(V5, flags=0x82, payload=CLIENT + text("u") + text("p")),
            MALFORMED,
            id="5:MQTT-3.1.2-18 password without flag",
        ),
        pytest.param(connect(V5, flags=0x42), MALFORMED, id="5:MQTT-3.1.2-19 no password"),
        pytest.param(connect(V5, payload=b""), MALFORMED, id="5:MQTT-3.1.3-3 no client identifier"),
        pytest.param(connect(V5, payload=text(SURROGATE)), MALFORMED, id="5:MQTT-3.1.3-4"),
        pytest.param(
            connect(V5, flags=0x06, payload=CLIENT + b"\x00" + text(b"\xff") + text("x")),
            MALFORMED,
            id="5:MQTT-3.1.3-11 will topic not UTF-8",
        ),
        pytest.param(
            connect(V5, flags=0x82, payload=CLIENT + text(b"\xff")), MALFORMED, id="5:MQTT-3.1.3-12 user name not UTF-8"
        ),
        pytest.param(connect(V5, payload=CLIENT + b"x"), MALFORMED, id="5:MQTT-3.1.4-1 trailing bytes"),
        pytest.param(
            connect(V5, flags=0x06, payload=CLIENT + b"\x00" + text("a/#") + text("x")),
            TOPIC,
            id="5:MQTT-4.7.0-1 wildcard in the will topic",
        ),
        pytest.param(
            connect(V5, flags=0x06, payload=CLIENT + b"\x00" + text("") + text("x")),
            TOPIC,
            id="5:MQTT-4.7.3-1 empty will topic",
        ),
        pytest.param(_connect_with(b"\x21\x00\x00"), PROTOCOL, id="5:3.1.2.11.3 receive maximum 0"),
        pytest.param(_connect_with(b"\x27\0\0\0\0"), PROTOCOL, id="5:3.1.2.11.4 maximum packet size 0"),
        pytest.param(_connect_with(b"\x11\0\0\0\1", b"\x11\0\0\0\1"), PROTOCOL, id="5:3.1.2.11.2 session expiry twice"),
        pytest.param(_connect_with(b"\x22\0\1", b"\x22\0\1"), PROTOCOL, id="5:3.1.2.11.5 topic alias maximum twice"),
        pytest.param(_connect_with(b"\x19\x02"), PROTOCOL, id="5:3.1.2.11.6 request response information 2"),
        pytest.param(_connect_with(b"\x17\x02"), PROTOCOL, id="5:3.1.2.11.7 request problem information 2"),
        pytest.param(_connect_with(b"\x16" + text("d")), PROTOCOL, id="5:3.1.2.11.10 data without a method"),
        pytest.param(_connect_with(b"\x01\x01"), MALFORMED, id="5:2.2.2.2 a property of PUBLISH in CONNECT"),
        pytest.param(
            connect(V5, flags=0x06, payload=CLIENT + props(b"\x23\0\1") + text("w") + text("x")),
            MALFORMED,
            id="5:3.1.3.2 topic alias in a will",
        ),
        pytest.param(
            b"\x10\x8e\x00" + connect(V5)[2:], MALFORMED, id="5:MQTT-1.5.5-1 long remaining length of CONNECT"
        ),
    ],
)
def test_refused_at_connect(raw: bytes, reason: ReasonCode) -> None:
    error = refuse_by(Decoder(), raw)
    assert error.reason_code is reason
    assert error.answer == encode(Connack(reason), V5)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"\xc0\x00", PROTOCOL, id="5:MQTT-3.1.0-1 PINGREQ first"),
        pytest.param(b"\xf0\x00", PROTOCOL, id="5:MQTT-3.1.0-1 AUTH first"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", PROTOCOL, id="5:MQTT-3.1.0-1 a web browser"),
        pytest.param(connect(V5, name=b"NATS"), VERSION, id="5:MQTT-3.1.2-1 wrong protocol name"),
    ],
)
def test_what_is_no_mqtt_gets_no_answer(raw: bytes, reason: ReasonCode) -> None:
    error = refuse_by(Decoder(), raw)
    assert error.reason_code is reason
    assert error.answer == b""


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"\x20\x03\x02\x00\x00", MALFORMED, id="5:MQTT-3.2.2-1 reserved CONNACK flags"),
        pytest.param(b"\x20\x03\x01\x87\x00", PROTOCOL, id="5:MQTT-3.2.2-6 session present with a refusal"),
        pytest.param(b"\x20\x03\x00\x8d\x00", PROTOCOL, id="5:MQTT-3.2.2-8 no such CONNACK code"),
        pytest.param(b"\xd0\x00", PROTOCOL, id="5:MQTT-3.2.0-1 PINGRESP before CONNACK"),
        pytest.param(b"\x20\x04\x00\x00\x00\x00", MALFORMED, id="5:3.2.3 CONNACK with trailing bytes"),
        pytest.param(b"\x20\x03\x00\x00\x00\x20\x03\x00\x00\x00", PROTOCOL, id="5:MQTT-3.2.0-2 second CONNACK"),
    ],
)
def test_a_client_refuses_at_the_handshake(raw: bytes, reason: ReasonCode) -> None:
    assert refuse_by(Decoder("client", version=V5), raw).reason_code is reason


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"\x90\x04\x00\x01\x00\x03", PROTOCOL, id="5:MQTT-3.9.3-2 no such SUBACK code"),
        pytest.param(b"\xb0\x04\x00\x01\x00\x01", PROTOCOL, id="5:MQTT-3.11.3-2 no such UNSUBACK code"),
        pytest.param(
            frame(0xE0, b"\x8b" + props(b"\x11\0\0\0\1")), MALFORMED, id="5:MQTT-3.14.2-2 session expiry from a server"
        ),
        pytest.param(b"\xe0\x01\x04", PROTOCOL, id="5:MQTT-3.14.2-1 a client's code from a server"),
        pytest.param(b"\x90\x03\x00\x01\x00", PROTOCOL, id="5:3.9.3 SUBACK without codes"),
        pytest.param(b"\xb0\x03\x00\x01\x00", PROTOCOL, id="5:3.11.3 UNSUBACK without codes"),
        pytest.param(b"\xc0\x00", PROTOCOL, id="5:2.1.2 PINGREQ from a server"),
        pytest.param(b"\xd0\x01\x00", MALFORMED, id="5:3.13.2 PINGRESP with a body"),
    ],
)
def test_a_client_refuses(raw: bytes, reason: ReasonCode) -> None:
    assert refuse(V5, raw, "client").reason_code is reason


@pytest.mark.parametrize("statement", ["5:MQTT-1.5.4-3"])
def test_a_byte_order_mark_is_kept(statement: str) -> None:
    assert accept(V5, publish(V5, topic="\ufeffa/\ufeff")) == Publish("\ufeffa/\ufeff")


@pytest.mark.parametrize("statement", ["5:MQTT-2.2.1-2"])
def test_qos_0_has_no_packet_identifier(statement: str) -> None:
    assert accept(V5, publish(V5, payload=b"\x00\x01x")) == Publish("a/b", b"\x00\x01x")
    with pytest.raises(MqttEncodeError):
        encode(Publish("a", packet_id=1), V5)


@pytest.mark.parametrize("statement", ["5:MQTT-2.2.2-1"])
def test_no_properties_is_a_length_of_zero(statement: str) -> None:
    assert encode(Publish("a"), V5) == b"\x30\x04\x00\x01a\x00"
    assert encode(Publish("a", properties=Properties()), V5) == b"\x30\x04\x00\x01a\x00"


@pytest.mark.parametrize("statement", ["5:MQTT-3.1.3-1", "5:MQTT-3.1.2-9", "5:MQTT-3.1.2-17", "5:MQTT-3.1.2-19"])
def test_the_fields_of_connect_come_in_order(statement: str) -> None:
    raw = connect(V5, flags=0xF6, payload=CLIENT + WILL + text("u") + text("p"))
    assert Decoder().feed(raw) == [
        Connect(
            "c",
            V5,
            clean_start=True,
            keep_alive=60,
            will=Will("w", b"gone", qos=2, retain=True),
            username="u",
            password=b"p",
        )
    ]


@pytest.mark.parametrize("statement", ["5:MQTT-3.1.2-19"])
def test_a_password_without_a_user_name_is_allowed(statement: str) -> None:
    (packet,) = Decoder().feed(connect(V5, flags=0x42, payload=CLIENT + text("token")))
    assert isinstance(packet, Connect)
    assert (packet.username, packet.password) == (None, b"token")


@pytest.mark.parametrize("statement", ["5:MQTT-3.1.3-6"])
@pytest.mark.parametrize("flags", [0, 2])
def test_an_empty_client_identifier_is_allowed(statement: str, flags: int) -> None:
    (packet,) = Decoder().feed(connect(V5, flags=flags, payload=b"\x00\x00"))
    assert isinstance(packet, Connect)
    assert packet.client_id == ""


@pytest.mark.parametrize("statement", ["5:MQTT-3.1.3-10"])
def test_user_properties_of_a_will_keep_their_order(statement: str) -> None:
    pairs = props(USER, b"\x26" + text("a") + text("1"), USER)
    raw = connect(V5, flags=0x06, payload=CLIENT + pairs + text("w") + text(""))
    (packet,) = Decoder().feed(raw)
    assert isinstance(packet, Connect)
    assert packet.will is not None
    assert packet.will.properties is not None
    assert packet.will.properties.user_properties == [("k", "v"), ("a", "1"), ("k", "v")]


@pytest.mark.parametrize("statement", ["5:MQTT-3.1.4-6"])
def test_nothing_after_a_refused_connect_is_processed(statement: str) -> None:
    decoder = Decoder()
    assert refuse_by(decoder, connect(V5, flags=3) + publish(V5)).packets_before == []
    assert refuse_by(decoder, publish(V5)).packets_before == []


@pytest.mark.parametrize("statement", ["5:MQTT-3.3.2-4"])
def test_payloads_are_flagged_and_let_through(statement: str) -> None:
    wrong = accept(V5, publish(V5, properties=props(b"\x01\x01"), payload=b"\xff"))
    right = accept(V5, publish(V5, properties=props(b"\x01\x01"), payload=b"ok"))
    neither = accept(V5, publish(V5, payload=b"\xff"))
    assert isinstance(wrong, Publish)
    assert isinstance(right, Publish)
    assert isinstance(neither, Publish)
    assert wrong.payload == b"\xff"
    assert [p.payload_format_violated for p in (wrong, right, neither)] == [True, False, False]


@pytest.mark.parametrize("statement", ["5:MQTT-3.3.2-18", "5:MQTT-3.3.2-17"])
def test_user_properties_keep_their_order(statement: str) -> None:
    packet = accept(V5, _with(USER, b"\x26" + text("a") + text("1"), USER))
    assert isinstance(packet, Publish)
    assert packet.properties == Properties(user_properties=[("k", "v"), ("a", "1"), ("k", "v")])
    assert accept(V5, encode(packet, V5)) == packet


@pytest.mark.parametrize("statement", ["5:MQTT-3.3.2-12"])
def test_all_topic_aliases_but_zero_are_decoded(statement: str) -> None:
    for alias in (1, 65_535):
        packet = accept(V5, publish(V5, topic="", properties=props(b"\x23" + alias.to_bytes(2, "big"))))
        assert packet == Publish("", properties=Properties(topic_alias=alias))


@pytest.mark.parametrize("statement", ["5:MQTT-3.3.4-3", "5:MQTT-3.3.4-4"])
def test_several_subscription_identifiers_come_from_a_server(statement: str) -> None:
    raw = _with(b"\x0b\x07", b"\x0b\x80\x01")
    assert accept(V5, raw, "client") == Publish("a/b", properties=Properties(subscription_identifiers=[7, 128]))


@pytest.mark.parametrize("statement", ["5:MQTT-3.4.2-1"])
def test_acknowledgements_with_codes_are_accepted(statement: str) -> None:
    assert accept(V5, b"\x40\x03\x00\x07\x10") == Puback(7, ReasonCode.NO_MATCHING_SUBSCRIBERS)
    assert accept(V5, b"\x40\x04\x00\x07\x97\x00") == Puback(7, ReasonCode.QUOTA_EXCEEDED)


@pytest.mark.parametrize("statement", ["5:MQTT-3.8.4-5", "5:MQTT-3.9.3-1"])
def test_filters_keep_their_order_and_options(statement: str) -> None:
    packet = accept(V5, subscribe(V5, ("b", 0x1D), ("a", 0), ("$share/g/b", 0x22)))
    assert isinstance(packet, Subscribe)
    assert [(r.filter, r.qos, r.no_local, r.retain_as_published, r.retain_handling) for r in packet.subscriptions] == [
        ("b", 1, True, True, 1),
        ("a", 0, False, False, 0),
        ("$share/g/b", 2, False, False, 2),
    ]


@pytest.mark.parametrize("statement", ["5:MQTT-3.10.4-6"])
def test_filters_of_unsubscribe_keep_their_order(statement: str) -> None:
    packet = accept(V5, unsubscribe(V5, "b", "a/#", "$share/g/b"))
    assert isinstance(packet, Unsubscribe)
    assert packet.filters == ["b", "a/#", "$share/g/b"]


@pytest.mark.parametrize("statement", ["5:MQTT-3.14.2-1"])
def test_disconnects_are_accepted(statement: str) -> None:
    assert accept(V5, b"\xe0\x00") == Disconnect()
    assert accept(V5, b"\xe0\x01\x04") == Disconnect(ReasonCode.DISCONNECT_WITH_WILL_MESSAGE)
    assert accept(V5, b"\xe0\x02\x81\x00") == Disconnect(ReasonCode.MALFORMED_PACKET)


@pytest.mark.parametrize("statement", ["5:MQTT-4.12.0-3", "5:MQTT-3.15.2-1"])
def test_auth_continues(statement: str) -> None:
    raw = frame(0xF0, b"\x18" + props(b"\x15" + text("M"), b"\x16" + text("d")))
    wanted = Auth(ReasonCode.CONTINUE_AUTHENTICATION, Properties(authentication_method="M", authentication_data=b"d"))
    assert accept(V5, raw) == wanted


@pytest.mark.parametrize("statement", ["5:MQTT-4.7.2-1"])
@pytest.mark.parametrize("name", ["#", "+/monitor", "+/#", "+"])
def test_leading_wildcards_do_not_match_dollar_topics(statement: str, name: str) -> None:
    assert not matches(name, "$SYS/monitor")
    assert not matches(name, "$SYS")


@pytest.mark.parametrize("statement", ["5:MQTT-4.7.3-3"])
def test_topics_over_65535_bytes_are_not_sent(statement: str) -> None:
    with pytest.raises(MqttEncodeError):
        encode(Publish("x" * 65_536), V5)


@pytest.mark.parametrize("statement", ["5:MQTT-4.7.3-4"])
def test_topics_are_not_normalised(statement: str) -> None:
    for topic in ("/a", "a/", "A", "a//b", "cafe\u0301", " a "):
        packet = accept(V5, publish(V5, topic=topic))
        assert isinstance(packet, Publish)
        assert packet.topic == topic


@pytest.mark.parametrize("statement", ["5:MQTT-4.13.1-1"])
def test_packets_before_a_violation_are_kept(statement: str) -> None:
    error = refuse(V5, publish(V5, payload=b"1") + publish(V5, payload=b"2") + b"\x36\x00" + b"\xc0\x00")
    assert error.packets_before == [Publish("a/b", b"1"), Publish("a/b", b"2")]
    assert error.answer == b"\xe0\x01\x81"
