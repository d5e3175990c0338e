from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gapless.testing import Link

HOST = "127.0.0.1"
FOREVER = 3600.0


@dataclass
class Echo:
    """A server that sends back what it gets, and remembers each connection's fate."""

    port: int = 0
    received: bytearray = field(default_factory=bytearray)
    ends: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1 << 16):
                self.received += piece
                writer.write(piece)
                await writer.drain()
            self.ends.put_nowait("eof")
        except ConnectionError:
            self.ends.put_nowait("reset")
        finally:
            writer.close()


@asynccontextmanager
async def echo_server() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, HOST, 0)
    echo.port = server.sockets[0].getsockname()[1]
    try:
        yield echo
    finally:
        server.close()


@dataclass
class Peer:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, text: bytes) -> bytes:
        self.writer.write(text)
        return await self.reader.readexactly(len(text))


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


async def test_carries_both_ways_and_counts() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link, connect(link.port) as peer:
        assert await peer.ask(b"hello") == b"hello"
        assert (link.connections, link.open_connections) == (1, 1)
        assert (link.bytes_to_server, link.bytes_to_client) == (5, 5)


async def test_carries_megabytes_unchanged() -> None:
    text = bytes(range(256)) * 16_384  # 4 MiB
    async with echo_server() as echo, Link(HOST, echo.port) as link, connect(link.port) as peer:
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(peer.reader.readexactly(len(text)))
            for start in range(0, len(text), 1 << 18):
                peer.writer.write(text[start : start + (1 << 18)])
                await peer.writer.drain()
        assert answer.result() == text


async def test_end_of_file_of_one_side_leaves_the_other_way_open() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link, connect(link.port) as peer:
        peer.writer.write(b"last words")
        peer.writer.write_eof()
        assert await peer.reader.read() == b"last words"
        assert await echo.ends.get() == "eof"
        await link.wait_open(0)


async def test_url_names_the_link() -> None:
    async with echo_server() as echo, Link.to(f"mqtt://127.0.0.1:{echo.port}/x") as link:
        assert link.url("ws", "/mqtt") == f"ws://127.0.0.1:{link.port}/mqtt"
        async with connect(link.port) as peer:
            assert await peer.ask(b"x") == b"x"


def test_url_without_port_is_refused() -> None:
    with pytest.raises(ValueError, match="host and port"):
        Link.to("mqtt://example.org")


async def test_cut_resets_both_sides_and_new_connections_work() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link:
        async with connect(link.port) as peer:
            await peer.ask(b"x")
            await link.cut()
            with pytest.raises(ConnectionResetError):
                await peer.reader.read()
            assert await echo.ends.get() == "reset"
        await link.wait_open(0)
        async with connect(link.port) as peer:
            assert await peer.ask(b"again") == b"again"
        assert link.connections == 2


async def test_cut_with_fin_ends_both_sides_in_order() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link, connect(link.port) as peer:
        await peer.ask(b"x")
        await link.cut("fin")
        assert await peer.reader.read() == b""
        assert await echo.ends.get() == "eof"
        peer.writer.close()
        await link.wait_open(0)


async def test_a_reset_of_one_side_reaches_the_other() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link, connect(link.port) as peer:
        await peer.ask(b"x")
        reset_on_close = struct.pack("ii", 1, 0)
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_on_close)
        peer.writer.transport.abort()
        assert await echo.ends.get() == "reset"


async def test_cut_finds_a_connection_that_was_accepted_a_moment_ago() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link, connect(link.port) as peer:
        await link.wait_connections(1)
        await link.cut()
        with pytest.raises(ConnectionResetError):
            await peer.reader.read()


async def test_refused_and_restored_on_the_same_port() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link, connect(link.port) as peer:
        await peer.ask(b"x")
        port = link.port
        link.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)
        assert await peer.ask(b"still open") == b"still open"
        link.restore()
        async with connect(port) as second:
            assert await second.ask(b"y") == b"y"


async def test_the_port_stays_ours_while_refused() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link:
        link.refuse()
        with pytest.raises(OSError, match="in use"):
            await asyncio.start_server(echo.serve, HOST, link.port)


async def test_a_server_that_is_away_resets_the_client() -> None:
    async with echo_server() as echo:
        port = echo.port
    async with Link(HOST, port) as link, connect(link.port) as peer:
        with pytest.raises(ConnectionResetError):
            await peer.reader.read()


async def test_a_blackhole_holds_everything_and_restore_delivers_it_in_order() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link:
        async with connect(link.port) as one, connect(echo.port) as direct:
            await one.ask(b"before")
            link.blackhole()
            one.writer.write(b"held 1;")
            async with connect(link.port) as silent:  # accepted, and nothing more
                await link.wait_connections(2)
                silent.writer.write(b"held 2;")
                # Round trips beside the link: the bytes above had every chance to get through.
                for _ in range(50):
                    await direct.ask(b".")
                assert b"held" not in echo.received
                link.restore()
                assert await one.reader.readexactly(7) == b"held 1;"
                assert await silent.reader.readexactly(7) == b"held 2;"


