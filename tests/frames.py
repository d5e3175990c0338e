"""WebSocket frames by hand (RFC 6455 §5.2), for what no client library would send, and for MQTT over them."""

from __future__ import annotations

import asyncio

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, masked: bool = True, length: int = -1
) -> bytes:
    """One frame of a client. Its mask is zero, so that the payload stays as it is.

    Args:
        reserved: RSV1 to RSV3, as a number from 0 to 7.
        length: what it says its length is; below 0 it tells the truth.
    """
    size = len(payload) if length < 0 else length
    head = bytes([fin << 7 | reserved << 4 | opcode])
    mask = masked << 7
    if size < 126:
        head += bytes([mask | size])
    elif size < 1 << 16:
        head += bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + size.to_bytes(8, "big")
    return head + (bytes(4) if masked else b"") + payload


def split(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames of a server, by opcode and payload, and what comes after them."""
    frames = []
    while len(data) >= 2:
        size, start = data[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            if len(data) < start:
                break
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            break
        frames.append((data[0] & 15, data[start : start + size]))
        data = data[start + size :]
    return frames, data


class BinaryReader:
    """The payloads of a server's binary frames, as one stream of bytes, like `asyncio.StreamReader`."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._rest = b""
        self._closed = False

    async def read(self, most: int) -> bytes:
        """The next bytes; none at the end, or once the server closes."""
        while not self._closed:
            data = await self._reader.read(most)
            if not data:
                return b""
            frames, self._rest = split(self._rest + data)
            self._closed |= any(opcode == CLOSE for opcode, _ in frames)
            if payload := b"".join(payload for opcode, payload in frames if opcode == BINARY):
                return payload
        return b""


class BinaryWriter:
    """Writes bytes as binary frames, like `asyncio.StreamWriter`."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.transport = writer.transport

    def write(self, data: bytes) -> None:
        """Send one frame."""
        self._writer.write(frame(BINARY, data))

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()
