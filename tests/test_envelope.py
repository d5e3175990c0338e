from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.envelope import (
    MAX_DEPTH,
    MAX_NODES,
    check_depth,
    content_id,
    data_with_captures,
    envelope_json,
    named_user,
    read_envelope,
    read_payload,
    read_received,
)
from gapless.errors import InvalidPayload, TooComplex
from gapless.event import Event, Origin, Record

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def event(data: bytes = b'{"name":"Acme"}', *, captures: dict[str, str] | None = None, **fields: Any) -> Event:
    return Event(
        id="1",
        type="lead:created",
        topic="crm/leads/5/created",
        rooms=("lead:5",),
        data=data,
        time=1_767_225_600_125,
        origin=Origin("rest"),
        captures={"leadId": "5"} if captures is None else captures,
        **fields,
    )


def test_the_envelope_has_the_fields_of_the_wire_format() -> None:
    assert json.loads(envelope_json(Record(event(user_id="u1"), 7, "abc:7"))) == {
        "id": "1",
        "type": "lead:created",
        "topic": "crm/leads/5/created",
        "data": {"name": "Acme"},
        "time": "2026-01-01T00:00:00.125Z",
        "userId": "u1",
        "position": "abc:7",
        "leadId": "5",
    }


def test_binary_data_is_base64_in_the_envelope() -> None:
    document = json.loads(envelope_json(Record(event(b"\x00\xff", binary=True), 1, "a:1")))
    assert base64.b64decode(document["data_base64"]) == b"\x00\xff"
    assert "data" not in document


def test_the_envelope_is_encoded_once() -> None:
    record = Record(event(), 1, "a:1")
    assert envelope_json(record) is envelope_json(record)


def test_a_captured_user_id_stands_in_for_an_absent_one_only() -> None:
    captures = {"userId": "7"}
    assert json.loads(envelope_json(Record(event(captures=captures))))["userId"] == "7"
    assert json.loads(envelope_json(Record(event(captures=captures, user_id="9"))))["userId"] == "9"


@given(JSON)
def test_what_is_read_from_an_envelope_is_what_was_written(data: object) -> None:
    text = msgspec.json.encode({"id": "x", "type": "t", "data": data})
    envelope = read_payload(text)
    assert not envelope.foreign
    assert json.loads(envelope.data) == json.loads(text)["data"]


@given(st.binary(max_size=200))
def test_any_payload_becomes_an_event(payload: bytes) -> None:
    envelope = read_payload(payload)
    if envelope.binary:
        assert envelope.data == payload
    else:
        json.loads(envelope.data)


@pytest.mark.parametrize(
    ("payload", "binary", "foreign"),
    [
        (b'{"id":"1","type":"t","data":{},"time":"2026-01-01T00:00:00Z"}', False, False),
        (b'{"type":"t","data":{"a":1},"timestamp":1767225600000,"userId":"u"}', False, False),
        (b'{"temperature":20}', False, True),
        (b'{"type":"t"}', False, True),
        (b'{"data":1}', False, True),
        (b"20.5", False, True),
        (b"\x80\x81", True, True),
        (b"hello", True, True),
        (b'{"a":', True, True),
        (b"\xef\xbb\xbf{}", True, True),
        (b'{"id":"1","type":7,"data":1}', False, True),
        (b"[" * 100, True, True),
        (b'"\xff"', True, True),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_payload_is_an_envelope_or_json_or_bytes(payload: bytes, *, binary: bool, foreign: bool) -> None:
    envelope = read_payload(payload)
    assert (envelope.binary, envelope.foreign) == (binary, foreign)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 900, 100_000])
def test_a_payload_that_is_nested_too_deep_is_refused(levels: int) -> None:
    payload = b"[" * levels + b"]" * levels
    for each in (payload, b'{"id":"1","data":%b}' % payload, b'{"x":%b}' % payload):
        with pytest.raises(TooComplex):
            read_payload(each)
        assert read_received(each).binary


