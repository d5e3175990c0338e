"""The codec's errors: what they carry, and that they are the project's own."""

from __future__ import annotations

from gapless.errors import GaplessError
from gapless.mqtt import MqttEncodeError, MqttProtocolError, ReasonCode


def test_a_protocol_error_tells_code_text_and_figures() -> None:
    error = MqttProtocolError(ReasonCode.PACKET_TOO_LARGE, "the packet is too large", size=3, limit=2)
    assert isinstance(error, GaplessError)
    assert str(error) == "the packet is too large (0x95 PACKET_TOO_LARGE)"
    assert error.to_wire() == {
        "code": "mqtt_protocol_error",
        "message": "the packet is too large",
        "retryable": False,
        "details": {"size": 3, "limit": 2},
    }


def test_errors_share_no_list_of_packets() -> None:
    first = MqttProtocolError(ReasonCode.PROTOCOL_ERROR, "x")
    second = MqttProtocolError(ReasonCode.PROTOCOL_ERROR, "x")
    assert first.packets_before == []
    assert first.packets_before is not second.packets_before


def test_an_encode_error_is_our_own_fault() -> None:
    assert MqttEncodeError("x").http_status == 500
