"""One encoding for every subscriber: equal to encoding each packet by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.mqtt import MqttEncodeError, Properties, ProtocolVersion, PublishTemplate, encode_publish
from gapless.mqtt.properties import PropertyContext
from tests.mqtt.raw import V5, V311
from tests.mqtt.strategies import packet_ids, properties, repeatable, topics


@repeatable
@given(
    topic=topics,
    payload=st.binary(max_size=300),
    version=st.sampled_from(ProtocolVersion),
    retain=st.booleans(),
    carried=properties(PropertyContext.PUBLISH_BY_SERVER),
    qos=st.integers(1, 2),
    packet_id=packet_ids,
    dup=st.booleans(),
)
def test_a_template_gives_the_bytes_of_single_packets(
    topic: str,
    payload: bytes,
    version: ProtocolVersion,
    retain: bool,
    carried: Properties | None,
    qos: int,
    packet_id: int,
    dup: bool,
) -> None:
    template = PublishTemplate(topic, payload, version=version, retain=retain, properties=carried)
    plain = encode_publish(topic, payload, version=version, retain=retain, properties=carried)
    numbered = encode_publish(
        topic,
        payload,
        version=version,
        retain=retain,
        properties=carried,
        qos=qos,
        packet_id=packet_id,
        dup=dup,
    )
    assert (template.size(0), template.size(qos)) == (len(plain), len(numbered))
    assert template.qos0() == plain
    assert template.with_packet_id(qos, packet_id, dup) == numbered
    head, tail = template.parts(qos, dup=dup)
    assert head + packet_id.to_bytes(2, "big") + tail == numbered


@pytest.mark.parametrize("size", [0, 120, 121, 122, 123, 124, 16_370, 16_378, 16_379, 16_380, 16_381])
def test_sizes_where_the_length_grows(size: int) -> None:
    template = PublishTemplate("t", bytes(size), version=V311)
    assert template.size(0) == len(template.qos0())
    assert template.size(1) == len(template.with_packet_id(1, 1))


def test_the_encoding_is_made_once() -> None:
    template = PublishTemplate("t", b"x", version=V5)
    assert template.qos0() is template.qos0()
    assert template.parts(1)[0] is template.parts(1)[0]
    assert template.with_packet_id(1, 1) != template.with_packet_id(1, 2)


@pytest.mark.parametrize(("qos", "packet_id"), [(0, 1), (3, 1), (1, 0), (1, 65_536), (2, -1)])
def test_bad_numbers_are_refused(qos: int, packet_id: int) -> None:
    template = PublishTemplate("t", b"", version=V5)
    with pytest.raises(MqttEncodeError):
        template.with_packet_id(qos, packet_id)


def test_qos_stays_apart_from_dup() -> None:
    """Heads are kept by QoS and DUP; neither may shine through the other."""
    template = PublishTemplate("t", b"", version=V311)
    assert [template.with_packet_id(qos, 1, dup)[0] for qos in (1, 2) for dup in (False, True)] == [
        0x32,
        0x3A,
        0x34,
        0x3C,
    ]
    with pytest.raises(MqttEncodeError):
        template.with_packet_id(5, 1)
