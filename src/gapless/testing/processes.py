"""Real servers as child processes that a test can kill, pause, stop and start again."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from gapless.testing.child import Child, ProcessFailed
from gapless.testing.ports import is_port_conflict

_PORT_ATTEMPTS = 5


class Server(ABC):
    """A server process that keeps its ports and its data from one start to the next.

    As a context manager it starts, and at the end stops: an exit code other than 0 is an error, and so
    is a server that ended by itself. When the block raises, the server is killed and its last output is
    added to the exception as a note.

    POSIX only. For one event loop; start, stop and kill are for one task at a time.
    """

    name = "server"
    #: seconds that a start may take before it counts as failed
    ready_within = 30.0

    def __init__(self) -> None:
        self._child: Child | None = None
        self._has_ports = False
        self._end_wanted = False

    @abstractmethod
    def _choose_ports(self) -> None:
        """Choose new ports; called before the first start, and again while they turn out to be taken."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The command for the ports chosen."""

    @abstractmethod
    async def _wait_ready(self, child: Child) -> None:
        """Return once it serves; raise ProcessFailed when it ends before."""

    def _environment(self) -> Mapping[str, str]:
        return {}

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            ProcessFailed: it does not run.
        """
        return self._running_child().pid

    def is_running(self) -> bool:
        """Whether the process lives; a paused one does."""
        return self._child is not None and self._child.exit_code is None

    def stderr_tail(self, lines: int = 50) -> str:
        """The last lines, at most 400, that the running (or last) process wrote to standard error."""
        return "" if self._child is None else self._child.tail("stderr", lines)

    def stdout_tail(self, lines: int = 50) -> str:
        """As `stderr_tail`, of standard output."""
        return "" if self._child is None else self._child.tail("stdout", lines)

    async def start(self) -> None:
        """Start it, the second time on the same ports and data, and wait until it serves.

        Raises:
            ProcessFailed: it ended before it was ready, or was not ready in time.
        """
        if self.is_running():
            raise RuntimeError(f"{self.name} is running already")
        attempts = 1 if self._has_ports else _PORT_ATTEMPTS
        while True:
            attempts -= 1
            if not self._has_ports:
                self._choose_ports()
            try:
                await self._start_once()
            except ProcessFailed as error:
                # Between our look and its bind another process may have taken the port.
                if attempts == 0 or not is_port_conflict(error.output):
                    raise
            else:
                self._has_ports = True
                return

    async def _start_once(self) -> None:
        child = await Child.spawn(self._command(), name=self.name, env=self._environment())
        self._child = child
        self._end_wanted = False
        try:
            async with asyncio.timeout(self.ready_within):
                await self._wait_ready(child)
        except TimeoutError:
            await child.kill()
            raise child.failed(f"was not ready within {self.ready_within:g} s", exit_code=None) from None
        except BaseException:
            await child.kill()
            raise

    async def wait_end(self) -> int:
        """Wait until it ends by itself, as a test may want it to; the exit code. Cancellation-safe.

        Raises:
            ProcessFailed: it was not started.
        """
        if self._child is None:
            raise ProcessFailed(f"{self.name} was not started", exit_code=None, output="")
        code = await self._child.wait()
        self._end_wanted = True
        return code

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash would, and wait until it is gone.

        Raises:
            ProcessFailed: it does not run.
        """
        child = self._running_child()
        self._end_wanted = True
        await child.kill()

    async def stop(self, *, within: float = 15.0) -> None:
        """End it with SIGTERM and wait for its clean exit; a paused one is resumed for it.

        Raises:
            ProcessFailed: it had ended by itself, was not gone after `within` seconds (and was killed
                then), or its exit code was not 0.
        """
        child = self._running_child()
        self._end_wanted = True
        if (code := await child.terminate(within=within)) != 0:
            raise child.failed("did not exit cleanly after SIGTERM", exit_code=code)

    def pause(self) -> None:
        """Stop it with SIGSTOP: connections stay open, and nothing answers.

        Raises:
            ProcessFailed: it does not run.
        """
        self._running_child().send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`.

        Raises:
            ProcessFailed: it does not run.
        """
        self._running_child().send(signal.SIGCONT)

    def _running_child(self) -> Child:
        if self._child is None:
            raise ProcessFailed(f"{self.name} was not started", exit_code=None, output="")
        if (code := self._child.exit_code) is not None:
            raise self._child.failed("is not running", exit_code=code)
        return self._child

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        child = self._child
        if child is None:
            return
        if error is not None:
            code = await child.kill()
            error.add_note(f"{self.name} (exit code {code}) said last:\n{child.output() or '(nothing)'}")
        elif self.is_running():
            await self.stop()
        elif not self._end_wanted:
            raise child.failed("ended by itself", exit_code=await child.wait())
