"""The packets: immutable, and silent about secrets and payloads."""

from __future__ import annotations

import pytest

from gapless.mqtt import Connect, ProtocolVersion, Publish, Will


def test_representations_show_neither_passwords_nor_payloads() -> None:
    connect = Connect("c", ProtocolVersion.V5, username="u", password=b"hush", will=Will("w", b"secret will"))
    assert "hush" not in repr(connect)
    assert "secret" not in repr(connect)
    assert "username='u'" in repr(connect)
    publish = Publish("t", b"secret")
    assert "secret" not in repr(publish)
    assert "<6 bytes>" in repr(publish)


def test_a_missing_password_is_told_from_a_hidden_one() -> None:
    assert "password=None" in repr(Connect("c", ProtocolVersion.V5))
    assert "password='...'" in repr(Connect("c", ProtocolVersion.V5, password=b""))


def test_packets_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Publish("t").topic = "u"  # type: ignore[misc]
