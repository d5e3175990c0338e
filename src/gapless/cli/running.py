"""Running a command's coroutine: event loop, signals, errors and exit codes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import NoReturn

import typer

from gapless.cli.output import Output, let_go_of_stdout
from gapless.errors import ConfigError, GaplessError

OK, FAILED, USAGE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


def run(command: Callable[[], Coroutine[None, None, int]], output: Output) -> NoReturn:
    """Run a command to its end and leave with its exit code.

    Errors are printed as message and mending, without a traceback: a `ConfigError` leaves
    with 2, any other `GaplessError` with 1. Whatever else is raised is a defect and shows one.
    """
    raise typer.Exit(_run(command, output))


def _run(command: Callable[[], Coroutine[None, None, int]], output: Output) -> int:
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(command())
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        let_go_of_stdout()
        return BROKEN_PIPE
    except ConfigError as error:
        output.error(error)
        return USAGE
    except GaplessError as error:
        if "unauthorized" in (error.code, error.details.get("code")):
            error.hint = "; ".join(filter(None, (error.hint, "here with --token or GAPLESS_TOKEN")))
        output.error(error)
        return FAILED


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's where it is installed (not on Windows), else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


@asynccontextmanager
async def stop_signals() -> AsyncGenerator[asyncio.Event, None]:
    """An event that the first SIGINT or SIGTERM sets; the second one ends the process at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def give_back() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    def stop() -> None:
        stopping.set()
        give_back()

    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield stopping
    finally:
        give_back()
