"""The floor: the same wire traffic with nothing behind it. No log, no rooms, no checks.

    python -m bench.peers.raw_floor

It answers a publish on any of its doors by writing one frame, encoded once, to every subscriber's
transport, on uvloop where there is one; what came in one read goes out in one write. What it costs is what
the kernel and the event loop cost; what the generator reaches on it is what the generator can do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import cast

from bench.load.event import TOPIC, TYPE

_META = (
    b',{"id":"019b76da-a800-7000-8000-000000000001","topic":"crm/leads/123/updated",'
    b'"time":"2026-01-01T00:00:00.125Z","userId":null},"k3x9a2bq:1000000"]'
)
_OK = b'[{"ok":true,"id":"019b76da-a800-7000-8000-000000000001","position":"k3x9a2bq:1000000"}]'
_CREATED = b'{"id":"019b76da-a800-7000-8000-000000000001","position":"k3x9a2bq:1000000","duplicate":false}'
_ANSWER = (
    b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_CREATED) + _CREATED
)
_SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: raw floor\n\n"
_SSE = (
    b'id: k3x9a2bq:1000000\ndata: {"id":"019b76da-a800-7000-8000-000000000001","type":"lead:updated",'
    b'"topic":"crm/leads/123/updated","leadId":"123","time":"2026-01-01T00:00:00.125Z","userId":null,'
    b'"position":"k3x9a2bq:1000000","data":'
)
_NAME = len(TOPIC).to_bytes(2, "big") + TOPIC.encode()


def _text(payload: bytes) -> bytes:
    size = len(payload)
    return (bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + payload


class _Rooms:
    """Everybody who subscribed, by door and QoS."""

    def __init__(self) -> None:
        self.websockets: set[asyncio.Transport] = set()
        self.streams: set[asyncio.Transport] = set()
        self.mqtt: dict[asyncio.Transport, int] = {}
        self._id = 0

    def publish(self, events: list[bytes]) -> None:
        if self.websockets:
            frames = b"".join([_text(b'42["' + TYPE.encode() + b'",' + data + _META) for data in events])
            for transport in self.websockets:
                transport.write(frames)
        if self.streams:
            text = b"".join([_SSE + data + b"}\n\n" for data in events])
            for transport in self.streams:
                transport.write(text)
        if self.mqtt:
            self._publish_packets(events)

    def _publish_packets(self, events: list[bytes]) -> None:
        at_qos: list[list[bytes]] = [[], []]
        for data in events:
            self._id = self._id % 65_535 + 1
            size = len(_NAME) + len(data)
            at_qos[0].append(b"\x30" + _varint(size) + _NAME + data)
            at_qos[1].append(b"\x32" + _varint(size + 2) + _NAME + self._id.to_bytes(2, "big") + data)
        packets = [b"".join(parts) for parts in at_qos]
        for transport, qos in self.mqtt.items():
            transport.write(packets[qos])


class _Door(asyncio.Protocol):
    def __init__(self, rooms: _Rooms) -> None:
        self.rooms = rooms
        self.rest = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self.rooms.websockets.discard(self.transport)
        self.rooms.streams.discard(self.transport)
        self.rooms.mqtt.pop(self.transport, None)

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        events: list[bytes] = []
        self.rest = data[self.take(data, events) :]
        if events:
            self.rooms.publish(events)

    def take(self, data: bytes, events: list[bytes]) -> int:
        """Read what is whole; the bytes used. What was published is added to `events`."""
        raise NotImplementedError


class _HttpDoor(_Door):
    upgraded = False

    def take(self, data: bytes, events: list[bytes]) -> int:
        at = 0
        answers: list[bytes] = []
        while True:
            used = self.take_frame(data, at, events, answers) if self.upgraded else self.take_request(data, at)
            if not used:
                if answers:
                    self.transport.write(b"".join(answers))
                return at
            at += used

    def take_request(self, data: bytes, at: int) -> int:
        head = data.find(b"\r\n\r\n", at)
        if head < 0:
            return 0
        if data.startswith(b"GET /api/stream", at):
            self.rooms.streams.add(self.transport)
            self.transport.write(_STREAM)
            return head + 4 - at
        if data.startswith(b"GET", at):
            self.upgraded = True
            self.transport.write(
                _SWITCHED + _text(b'0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000}')
            )
            return head + 4 - at
        size = data.index(b"Content-Length: ", at) + 16
        stop = head + 4 + int(data[size : data.index(b"\r\n", size)])
        if stop > len(data):
            return 0
        self.transport.write(_ANSWER)
        return stop - at

    def take_frame(self, data: bytes, at: int, events: list[bytes], answers: list[bytes]) -> int:
        if len(data) - at < 8:
            return 0
        size, start = data[at + 1] & 0x7F, at + 6
        if size == 126:
            size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 8
        stop = start + size
        if stop > len(data):
            return 0
        self.message(data[start:stop], events, answers)  # the generator masks with zeros
        return stop - at

    def message(self, payload: bytes, events: list[bytes], answers: list[bytes]) -> None:
        if payload == b"40":
            answers.append(_text(b'40{"sid":"x","pid":"y"}'))
        elif payload.startswith(b"42"):
            number, _, call = payload[2:].partition(b"[")
            if call.startswith(b'"subscribe"'):
                self.rooms.websockets.add(self.transport)
            else:
                events.append(call[call.index(b'"data":') + 7 : -2])
            answers.append(_text(b"43" + number + _OK))


class _MqttDoor(_Door):
    def take(self, data: bytes, events: list[bytes]) -> int:
        at, answers = 0, []
        end = len(data)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size & 0x80:
                if end - at < 3:
                    break
                size, start = (size & 0x7F) | data[at + 2] << 7, at + 3
            stop = start + size
            if stop > end:
                break
            kind = data[at] & 0xF0
            if kind == 0x30:
                topic = start + 2 + int.from_bytes(data[start : start + 2], "big")
                answers.append(b"\x40\x02" + data[topic : topic + 2])
                events.append(data[topic + 2 : stop])
            elif kind == 0x10:
                answers.append(b"\x20\x02\0\0")
            elif kind == 0x80:
                self.rooms.mqtt[self.transport] = qos = data[stop - 1]
                answers.append(b"\x90\x03" + data[start : start + 2] + bytes((qos,)))
            at = stop
        if answers:
            self.transport.write(b"".join(answers))
        return at


def _varint(size: int) -> bytes:
    return bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))


async def main() -> None:
    loop = asyncio.get_running_loop()
    rooms = _Rooms()
    http = await loop.create_server(lambda: _HttpDoor(rooms), "127.0.0.1", 0, backlog=4096)
    mqtt = await loop.create_server(lambda: _MqttDoor(rooms), "127.0.0.1", 0, backlog=4096)
    ports = {"http": http.sockets[0].getsockname()[1], "mqtt": mqtt.sockets[0].getsockname()[1], "pid": os.getpid()}
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            import uvloop
        except ImportError:
            asyncio.run(main())
        else:
            uvloop.run(main())