def test_the_envelope_is_no_level_of_its_data() -> None:
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert read_payload(b'{"id":"1","data":%b}' % deepest).data == deepest
    with pytest.raises(TooComplex):
        read_payload(b'{"id":"1","data":1,"more":[%b]}' % deepest)


SOMEBODY = '{"id":"1","userId":"9","data":1}'


@pytest.mark.parametrize(
    "payload",
    [
        SOMEBODY.replace("1}", "NaN}").encode(),
        SOMEBODY.replace("1}", "1e999}").encode(),
        SOMEBODY.replace("1}", "9" * 5000 + "}").encode(),
        SOMEBODY.replace("1}", '"\\ud800"}').encode(),
        SOMEBODY.replace("1}", '"\xff"}').encode("latin-1"),
        SOMEBODY.replace("1}", '"\n"}').encode(),
        SOMEBODY.encode("utf-8-sig"),
        SOMEBODY.encode("utf-16"),
        SOMEBODY.encode("utf-16-le"),
        SOMEBODY.encode("utf-32"),
        SOMEBODY.encode() + b"\0",
        b"\r\n " + SOMEBODY.encode() + b" and more",
        SOMEBODY.replace("userId", "user\\u0049d").encode() + b"{}",
    ],
    ids=lambda payload: repr(payload)[:40],
)
def test_a_user_is_found_where_only_a_careless_reader_would(payload: bytes) -> None:
    envelope = read_payload(payload)
    assert envelope.binary
    assert named_user(envelope) == "9"


def test_what_hides_a_user_by_its_depth_or_size_is_refused() -> None:
    for payload in (
        b'{"userId":"9","id":"1","data":NaN,"x":' + b"[" * 20_000,
        b'{"userId":"9","id":"1","data":NaN,"x":[' + b"0," * MAX_NODES + b"0]}",
    ):
        with pytest.raises(TooComplex):
            named_user(read_payload(payload))
    assert named_user(read_payload(b"{\x80\x81")) is None


def test_the_older_form_is_understood() -> None:
    envelope = read_payload(b'{"type":"t","data":{"a":1},"timestamp":1767225600000,"userId":"u"}')
    assert (envelope.type, envelope.user_id, envelope.time) == ("t", "u", 1_767_225_600_000)
    assert json.loads(envelope.data) == {"a": 1}


def test_json_over_several_lines_is_kept_on_one() -> None:
    assert b"\n" not in read_payload(b'{\n  "a": 1\n}').data


@pytest.mark.parametrize(
    "document",
    [
        {"data": 1, "id": ""},
        {"data": 1, "id": "x" * 129},
        {"data": 1, "id": 5},
        {"data": 1, "type": ["t"]},
        {"data": 1, "time": "yesterday"},
        {"data": 1, "time": True},
        {"data_base64": "%%%"},
        {"data_base64": 5},
        {"data": 1, "data_base64": "AA=="},
    ],
    ids=str,
)
def test_a_wrong_field_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidPayload):
        read_envelope(document)


def nested(levels: int) -> object:
    document: object = 1
    for _ in range(levels):
        document = [document]
    return document


def test_depth_is_bounded() -> None:
    check_depth(nested(MAX_DEPTH - 1))
    with pytest.raises(InvalidPayload):
        check_depth(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"name":"Acme"}', {"leadId": "5", "name": "Acme"}),
        (b"{}", {"leadId": "5"}),
        (b'{"leadId":"other"}', {"leadId": "other"}),
        (b'{"nested":{"leadId":"x"}}', {"leadId": "5", "nested": {"leadId": "x"}}),
        (b"[1]", [1]),
        (b"null", None),
    ],
)
def test_socketio_data_has_the_captures_and_no_key_twice(data: bytes, expected: object) -> None:
    def no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    assert json.loads(data_with_captures(event(data)), object_pairs_hook=no_duplicates) == expected


def test_the_content_id_depends_on_topic_and_payload_alone() -> None:
    assert content_id("a", b"x") == content_id("a", b"x")
    assert len({content_id("a", b"x"), content_id("a", b"y"), content_id("b", b"x")}) == 3
