"""Sends by io_uring, on real sockets: what each socket took, and nothing else."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator

import pytest

from gapless.transports import io_uring
from gapless.transports.io_uring import ENTRIES, Ring


@pytest.fixture
def ring() -> Iterator[Ring]:
    try:
        ring = Ring()
    except OSError as error:
        pytest.skip(f"io_uring: {error}")
    yield ring
    ring.close()


def drain(reader: socket.socket) -> bytes:
    """All that has come."""
    reader.setblocking(False)
    parts = []
    try:
        while part := reader.recv(1 << 16):
            parts.append(part)
    except BlockingIOError:
        pass
    return b"".join(parts)


def test_every_socket_gets_the_bytes_in_the_order_of_the_calls(ring: Ring) -> None:
    pairs = [socket.socketpair() for _ in range(50)]
    chance = random.Random(1)
    expected = [b""] * len(pairs)
    for turn in range(300):  # many times around both queues
        chosen = chance.sample(range(len(pairs)), chance.randint(1, len(pairs)))
        text = b"%d;" % turn
        assert ring.send([pairs[number][0].fileno() for number in chosen], text) == [len(text)] * len(chosen)
        for number in chosen:
            expected[number] += text
    assert [drain(reader) for _, reader in pairs] == expected
    for pair in pairs:
        for end in pair:
            end.close()


def test_more_sockets_than_one_call_takes(ring: Ring) -> None:
    pairs = [socket.socketpair() for _ in range(100)]
    sockets = [pairs[number % 100][0].fileno() for number in range(2 * ENTRIES + 100)]
    ring.send(sockets[:3], b"x")  # the next begins in the middle of the queue
    assert ring.send(sockets, b"ab") == [2] * len(sockets)
    for number, (_, reader) in enumerate(pairs):
        assert drain(reader) == b"x" * (number < 3) + b"ab" * sockets.count(sockets[number])
    for pair in pairs:
        for end in pair:
            end.close()


def test_what_a_socket_does_not_take_is_told_of_it_alone(ring: Ring) -> None:
    (left, right), (full, unread), (gone, closed) = (socket.socketpair() for _ in range(3))
    number = gone.fileno()
    gone.close()
    closed.close()
    with left, right, full, unread:
        text = b"x" * 1_000_000
        first, part, bad = ring.send([left.fileno(), full.fileno(), number], text)
        assert 0 < part < len(text)
        assert first == part
        assert bad == -errno.EBADF
        assert ring.send([full.fileno()], text) == [-errno.EAGAIN]
        assert drain(right) == text[:first]
        unread.close()
        assert ring.send([left.fileno(), full.fileno()], b"y") == [1, -errno.EPIPE]  # and no SIGPIPE
        assert drain(right) == b"y"
    assert ring.problem is None


def test_when_the_kernel_takes_no_more_the_rest_got_nothing(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [socket.socketpair() for _ in range(100)]
    sockets = [pairs[number % 100][0].fileno() for number in range(2 * ENTRIES)]
    call, calls, code = ring._call, 0, errno.EBUSY

    def refuse_second(number: int, *arguments: object) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(code, os.strerror(code))
        return call(number, *arguments)

    def taken() -> int:
        return sum(len(drain(reader)) for _, reader in pairs)

    monkeypatch.setattr(ring, "_call", refuse_second)
    assert ring.send(sockets, b"a") == [1] * ENTRIES
    assert taken() == ENTRIES
    assert str(ring.problem) == "None"
    calls, code = 0, errno.EPERM
    assert ring.send(sockets, b"b") == [1] * ENTRIES
    assert taken() == ENTRIES
    assert ring.problem is not None
    monkeypatch.undo()
    assert ring.send(sockets, b"c") == [1] * len(sockets)
    assert taken() == len(sockets)
    for pair in pairs:
        for end in pair:
            end.close()


def test_where_there_is_none_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_uring, "_SETUP", 1_000_000)
    with pytest.raises(OSError, match=r"Function not implemented|of Linux"):
        Ring()


def test_nothing_is_left_open(ring: Ring) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        Ring().close()
    assert len(os.listdir("/proc/self/fd")) == before
