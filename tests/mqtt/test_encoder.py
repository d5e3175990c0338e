"""Bytes as the standards show them in their examples, and what the encoder refuses."""

from __future__ import annotations

import pytest

from gapless.mqtt import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    MqttEncodeError,
    MqttProtocolError,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    ProtocolVersion,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
    encode,
    encode_publish,
)
from gapless.mqtt.encoder import encode_error_answer
from tests.mqtt.raw import V5, V311

GRANTED = [ReasonCode.GRANTED_QOS_0, ReasonCode.GRANTED_QOS_2, ReasonCode.UNSPECIFIED_ERROR]


def _connect(version: ProtocolVersion, properties: Properties | None = None) -> Connect:
    """The CONNECT of figure 3.6 (3.1.1) and 3-6 (5), with a payload added."""
    return Connect(
        "c",
        version,
        clean_start=True,
        keep_alive=10,
        will=Will("w", b"x", qos=1),
        username="u",
        password=b"p",
        properties=properties,
    )


@pytest.mark.parametrize(
    ("packet", "version", "raw"),
    [
        pytest.param(
            _connect(V311),
            V311,
            "1019 00044d515454 04 ce 000a 000163 000177 000178 000175 000170",
            id="3.1.1 figure 3.6 CONNECT",
        ),
        pytest.param(
            _connect(V5, Properties(session_expiry_interval=10)),
            V5,
            "1020 00044d515454 05 ce 000a 05 11 0000000a 000163 00 000177 000178 000175 000170",
            id="5 figure 3-6 CONNECT",
        ),
        pytest.param(Connack(session_present=True), V311, "20020100", id="3.1.1 figure 3.8 CONNACK"),
        pytest.param(Connack(), V5, "2003000000", id="5 figure 3-7 CONNACK"),
        pytest.param(
            Publish("a/b", b"", qos=1, packet_id=10), V311, "3207 0003612f62 000a", id="3.1.1 figure 3.11 PUBLISH"
        ),
        pytest.param(
            Publish("a/b", b"", qos=1, packet_id=10), V5, "3208 0003612f62 000a 00", id="5 figure 3-9 PUBLISH"
        ),
        pytest.param(
            Publish("a", b"x", qos=2, packet_id=1, retain=True, dup=True),
            V311,
            "3d06 000161 0001 78",
            id="PUBLISH flags",
        ),
        pytest.param(Puback(0x1234), V311, "40021234", id="3.1.1 figure 3.13 PUBACK"),
        pytest.param(Puback(0x1234), V5, "40021234", id="5 §3.4.2.1 PUBACK success is short"),
        pytest.param(Puback(1, ReasonCode.QUOTA_EXCEEDED), V5, "4003000197", id="5 §3.4.2.2.1 no properties"),
        pytest.param(
            Puback(1, properties=Properties(reason_string="r")), V5, "40080001 00 04 1f 000172", id="PUBACK properties"
        ),
        pytest.param(Pubrec(1), V311, "50020001", id="PUBREC"),
        pytest.param(Pubrel(1), V311, "62020001", id="PUBREL"),
        pytest.param(Pubcomp(1), V311, "70020001", id="PUBCOMP"),
        pytest.param(
            Subscribe(10, [SubscriptionRequest("a/b", 1), SubscriptionRequest("c/d", 2)]),
            V311,
            "820e 000a 0003612f62 01 0003632f64 02",
            id="3.1.1 figure 3.23 SUBSCRIBE",
        ),
        pytest.param(
            Subscribe(10, [SubscriptionRequest("a/b", 1), SubscriptionRequest("c/d", 2)]),
            V5,
            "820f 000a 00 0003612f62 01 0003632f64 02",
            id="5 figure 3-20 SUBSCRIBE",
        ),
        pytest.param(Suback(10, GRANTED), V311, "9005 000a 000280", id="3.1.1 figure 3.27 SUBACK"),
        pytest.param(Suback(10, GRANTED), V5, "9006 000a 00 000280", id="5 SUBACK"),
        pytest.param(
            Unsubscribe(10, ["a/b", "c/d"]), V311, "a20c 000a 0003612f62 0003632f64", id="3.1.1 figure 3.30 UNSUBSCRIBE"
        ),
        pytest.param(
            Unsubscribe(10, ["a/b", "c/d"]), V5, "a20d 000a 00 0003612f62 0003632f64", id="5 figure 3-30 UNSUBSCRIBE"
        ),
        pytest.param(Unsuback(10, [ReasonCode.SUCCESS]), V311, "b002 000a", id="3.1.1 figure 3.31 UNSUBACK"),
        pytest.param(Unsuback(10, [ReasonCode.NO_SUBSCRIPTION_EXISTED]), V5, "b004 000a 00 11", id="5 UNSUBACK"),
        pytest.param(Pingreq(), V311, "c000", id="PINGREQ"),
        pytest.param(Pingresp(), V5, "d000", id="PINGRESP"),
        pytest.param(Disconnect(), V311, "e000", id="3.1.1 DISCONNECT"),
        pytest.param(Disconnect(), V5, "e000", id="5 DISCONNECT normal"),
        pytest.param(Disconnect(ReasonCode.SERVER_SHUTTING_DOWN), V5, "e0018b", id="5 DISCONNECT"),
        pytest.param(Auth(), V5, "f000", id="5 AUTH success"),
    ],
)
def test_known_bytes(packet: Packet, version: ProtocolVersion, raw: str) -> None:
    assert encode(packet, version) == bytes.fromhex(raw.replace(" ", ""))


@pytest.mark.parametrize(
    ("packet", "version"),
    [
        (Publish("a", qos=3, packet_id=1), V5),
        (Publish("a", qos=1), V5),
        (Publish("a", dup=True), V5),
        (Publish("a", qos=1, packet_id=65_536), V311),
        (Publish("a\0"), V311),
        (Puback(0), V311),
        (Connect("c", V311, password=b"p"), V311),
        (Connect("c", V5, keep_alive=65_536), V5),
        (Connect("c", V5, will=Will("w", b"", qos=3)), V5),
        (Subscribe(1, [SubscriptionRequest("a", 3)]), V5),
        (Subscribe(1, [SubscriptionRequest("a", retain_handling=3)]), V5),
        (Auth(), V311),
        (Disconnect(properties=Properties(session_expiry_interval=1, server_reference="s")), V5),
    ],
    ids=repr,
)
def test_what_cannot_be_said_is_refused(packet: Packet, version: ProtocolVersion) -> None:
    with pytest.raises(MqttEncodeError):
        encode(packet, version)


def test_properties_are_left_out_for_311() -> None:
    assert encode_publish("a", b"x", version=V311, properties=Properties(topic_alias=1)) == b"\x30\x04\x00\x01ax"


@pytest.mark.parametrize(
    ("version", "by_server", "connected", "answer"),
    [
        (None, True, False, b""),
        (V5, True, True, b"\xe0\x01\x8f"),
        (V5, False, True, b"\xe0\x01\x82"),  # a client's DISCONNECT has no 0x8F
        (V5, False, False, b""),
        (V311, True, True, b""),
        (V311, True, False, b""),
    ],
)
def test_answers_to_violations(
    version: ProtocolVersion | None, by_server: bool, connected: bool, answer: bytes
) -> None:
    error = MqttProtocolError(ReasonCode.TOPIC_FILTER_INVALID, "x")
    error.version = version
    assert encode_error_answer(error, by_server=by_server, connected=connected) == answer
