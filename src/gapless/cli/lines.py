"""Reading lines from standard input or a file without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator

from gapless.errors import InvalidRequest

_CHUNK = 64 * 1024


async def line_batches(
    descriptor: int, *, most: int, longest: int = 4 << 20
) -> AsyncGenerator[list[tuple[int, bytes]], None]:
    """Numbered lines, as many at a time as are there: a slow writer's lines come one by one.

    The reads are made on a daemon thread, so that Ctrl-C need not wait for a writer that is silent.

    Args:
        most: most lines at a time.
        longest: longest line in bytes.

    Raises:
        InvalidRequest: a line is too long.
        OSError: the file cannot be read.
    """
    number, rest = 0, b""
    while True:
        chunk = await _read(descriptor)
        *lines, rest = (rest + chunk).split(b"\n") if chunk else (rest, b"")
        if len(rest) > longest:
            raise InvalidRequest(
                f"line {number + len(lines) + 1} has more than {longest} bytes", hint="one event a line"
            )
        numbered = [(number + index, line) for index, line in enumerate(lines, 1) if line.strip()]
        number += len(lines)
        for start in range(0, len(numbered), most):
            yield numbered[start : start + most]
        if not chunk:
            return


def _read(descriptor: int) -> asyncio.Future[bytes]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    def work() -> None:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except OSError as error:
            _post(loop, answer, error)
        else:
            _post(loop, answer, chunk)

    threading.Thread(target=work, name="read-lines", daemon=True).start()
    return answer


def _post(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[bytes], outcome: bytes | OSError) -> None:
    def settle() -> None:
        if answer.done():
            return
        if isinstance(outcome, OSError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        pass  # the loop is closed: nobody waits any more