async def test_a_blackhole_hides_the_end_of_a_side() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link:
        async with connect(link.port) as peer, connect(echo.port) as direct:
            await peer.ask(b"x")
            link.blackhole()
            peer.writer.transport.abort()
            for _ in range(50):
                await direct.ask(b".")
            assert echo.ends.empty()
            assert link.open_connections == 1
            link.restore()
            await echo.ends.get()
            await link.wait_open(0)


async def test_a_blackhole_of_one_way_lets_the_other_through() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link:
        async with connect(link.port) as peer, connect(echo.port) as direct:
            await peer.ask(b"x")
            link.blackhole("to_client")
            peer.writer.write(b"arrives")
            while b"arrives" not in echo.received:
                await direct.ask(b".")
            assert link.bytes_to_client == 1
            link.restore()
            assert await peer.reader.readexactly(7) == b"arrives"


async def test_a_blackhole_holds_the_sender_up() -> None:
    async with echo_server() as echo, Link(HOST, echo.port, kernel_buffer=8192) as link, connect(link.port) as peer:
        await peer.ask(b"x")
        link.blackhole("to_server")
        peer.writer.write(bytes(64 << 20))
        drained = asyncio.create_task(peer.writer.drain())
        async with connect(echo.port) as direct:
            for _ in range(50):
                await direct.ask(b".")
        assert not drained.done()
        assert len(echo.received) == 51
        drained.cancel()
        await asyncio.wait({drained})


async def test_a_delay_lets_others_be_first_and_keeps_order() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as delayed, Link(HOST, echo.port) as prompt:
        async with connect(delayed.port) as late, connect(prompt.port) as early:
            await late.ask(b"x")
            delayed.delay(FOREVER, "to_server")
            late.writer.write(b"first;")
            assert await early.ask(b"second;") == b"second;"
            late.writer.write(b"third;")
            assert bytes(echo.received) == b"xsecond;"
            delayed.restore()
            assert await late.reader.readexactly(12) == b"first;third;"


async def test_a_delay_passes_by_itself() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link, connect(link.port) as peer:
        loop = asyncio.get_running_loop()
        await peer.ask(b"x")
        link.delay(0.05)
        start = loop.time()
        assert await peer.ask(b"later") == b"later"
        assert loop.time() - start >= 0.1  # never early: the lower bound holds on any machine


async def test_a_slow_link_delivers_bit_by_bit() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link, connect(link.port) as peer:
        text = b"0123456789" * 1000
        link.slow(1 / FOREVER, "to_client")  # one byte at once, the next in an hour
        peer.writer.write(text)
        assert await peer.reader.read(len(text)) == b"0"
        while len(echo.received) < len(text):
            async with connect(echo.port) as direct:
                await direct.ask(b"")
        assert link.bytes_to_client == 1
        link.restore()
        assert await peer.reader.readexactly(len(text) - 1) == text[1:]


async def test_a_slow_reader_is_felt_through_the_link() -> None:
    """Backpressure passes through: while nobody reads, only the kernel's buffers fill."""
    size = 64 << 20
    async with echo_server() as echo, Link(HOST, echo.port, kernel_buffer=8192) as link:
        async with connect(link.port) as peer, connect(echo.port) as direct:
            peer.writer.write(bytes(size))
            carried, still = -1, 0
            while still < 100:
                await direct.ask(b".")
                still = still + 1 if link.bytes_to_server == carried else 0
                carried = link.bytes_to_server
            assert 0 < carried < size


@pytest.mark.parametrize("seconds", [-1.0, -0.001])
async def test_a_negative_delay_is_refused(seconds: float) -> None:
    link = Link(HOST, 1)
    with pytest.raises(ValueError, match="not negative"):
        link.delay(seconds)


@pytest.mark.parametrize("rate", [0.0, -5.0])
async def test_a_rate_that_is_not_positive_is_refused(rate: float) -> None:
    link = Link(HOST, 1)
    with pytest.raises(ValueError, match="positive"):
        link.slow(rate)


async def test_many_connections_at_once() -> None:
    async with echo_server() as echo, Link(HOST, echo.port) as link:

        async def one(number: int) -> None:
            async with connect(link.port) as peer:
                text = f"client {number}".encode()
                assert await peer.ask(text) == text

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(one(number))
        await link.wait_open(0)
        assert link.connections == 100


async def test_leaving_the_link_resets_what_is_open() -> None:
    async with echo_server() as echo:
        async with Link(HOST, echo.port) as link:
            reader, writer = await asyncio.open_connection(HOST, link.port)
            writer.write(b"x")
            await reader.readexactly(1)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.transport.abort()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, link.port)
