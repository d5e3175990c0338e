"""Numbers: reason codes and their 3.1.1 counterparts."""

from __future__ import annotations

import pytest

from gapless.mqtt import PacketType, ProtocolVersion, ReasonCode, connect_return_code
from gapless.mqtt.codes import REASON_OF_RETURN_CODE_311


def test_failures_begin_at_0x80() -> None:
    assert not ReasonCode.REAUTHENTICATE.is_failure
    assert ReasonCode.UNSPECIFIED_ERROR.is_failure


def test_aliases_of_zero() -> None:
    assert ReasonCode["NORMAL_DISCONNECTION"] is ReasonCode.SUCCESS
    assert ReasonCode["GRANTED_QOS_0"] is ReasonCode.SUCCESS


@pytest.mark.parametrize("code", range(6))
def test_return_codes_have_a_reason_and_back(code: int) -> None:
    assert connect_return_code(REASON_OF_RETURN_CODE_311[code]) == code


def test_most_reasons_have_no_return_code() -> None:
    assert connect_return_code(ReasonCode.PACKET_TOO_LARGE) is None


def test_the_numbers_of_the_standard() -> None:
    assert [kind.value for kind in PacketType] == list(range(1, 16))
    assert [version.value for version in ProtocolVersion] == [4, 5]
