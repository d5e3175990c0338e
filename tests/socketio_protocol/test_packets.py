"""The packet codecs alone: Engine.IO 4 and Socket.IO 5, packet encoding."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from engineio import packet as eio
from hypothesis import given
from hypothesis import strategies as st
from socketio import packet as sio

from gapless.envelope import MAX_DEPTH, MAX_NODES
from gapless.transports.socketio.packets import (
    MAX_ATTACHMENTS,
    RESERVED_EVENTS,
    Packet,
    decode_engine_packet,
    decode_payload,
    decode_socketio_packet,
    encode_payload,
)


@given(st.lists(st.one_of(st.text(st.characters(codec="utf-8", exclude_characters="\x1e")), st.binary()), min_size=1))
def test_a_payload_survives(messages: list[str | bytes]) -> None:
    packets = decode_payload(encode_payload([eio.Packet(eio.MESSAGE, message) for message in messages]))
    assert [(packet.packet_type, packet.data) for packet in packets] == [(eio.MESSAGE, data) for data in messages]


@given(st.one_of(st.text(), st.text('0123456b4[]{}",-/abc1_:'), st.binary()))
def test_anything_else_is_refused_with_a_value_error(encoded: str | bytes) -> None:
    with contextlib.suppress(ValueError):
        assert decode_engine_packet(encoded).encode() == encoded or str(encoded).startswith("b")
    with contextlib.suppress(ValueError):
        assert decode_socketio_packet(encoded).packet_type != sio.CONNECT_ERROR


@pytest.mark.parametrize(
    ("encoded", "kind", "namespace", "identifier", "data", "attachments"),
    [
        ("0", sio.CONNECT, None, None, None, 0),
        ('0{"token":"123"}', sio.CONNECT, None, None, {"token": "123"}, 0),
        ("0/admin,", sio.CONNECT, "/admin", None, None, 0),
        ("0/admin", sio.CONNECT, "/admin", None, None, 0),
        ('0/admin,{"a":1}', sio.CONNECT, "/admin", None, {"a": 1}, 0),
        ("0/admin?token=1,", sio.CONNECT, "/admin", None, None, 0),
        ("1", sio.DISCONNECT, None, None, None, 0),
        ("1/admin,", sio.DISCONNECT, "/admin", None, None, 0),
        ('2["foo"]', sio.EVENT, None, None, ["foo"], 0),
        ('2["a-b/c,d",1]', sio.EVENT, None, None, ["a-b/c,d", 1], 0),
        ('2/admin,["bar"]', sio.EVENT, "/admin", None, ["bar"], 0),
        ('212["foo"]', sio.EVENT, None, 12, ["foo"], 0),
        ('2/admin,0["foo"]', sio.EVENT, "/admin", 0, ["foo"], 0),
        ("2[7]", sio.EVENT, None, None, ["7"], 0),
        ('3/admin,13["bar"]', sio.ACK, "/admin", 13, ["bar"], 0),
        ("312[]", sio.ACK, None, 12, [], 0),
        ("312[7]", sio.ACK, None, 12, [7], 0),
        ('50-["foo"]', sio.BINARY_EVENT, None, None, ["foo"], 0),
        (
            '51-["baz",{"_placeholder":true,"num":0}]',
            sio.BINARY_EVENT,
            None,
            None,
            ["baz", {"_placeholder": True, "num": 0}],
            1,
        ),
        ('52-/admin,7["baz"]', sio.BINARY_EVENT, "/admin", 7, ["baz"], 2),
        ("61-15[1]", sio.BINARY_ACK, None, 15, [1], 1),
    ],
)
def test_what_the_document_shows_is_read(
    encoded: str, kind: int, namespace: str | None, identifier: int | None, data: Any, attachments: int
) -> None:
    packet = decode_socketio_packet(encoded)
    assert (packet.packet_type, packet.namespace, packet.id) == (kind, namespace, identifier)
    assert (packet.data, packet.attachment_count) == (data, attachments)


@pytest.mark.parametrize(
    "encoded",
    [
        *("", "a", "7", "abc", "9[]", "x2"),
        *("0[]", "0null1", '0"a"', "1{}", "1[]"),
        *("2", "2[]", "2{}", '2"foo"', "2[null]", "2[{}]", "2[true]", "2[1.5]", "2[[]]"),
        *('2abc["foo"]', '2["foo"', '2["foo"]x', "2" + "9" * 5000 + '["foo"]'),
        *("3[]", "312", "312{}", "4", '4{"message":"no"}'),
        *('5["foo"]', '5-["foo"]', '21-["foo"]', "51-", f'5{MAX_ATTACHMENTS + 1}-["foo"]', "61-[1]"),
        *(f'2["{event}"]' for event in sorted(RESERVED_EVENTS)),
        *(f'50-["{event}"]' for event in sorted(RESERVED_EVENTS)),
    ],
)
def test_what_is_no_packet_of_a_client_is_refused(encoded: str) -> None:
    with pytest.raises(ValueError):
        decode_socketio_packet(encoded)


def test_binary_data_is_no_packet() -> None:
    with pytest.raises(ValueError, match="no packet announced"):
        decode_socketio_packet(b'2["foo"]')


@pytest.mark.parametrize("levels", [MAX_DEPTH + 3, 900, 100_000])
def test_nesting_too_deep_is_refused(levels: int) -> None:
    text = "[" * levels + "]" * levels
    assert decode_socketio_packet(f"27{text}").refused is not None
    assert decode_socketio_packet(f'2["publish",{{"data":{text[2:-2]}}}]').refused is not None
    for other in (f'0{{"a":{text}}}', f"37{text}"):  # no event, and nobody asked
        with pytest.raises(ValueError, match="nested"):
            decode_socketio_packet(other)


def test_the_data_of_an_event_may_be_as_deep_as_at_other_doors() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert decode_socketio_packet(f'2["publish",{{"data":{text}}}]').refused is None


def test_too_many_values_are_refused() -> None:
    packet = decode_socketio_packet('2["publish",[' + "0," * MAX_NODES + "0]]")
    assert (packet.refused is not None, packet.data) == (True, [])
    assert decode_socketio_packet('2["publish","' + "," * MAX_NODES + '"]').refused is None


def test_attachments_take_their_places() -> None:
    packet = decode_socketio_packet('52-["a",{"x":{"_placeholder":true,"num":1}},[{"_placeholder":true,"num":0}]]')
    assert not packet.add_attachment(b"first")
    assert packet.add_attachment(b"second")
    assert packet.data == ["a", {"x": b"second"}, [b"first"]]


@pytest.mark.parametrize("number", ["1", "-1", '"0"', "null", "0.0"])
def test_a_placeholder_for_no_attachment_is_refused(number: str) -> None:
    packet = decode_socketio_packet(f'51-["a",{{"_placeholder":true,"num":{number}}}]')
    with pytest.raises(ValueError, match="placeholder"):
        packet.add_attachment(b"first")


def test_text_is_no_attachment() -> None:
    packet = decode_socketio_packet('51-["a",{"_placeholder":true,"num":0}]')
    with pytest.raises(ValueError, match="text"):
        packet.add_attachment('2["a"]')


@given(
    st.sampled_from([sio.EVENT, sio.ACK]),
    st.one_of(st.none(), st.just("/admin")),
    st.integers(0, 10**9),
    st.lists(st.one_of(st.text(), st.integers(), st.booleans(), st.binary(max_size=8)), max_size=MAX_ATTACHMENTS - 1),
)
def test_what_is_sent_can_be_read(kind: int, namespace: str | None, identifier: int, arguments: list[Any]) -> None:
    sent = Packet(kind, data=["event", *arguments], namespace=namespace, id=identifier)
    encoded = sent.encode()
    header, attachments = (encoded, []) if isinstance(encoded, str) else (encoded[0], encoded[1:])
    packet = decode_socketio_packet(header)
    for attachment in attachments:
        packet.add_attachment(attachment)
    assert (packet.packet_type, packet.namespace, packet.id) == (sent.packet_type, namespace, identifier)
    assert packet.data == ["event", *arguments]
