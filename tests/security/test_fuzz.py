"""What strangers send, drawn at random: each parser answers with a value or with one of our errors.

400 cases for each parser, 150 for each door, the same in every run. Tokens, claims and rules are in tests/auth.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.envelope import MAX_DEPTH, check_depth, check_nodes, read_envelope, read_payload
from gapless.errors import ConfigError, GaplessError, InvalidPayload, InvalidPosition, InvalidTopic
from gapless.event import Position
from gapless.mqtt import Decoder, MqttProtocolError
from gapless.mqtt.filters import covers, matches, validate_filter, validate_topic
from gapless.topicmap import load_map
from gapless.transports.http.rest import parse_json
from tests.security.site import http, port, running, wire

parsers = settings(max_examples=400, deadline=None, derandomize=True)
doors = settings(max_examples=150, deadline=None, derandomize=True)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["id", "type", "topic", "data", "data_base64", "time", "timestamp", "userId"])


@parsers
@given(st.dictionaries(FIELDS, JSON, max_size=6))
def test_envelopes(document: dict[str, Any]) -> None:
    with suppress(GaplessError):
        envelope = read_envelope(document)
        assert envelope.binary or json.loads(envelope.data) == document.get("data")


@parsers
@given(st.binary(max_size=200) | st.dictionaries(FIELDS, JSON, max_size=6).map(lambda it: json.dumps(it).encode()))
def test_payloads_are_never_an_error(payload: bytes) -> None:
    envelope = read_payload(payload)
    assert envelope.binary or json.loads(envelope.data) == envelope.decoded


@parsers
@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:0\\e-', max_size=60).map(str.encode))
def test_json(text: bytes) -> None:
    with suppress(InvalidPayload):
        parse_json(text)


@parsers
@given(st.text(max_size=40) | st.from_regex(r"[0-9a-f]{0,20}:?-?[0-9]{0,30}", fullmatch=True))
def test_positions(text: str) -> None:
    with suppress(InvalidPosition):
        assert Position.parse(str(Position.parse(text))) == Position.parse(text)


TOPICS = st.text(alphabet="ab/+#$\0é", max_size=12)


@parsers
@given(TOPICS, TOPICS)
def test_topic_filters(filter_: str, topic: str) -> None:
    with suppress(InvalidTopic):
        validate_filter(filter_)
        assert covers(filter_, filter_)
        validate_topic(topic)
        assert not covers(filter_, topic) or matches(filter_, topic)


@parsers
@given(st.binary(max_size=120))
def test_mqtt_packets(data: bytes) -> None:
    with suppress(MqttProtocolError):
        Decoder(max_packet_size=1024).feed(data)


@settings(parsers, max_examples=200)
@given(st.text(alphabet='[]{}="#\ntopic room+/.{}a1', max_size=120))
def test_map_files(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "map.toml"
        path.write_text(text)
        with suppress(ConfigError):
            load_map(path)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b'"' + b'\\"' * 1_000_000, b'"\\' * 1_000_000])
def test_deep_and_endless_json_ends_in_an_error(text: bytes) -> None:
    with pytest.raises(InvalidPayload):
        parse_json(text)


def test_the_number_of_json_values_is_bounded() -> None:
    with pytest.raises(InvalidPayload, match="values"):
        check_nodes(b"[" + b"[]," * 20 + b"0]", limit=30)
    check_nodes(b'["' + b"[]," * 20 + b'"]', limit=30)  # in a string
    check_nodes(b'["\\"' + b"," * 60 + b'"]', limit=30)
    with pytest.raises(InvalidPayload, match="levels"):
        check_depth(json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)))


async def test_malformed_bytes_at_the_ports_harm_nobody() -> None:
    """Each is answered or closed; and the gateway serves on."""
    cases: list[tuple[str, bytes]] = []

    @doors
    @given(st.sampled_from(["http", "mqtt"]), st.binary(min_size=1, max_size=120))
    def draw(door: str, data: bytes) -> None:
        prefix = b"POST /api/events HTTP/1.1\r\nhost: localhost\r\n" if door == "http" else b"\x10"
        cases.append((door, data if len(data) % 2 else prefix + data))

    draw()
    async with running() as gateway, http(gateway) as client:
        for door, data in cases:
            url = gateway.http_url if door == "http" else gateway.mqtt_url
            async with wire(url) as connection:
                connection.send(data)
                connection.writer.write_eof()
                answer = await connection.ended()
                assert b" 500 " not in answer[:20], data
        accepted = await client.post("/api/events", json={"topic": "crm/leads/1/created", "data": {}})
        assert accepted.status_code == 201
        assert port(gateway.mqtt_url)
