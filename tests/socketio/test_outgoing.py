"""The queue of a connection that polls: bounded in packets and in bytes, in order, handed to a WebSocket whole."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from engineio import packet as eio

from gapless.transports.broadcast import Lane
from gapless.transports.raw_websocket import LendingWebSocket
from gapless.transports.socketio.outgoing import EncodedMessage, OutgoingQueue, encode_frame

SMALL = EncodedMessage.of(b'42["small"]')
LARGE = EncodedMessage.of(b'42["' + b"x" * 500 + b'"]')
BINARY = EncodedMessage.of(b'451-["b",{"_placeholder":true,"num":0}]', b"\x00\x01")


class Told:
    """A reader, and what it is told."""

    def __init__(self) -> None:
        self.lane: Lane | None = None
        self.states: list[str] = []

    def connection_full(self) -> None:
        self.states.append("full")

    def connection_drained(self) -> None:
        self.states.append("drained")


class Raw:
    """A lent WebSocket, as far as the queue knows it."""

    def __init__(self) -> None:
        self.transport = self
        self.written: list[bytes] = []
        self.ended = False
        self.deflates = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None:
        return None

    def end(self) -> None:
        self.ended = True


def queue_with_reader(*, messages: int, size: int) -> tuple[OutgoingQueue, Told]:
    queue, told = OutgoingQueue(max_messages=messages, max_bytes=size), Told()
    queue.add_reader(told)
    return queue, told


def take_all(queue: OutgoingQueue) -> list[Any]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


@pytest.mark.parametrize(
    ("message", "messages", "size", "fits"), [(SMALL, 3, 10_000, 3), (LARGE, 100, 1000, 2)], ids=["packets", "bytes"]
)
async def test_past_either_bound_it_is_full_until_all_is_taken(
    message: EncodedMessage, messages: int, size: int, fits: int
) -> None:
    queue, told = queue_with_reader(messages=messages, size=size)
    for _ in range(fits - 1):
        queue.send(message)
    assert told.states == []
    queue.send(message)
    assert told.states == ["full"]
    assert queue.stalled
    queue.get_nowait()
    await asyncio.sleep(0)
    assert told.states == ["full"]
    take_all(queue)
    await asyncio.sleep(0)
    assert told.states == ["full", "drained"]
    queue.send(message)
    assert not queue.stalled  # what was taken counts no more


async def test_a_websocket_gets_what_waits_first_and_then_everything_at_once() -> None:
    queue, told = queue_with_reader(messages=2, size=10_000)
    queue.put_nowait(eio.Packet(eio.OPEN, {"sid": "s"}))
    queue.send(SMALL)
    assert told.states == ["full"]
    raw = Raw()
    queue.attach(cast(LendingWebSocket, raw))
    assert told.states == ["full", "drained"]
    assert told.lane is queue.lane is not None
    await queue.put(eio.Packet(eio.PING))
    queue.send(BINARY)
    opened, ping = encode_frame(eio.Packet(eio.OPEN, {"sid": "s"})), encode_frame(eio.Packet(eio.PING))
    assert raw.written == [opened, SMALL.frames, ping, BINARY.frames]
    await queue.put(None)
    assert raw.ended
    assert told.lane is None


async def test_two_readers_of_one_connection_do_not_write_to_its_socket_themselves() -> None:
    """Both would be in one burst, and the second be sent before what the socket did not take of the first."""
    queue, first = queue_with_reader(messages=2, size=10_000)
    queue.attach(cast(LendingWebSocket, Raw()))
    second = Told()
    queue.add_reader(second)
    assert first.lane is second.lane is None
    queue.remove_reader(first)
    assert second.lane is queue.lane is not None


async def test_get_waits_for_a_packet() -> None:
    queue = OutgoingQueue(max_messages=2, max_bytes=100)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put_nowait("packet")
    assert await waiting == "packet"
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()


def test_a_binary_message_is_encoded_for_each_way_by_itself() -> None:
    """python-engineio's packets keep how they were encoded first."""
    polled = [packet.encode(b64=True) for packet in BINARY.packets]
    assert polled == ['451-["b",{"_placeholder":true,"num":0}]', "bAAE="]
    assert [packet.encode() for packet in BINARY.packets] == [polled[0], b"\x00\x01"]


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536])
def test_a_polling_client_gets_the_text_that_the_frame_carries(size: int) -> None:
    """A frame's length takes one, three or nine bytes (RFC 6455 §5.2)."""
    text = "4" + "x" * (size - 1)
    for attachments in ((), (b"\x00" * 200,)):
        message = EncodedMessage.of(text.encode(), *attachments)
        assert [packet.encode() for packet in message.packets] == [text, *attachments]
