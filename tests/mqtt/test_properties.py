"""Properties: the table of the standard, and bounds on what a packet may bring."""

from __future__ import annotations

import pytest

from gapless.mqtt import MqttEncodeError, MqttProtocolError, Properties, ReasonCode
from gapless.mqtt.properties import ALLOWED, FIELDS, PropertyContext, decode_properties, encode_properties
from gapless.mqtt.wire import Reader

C = PropertyContext
PUBLISH = {C.PUBLISH_BY_CLIENT, C.PUBLISH_BY_SERVER}
ACKS = {C.PUBACK, C.PUBREC, C.PUBREL, C.PUBCOMP, C.SUBACK, C.UNSUBACK}
DISCONNECT = {C.DISCONNECT_BY_CLIENT, C.DISCONNECT_BY_SERVER}

#: MQTT 5 §2.2.2.2, table 2-4, column "Packet / Will Properties", narrowed where §3 names the sender.
TABLE: dict[int, set[PropertyContext]] = {
    1: PUBLISH | {C.WILL},
    2: PUBLISH | {C.WILL},
    3: PUBLISH | {C.WILL},
    8: PUBLISH | {C.WILL},
    9: PUBLISH | {C.WILL},
    11: {C.PUBLISH_BY_SERVER, C.SUBSCRIBE},
    17: {C.CONNECT, C.CONNACK, C.DISCONNECT_BY_CLIENT},
    18: {C.CONNACK},
    19: {C.CONNACK},
    21: {C.CONNECT, C.CONNACK, C.AUTH},
    22: {C.CONNECT, C.CONNACK, C.AUTH},
    23: {C.CONNECT},
    24: {C.WILL},
    25: {C.CONNECT},
    26: {C.CONNACK},
    28: {C.CONNACK, C.DISCONNECT_BY_SERVER},
    31: {C.CONNACK, C.AUTH} | ACKS | DISCONNECT,
    33: {C.CONNECT, C.CONNACK},
    34: {C.CONNECT, C.CONNACK},
    35: set(PUBLISH),
    36: {C.CONNACK},
    37: {C.CONNACK},
    38: set(C),
    39: {C.CONNECT, C.CONNACK},
    40: {C.CONNACK},
    41: {C.CONNACK},
    42: {C.CONNACK},
}


def test_which_packet_has_which_property() -> None:
    assert set(FIELDS) == set(TABLE)
    ours = {identifier: {c for c in C if identifier in ALLOWED[c]} for identifier in FIELDS}
    assert ours == TABLE


def test_every_field_of_the_struct_has_an_identifier() -> None:
    assert sorted(name for name, _ in FIELDS.values()) == sorted(Properties.__struct_fields__)


@pytest.mark.parametrize("context", list(C))
def test_foreign_properties_are_neither_sent_nor_accepted(context: PropertyContext) -> None:
    for identifier, (name, _) in FIELDS.items():
        if identifier in ALLOWED[context]:
            continue
        values = {name: [7] if name == "subscription_identifiers" else 1}
        with pytest.raises(MqttEncodeError):
            encode_properties(Properties(**values), context)  # type: ignore[arg-type]
        raw = bytes((3, identifier, 0, 1))
        with pytest.raises(MqttProtocolError) as caught:
            decode_properties(Reader(raw, 0, 4), context, max_items=9)
        assert caught.value.reason_code is ReasonCode.MALFORMED_PACKET


def test_the_number_of_user_properties_is_bounded() -> None:
    raw = encode_properties(Properties(user_properties=[("k", "v")] * 11), C.PUBACK)
    with pytest.raises(MqttProtocolError) as caught:
        decode_properties(Reader(raw, 0, len(raw)), C.PUBACK, max_items=10)
    assert caught.value.reason_code is ReasonCode.QUOTA_EXCEEDED
    assert caught.value.details == {"limit": 10}
    assert decode_properties(Reader(raw, 0, len(raw)), C.PUBACK, max_items=11) is not None


def test_lists_are_not_shared_between_instances() -> None:
    assert Properties().user_properties is not Properties().user_properties


def test_the_representation_shows_what_is_there_and_no_secret() -> None:
    shown = repr(Properties(authentication_method="M", authentication_data=b"hush", topic_alias=3))
    assert "hush" not in shown
    assert shown == "Properties(authentication_method='M', authentication_data=..., topic_alias=3)"


def test_a_property_length_never_reaches_into_the_next_packet() -> None:
    """One byte too long, with bytes of another packet behind the end that would fill it."""
    raw = bytes((5, 0x1F, 0, 2)) + b"rX"
    for end in (4, 5):
        with pytest.raises(MqttProtocolError) as caught:
            decode_properties(Reader(raw, 0, end), C.PUBACK, max_items=9)
        assert caught.value.reason_code is ReasonCode.MALFORMED_PACKET
