from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import pytest

from gapless.testing.child import Child, ProcessFailed


async def python(code: str) -> Child:
    return await Child.spawn((sys.executable, "-c", code), name="child")


def exactly(wanted: str) -> Callable[[str], str | None]:
    return lambda line: line if line == wanted else None


async def test_lines_printed_before_the_wait_count_too() -> None:
    child = await python("print('one'); print('two'); print('three')")
    assert await child.wait() == 0
    assert await child.wait_line("stdout", exactly("one")) == "one"
    assert await child.wait_line("stdout", exactly("three")) == "three"


async def test_two_may_wait_at_once() -> None:
    child = await python("import sys; sys.stdin.read(); print('a'); print('b')")
    async with asyncio.timeout(20):
        first, second = await asyncio.gather(
            child.wait_line("stdout", exactly("b")),
            child.wait_line("stdout", exactly("a")),
        )
    assert (first, second) == ("b", "a")
    await child.wait()


async def test_a_line_that_never_comes_ends_with_the_output() -> None:
    child = await python("import sys; print('hello'); sys.exit('and good bye')")
    with pytest.raises(ProcessFailed, match="good bye") as caught:
        await child.wait_line("stdout", lambda line: None)
    assert caught.value.exit_code == 1
    assert "hello" in caught.value.output


async def test_much_output_never_blocks_it_and_the_last_400_lines_are_kept() -> None:
    child = await python("for n in range(100_000): print(n)")
    assert await child.wait() == 0
    assert child.tail("stdout", 1000).splitlines() == [str(n) for n in range(99_600, 100_000)]


async def test_a_line_over_the_limit_is_dropped_and_the_rest_is_read() -> None:
    child = await python("print('x' * (5 << 20)); print('after')")
    assert await child.wait_line("stdout", exactly("after")) == "after"
    assert await child.wait() == 0
    assert len(child.tail("stdout", 400)) < 1 << 21


async def test_signals_to_one_that_has_ended_do_nothing() -> None:
    child = await python("pass")
    assert await child.wait() == 0
    assert await child.kill() == 0
    assert await child.terminate(within=1) == 0


ORPHAN_MAKER = """
import asyncio, sys
from gapless.testing.child import Child

CODE = "import socket; s = socket.create_connection(('127.0.0.1', {port})); s.sendall(b'x'); s.recv(1)"

async def main():
    await Child.spawn((sys.executable, "-c", CODE), name="child")
    await asyncio.to_thread(sys.stdin.buffer.read, 1)
    sys.exit(0)

asyncio.run(main())
"""


async def test_an_interpreter_that_ends_takes_its_children_along() -> None:
    """As where a test run is interrupted: no server is left on the machine."""
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1):
                seen.put_nowait(piece)
        except ConnectionResetError:
            pass
        seen.put_nowait(b"gone")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    command = (sys.executable, "-W", "ignore", "-c", ORPHAN_MAKER.replace("{port}", str(port)))
    parent = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    try:
        assert await seen.get() == b"x"
        await parent.communicate(b".")
        assert await seen.get() == b"gone"
    finally:
        server.close()
