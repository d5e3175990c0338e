"""One run of a program as a child process, whose output is kept and which nothing outlives."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, TypeVar

from gapless.errors import GaplessError

T = TypeVar("T")
Stream = Literal["stdout", "stderr"]

_TAIL_LINES = 400
_LONGEST_LINE = 1 << 20

# Process groups that an interpreter which ends without leaving its contexts still has to take with it.
_groups: set[int] = set()


class ProcessFailed(GaplessError):
    """A child process ended when it should not have, did not get ready, or did not end cleanly.

    Attributes:
        exit_code: its exit code; negative is the signal that ended it, None that it was still running.
        output: the last lines that it printed.
    """

    code = "process_failed"

    def __init__(self, message: str, *, exit_code: int | None, output: str) -> None:
        shown = f"{message}; its last output:\n{output}" if output else f"{message}; it printed nothing"
        super().__init__(shown, exit_code=exit_code, output=output)
        self.exit_code = exit_code
        self.output = output


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass  # it ended in this moment: what a signal is sent for here


def _kill_groups_left() -> None:
    for group in _groups:
        _signal_group(group, signal.SIGKILL)


atexit.register(_kill_groups_left)


class Child:
    """One run of a program, in a process group of its own, whose output is always drained.

    A child never blocks on a full pipe, whatever the test does meanwhile; the last 400 lines of each
    stream are kept. Made by `spawn`.
    """

    def __init__(self, process: Process, *, name: str, keep: Sequence[Stream]) -> None:
        self.name = name
        self.process = process
        self._tails: dict[Stream, deque[str]] = {}
        self._counts: dict[Stream, int] = {}
        self._reading: set[Stream] = set()
        self._news = asyncio.Event()
        self._drains = [asyncio.create_task(self._drain(s), name=f"drain-{name}-{s}") for s in keep]
        _groups.add(process.pid)

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        keep: Sequence[Stream] = ("stdout", "stderr"),
        stdin: bool = False,
    ) -> Self:
        """Start a program, without a shell.

        Args:
            command: the program and its arguments.
            name: what errors call it.
            env: variables added to this process's own.
            cwd: its working folder; default: this process's.
            keep: the streams to drain into tails; one left out is the caller's to read.
            stdin: whether it gets a pipe as standard input; otherwise it reads end of file.

        Raises:
            OSError: the program could not be started.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE if stdin else DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
            # A group of its own: Ctrl-C in a terminal reaches the tests, which then stop their servers.
            start_new_session=True,
            limit=_LONGEST_LINE,
        )
        return cls(process, name=name, keep=keep)

    async def _drain(self, stream: Stream) -> None:
        reader = self.process.stdout if stream == "stdout" else self.process.stderr
        assert reader is not None
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._tails[stream] = tail
        self._counts[stream] = 0
        self._reading.add(stream)
        try:
            while True:
                try:
                    line = await reader.readline()
                except ValueError:  # over the limit; asyncio has dropped what it had of it
                    line = b"(a line of over 1 MiB)\n"
                if not line:
                    return
                tail.append(line.decode("utf-8", "replace").rstrip("\r\n"))
                self._counts[stream] += 1
                self._wake()
        finally:
            self._reading.discard(stream)
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self.process.returncode

    def tail(self, stream: Stream, lines: int = 50) -> str:
        """The last lines of a stream, at most 400."""
        return "\n".join(list(self._tails.get(stream, ()))[-lines:])

    def output(self) -> str:
        """The last lines of what was kept of both streams, for errors."""
        return "\n".join(part for s in ("stdout", "stderr") if (part := self.tail(s)))

    async def wait_line(self, stream: Stream, match: Callable[[str], T | None]) -> T:
        """Wait until `match` answers something for a line of a stream, and return that.

        Lines printed before the call count too, as far as they are kept. Cancellation-safe.

        Raises:
            ProcessFailed: the stream ended without such a line.
        """
        read = 0
        while True:
            news = self._news
            count = self._counts.get(stream, 0)
            fresh = list(self._tails.get(stream, ()))
            for line in fresh[max(0, len(fresh) - (count - read)) :]:
                if (found := match(line)) is not None:
                    return found
            read = count
            if stream in self._counts and stream not in self._reading:
                raise self.failed("ended early", exit_code=await self.wait())
            await news.wait()

    def failed(self, what: str, *, exit_code: int | None) -> ProcessFailed:
        """An error that carries this child's name and output."""
        ending = "" if exit_code is None else f" (exit code {exit_code})"
        return ProcessFailed(f"{self.name} {what}{ending}", exit_code=exit_code, output=self.output())

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process group; nothing where it has ended."""
        if self.exit_code is None:
            _signal_group(self.pid, number)

    async def wait(self) -> int:
        """Wait for its end and for the rest of its output; the exit code. Cancellation-safe."""
        code = await self.process.wait()
        _groups.discard(self.pid)
        if self._drains:
            await asyncio.wait(self._drains)
        return code

    async def kill(self) -> int:
        """End it with SIGKILL, also where it is paused or has ended; the exit code."""
        self.send(signal.SIGKILL)
        return await self.wait()

    async def terminate(self, *, within: float) -> int:
        """End it with SIGTERM; the exit code.

        Raises:
            ProcessFailed: it had not ended after `within` seconds; it was killed then.
        """
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)
        try:
            async with asyncio.timeout(within):
                return await self.wait()
        except TimeoutError:
            await self.kill()
            raise self.failed(f"did not stop within {within:g} s of SIGTERM", exit_code=None) from None
