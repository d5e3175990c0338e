"""Packets built by hand from bytes, right or wrong, for tests that must not trust the encoder."""

from __future__ import annotations

from typing import Literal

import pytest

from gapless.mqtt import Decoder, MqttProtocolError, Packet, ProtocolVersion

V311 = ProtocolVersion.V311
V5 = ProtocolVersion.V5


def text(value: str | bytes) -> bytes:
    """A length-prefixed string; bytes go in as they are."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def frame(first: int, body: bytes) -> bytes:
    """A fixed header and a body of up to 16,383 bytes."""
    size = len(body)
    length = bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))
    return bytes((first,)) + length + body


def props(*items: bytes) -> bytes:
    """A property length below 128 and the properties."""
    body = b"".join(items)
    assert len(body) < 128
    return bytes((len(body),)) + body


def connect(
    version: ProtocolVersion,
    *,
    flags: int = 0x02,
    name: bytes = b"MQTT",
    level: int | None = None,
    properties: bytes = b"\x00",
    payload: bytes = b"\x00\x01c",
) -> bytes:
    head = text(name) + bytes((version if level is None else level, flags)) + b"\x00\x3c"
    return frame(0x10, head + (properties if version is V5 else b"") + payload)


def publish(
    version: ProtocolVersion,
    *,
    topic: str | bytes = "a/b",
    flags: int = 0,
    packet_id: bytes = b"",
    properties: bytes = b"\x00",
    payload: bytes = b"",
) -> bytes:
    body = text(topic) + packet_id + (properties if version is V5 else b"") + payload
    return frame(0x30 | flags, body)


def subscribe(
    version: ProtocolVersion,
    *filters: tuple[str | bytes, int],
    first: int = 0x82,
    packet_id: int = 1,
    properties: bytes = b"\x00",
) -> bytes:
    body = packet_id.to_bytes(2, "big") + (properties if version is V5 else b"")
    return frame(first, body + b"".join(text(name) + bytes((options,)) for name, options in filters))


def unsubscribe(
    version: ProtocolVersion,
    *filters: str | bytes,
    first: int = 0xA2,
    packet_id: int = 1,
    properties: bytes = b"\x00",
) -> bytes:
    body = packet_id.to_bytes(2, "big") + (properties if version is V5 else b"")
    return frame(first, body + b"".join(map(text, filters)))


def connected(version: ProtocolVersion, role: Literal["server", "client"] = "server") -> Decoder:
    """A decoder whose handshake is over."""
    return Decoder(role, version=version, expect_handshake=False)


def accept(version: ProtocolVersion, raw: bytes, role: Literal["server", "client"] = "server") -> Packet:
    """The one packet that `raw` is."""
    packets = connected(version, role).feed(raw)
    assert len(packets) == 1
    return packets[0]


def refuse(version: ProtocolVersion, raw: bytes, role: Literal["server", "client"] = "server") -> MqttProtocolError:
    """The violation that `raw` is on a connection whose handshake is over."""
    return refuse_by(connected(version, role), raw)


def refuse_by(decoder: Decoder, raw: bytes) -> MqttProtocolError:
    """The violation that `decoder` finds in `raw`."""
    with pytest.raises(MqttProtocolError) as caught:
        decoder.feed(raw)
    return caught.value
