"""One timer for all pings: also where the loop is so busy that a ping is overdue when the timer is set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvloop

from gapless.transports.socketio.engine import Pings


class Socket:
    """As much of an Engine.IO socket as is pinged."""

    closed = True
    last_ping = 0.0

    def __init__(self, on_ping: Callable[[], object]) -> None:
        self.on_ping = on_ping

    def ping(self, sent: float) -> bool:
        self.on_ping()
        return False


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_that_comes_while_pings_are_overdue(run: Callable[[Any], None]) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        pings = Pings(interval=0.002, timeout=20)
        pinged: list[str] = []
        failures: list[object] = []
        loop.set_exception_handler(lambda _, context: failures.append(context))
        done = asyncio.Event()

        def first() -> None:
            pinged.append("first")
            second_due = loop.time() + 0.004
            while loop.time() < second_due:  # the loop is held up until the second one is overdue
                pass
            # Runs after the timer was set for what is past, and before that comes to run.
            loop.call_soon(pings.later, cast(Any, Socket(done.set)))

        pings.later(cast(Any, Socket(first)))
        loop.call_later(0.001, pings.later, cast(Any, Socket(lambda: pinged.append("second"))))
        await done.wait()
        assert pinged == ["first", "second"]
        assert not failures
        pings.stop()

    run(scenario())
