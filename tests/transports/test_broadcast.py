"""The same bytes to many connections, real ones: in order with all else that is written, whatever the clients do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from gapless.testing.tls import make_certificates
from gapless.transports.broadcast import FEW, Broadcast, Group, Lane
from gapless.transports.io_uring import Ring

PATIENCE = 20.0


@pytest.fixture(params=["io_uring", "one by one"])
def broadcast(request: pytest.FixtureRequest) -> Iterator[Broadcast]:
    broadcast = Broadcast()
    if request.param == "io_uring" and (problem := broadcast.open()) is not None:
        pytest.skip(f"io_uring: {problem}")
    assert broadcast.by_io_uring == (request.param == "io_uring")
    yield broadcast
    broadcast.close()
    assert not broadcast.by_io_uring


Write = Callable[[bytes, list[Lane]], None]


@pytest.fixture(params=["lanes", "group"])
def write(request: pytest.FixtureRequest, broadcast: Broadcast) -> Write:
    """To the same lanes, however they are handed over; a group is made once for the same ones."""
    if request.param == "lanes":
        return broadcast.write
    groups: dict[tuple[Lane, ...], Group] = {}

    def write_to_group(data: bytes, lanes: list[Lane]) -> None:
        key = tuple(lanes)
        if key not in groups:
            groups[key] = Group(lanes)
        broadcast.write_to_group(data, groups[key])

    return write_to_group


class Served(asyncio.Protocol):
    """The gateway's end of a connection."""

    def __init__(self) -> None:
        self.lost = False
        self.told: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(100_000)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
        self.lane = Lane(self.transport.write, self.transport, plain=True)

    @property
    def number(self) -> int:
        """Of the socket."""
        return int(self.transport.get_extra_info("socket").fileno())

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@asynccontextmanager
async def connections(count: int) -> AsyncIterator[tuple[list[Served], list[socket.socket]]]:
    """So many connections, and the clients' sockets, which nobody reads."""
    loop = asyncio.get_running_loop()
    served: list[Served] = []
    arrived = asyncio.Semaphore(0)

    def make() -> Served:
        served.append(Served())
        loop.call_soon(arrived.release)
        return served[-1]

    server = await loop.create_server(make, "127.0.0.1", 0)
    clients = []
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
            await loop.sock_connect(client, server.sockets[0].getsockname())
            await arrived.acquire()
            clients.append(client)
        yield served, clients
        for each in served:
            each.transport.abort()
        server.close()
    async with asyncio.timeout(PATIENCE):
        while not all(each.lost for each in served):
            await asyncio.sleep(0)


async def read(client: socket.socket, size: int) -> bytes:
    """So many bytes, and no more than have come."""
    loop, parts, left = asyncio.get_running_loop(), [], size
    async with asyncio.timeout(PATIENCE):
        while left:
            part = await loop.sock_recv(client, left)
            assert part, "the connection ended"
            parts.append(part)
            left -= len(part)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    return b"".join(parts)


@pytest.mark.parametrize("seed", range(5))
async def test_everything_arrives_once_and_in_order_beside_what_is_written_otherwise(write: Write, seed: int) -> None:
    """Some clients read now and then: their sockets fill up, take a part, and drain again."""
    chance = random.Random(seed)
    count = 3 * FEW
    async with connections(count) as (served, clients):
        written = [b""] * count
        received = [b""] * count

        async def catch_up(number: int) -> None:
            received[number] += await read(clients[number], len(written[number]) - len(received[number]))

        for turn in range(60):
            chosen = chance.sample(range(count), chance.randint(1, count))
            text = b"%d:" % turn + bytes([chance.randrange(256)]) * chance.choice([1, 400, 200_000])
            write(text, [served[number].lane for number in chosen])
            for number in chosen:
                written[number] += text
            for number in chance.sample(range(count), 2):
                own = b"own %d;" % turn
                served[number].transport.write(own)
                written[number] += own
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            for number in range(0, count, 2):
                if chance.random() < 0.3:
                    await catch_up(number)
        assert any(each.transport.get_write_buffer_size() for each in served)
        for number in range(count):
            await catch_up(number)
        assert received == written
        assert any(each.told for each in served)
        for each in served:
            assert each.told == ["pause", "resume"] * (len(each.told) // 2)


async def test_a_full_connection_says_so_before_the_call_returns(write: Write) -> None:
    async with connections(FEW + 1) as (served, _):
        text = b"x" * 5_000_000
        write(text, [each.lane for each in served])
        assert all(each.told == ["pause"] for each in served)


async def test_those_that_go_harm_nobody(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    async with connections(FEW + 4) as (served, clients):
        lanes = [each.lane for each in served]
        clients[0].close()  # the gateway has not noticed
        served[1].transport.close()
        served[2].transport.abort()
        for _ in range(3):
            write(b"event;", lanes)
        async with asyncio.timeout(PATIENCE):
            while not served[2].lost:
                await asyncio.sleep(0)
        write(b"event;", lanes)  # with lanes that should be used no more
        for client in clients[3:]:
            assert await read(client, 24) == b"event;" * 4
        assert clients[1].recv(100) == b""  # nothing follows the close
    assert [each.message for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_a_number_of_a_closed_socket_is_never_anothers(write: Write) -> None:
    async with connections(FEW + 2) as (served, _):
        stale = [each.lane for each in served]
        write(b"for those who are here", stale)
        numbers = {each.number for each in served}
        for each in served:
            each.transport.abort()
        async with asyncio.timeout(PATIENCE):
            while not all(each.lost for each in served):
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        async with connections(FEW + 2) as (others, clients):
            assert numbers & {each.number for each in others}
            write(b"for those who left", stale)
            await asyncio.sleep(0)
            for client in clients:
                with pytest.raises(BlockingIOError):
                    client.recv(1)


async def test_with_tls_it_is_encrypted(write: Write, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    loop = asyncio.get_running_loop()
    served: list[Served] = []

    def make() -> Served:
        served.append(Served())
        return served[-1]

    server = await loop.create_server(make, "127.0.0.1", 0, ssl=certificates.server_context())
    port = server.sockets[0].getsockname()[1]
    clients = [
        await asyncio.open_connection("127.0.0.1", port, ssl=certificates.client_context()) for _ in range(FEW + 2)
    ]
    async with asyncio.timeout(PATIENCE):
        while not all(hasattr(each, "lane") for each in served):
            await asyncio.sleep(0)
        write(b"secret", [each.lane for each in served])
        for reader, _ in clients:
            assert await reader.readexactly(6) == b"secret"
    for _, writer in clients:
        writer.close()
        await writer.wait_closed()
    server.close()


@pytest.mark.parametrize("broadcast", ["io_uring"], indirect=True)
async def test_if_io_uring_fails_on_the_way_everybody_gets_it_all_the_same(
    write: Write, broadcast: Broadcast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send = Ring.send

    def half(ring: Ring, sockets: list[int], data: bytes) -> list[int]:
        ring.problem = PermissionError(1, "Operation not permitted")
        return send(ring, sockets[: len(sockets) // 2], data)

    monkeypatch.setattr(Ring, "send", half)
    async with connections(FEW + 4) as (served, clients):
        for _ in range(2):
            write(b"event;", [each.lane for each in served])
        assert not broadcast.by_io_uring
        for client in clients:
            assert await read(client, 12) == b"event;" * 2
    assert ["io_uring failed" in each.message for each in caplog.records] == [True]


async def test_a_connection_that_cannot_be_written_to_is_dropped(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    """It would have a gap: its client comes back and resumes."""

    def broken(data: bytes) -> None:
        raise ValueError("a defect")

    async with connections(FEW + 2) as (served, clients):
        lanes = [each.lane for each in served]
        lanes[0] = Lane(broken, served[0].transport)
        write(b"event", lanes)
        for client in clients[1:]:
            assert await read(client, 5) == b"event"
        assert served[0].transport.is_closing()
    assert ["it is dropped" in each.message for each in caplog.records] == [True]


async def test_what_is_no_socket_is_written_to_by_its_own_call(write: Write) -> None:
    written: list[bytes] = []
    async with connections(FEW + 1) as (served, clients):
        write(b"event", [*(each.lane for each in served), Lane(written.append)])
        for client in clients:
            assert await read(client, 5) == b"event"
    assert written == [b"event"]
