from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from gapless.eventlog.sqlite import SqliteLog, handoff
from gapless.eventlog.sqlite.handoff import Handoff
from tests.eventlog.events import make_event


class Loop:
    """An event loop's timers, run by hand."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        self.due.append(callback)
        loop = self

        class Timer:
            def cancel(self) -> None:
                loop.due.remove(callback)

        return Timer()

    def run(self) -> None:
        """Run what is due."""
        due, self.due = self.due, []
        for callback in due:
            callback()


class Times:
    """The module `time`, with hands."""

    def __init__(self) -> None:
        self.wall = 0.0
        self.computed = 0.0

    def monotonic(self) -> float:
        return self.wall

    def thread_time(self) -> float:
        return self.computed


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    times = Times()
    monkeypatch.setattr(handoff, "time", times)
    return times


@pytest.fixture
def helper(loop: Loop, times: Times) -> Handoff:
    return Handoff(cast(asyncio.AbstractEventLoop, loop))


def pass_time(times: Times, *, computing: float) -> None:
    times.wall += 0.003
    times.computed += 0.003 * computing


def test_busy_loop_stands_still_for_work_that_gets_nowhere(helper: Handoff, loop: Loop, times: Times) -> None:
    helper.begin()
    for turns in (1, 2, 3):
        pass_time(times, computing=1.0)
        loop.run()
        assert helper.turns == turns


def test_idle_loop_never_stands_still(helper: Handoff, loop: Loop, times: Times) -> None:
    helper.begin()
    pass_time(times, computing=0.2)
    loop.run()
    assert helper.turns == 0
    assert len(loop.due) == 1


def test_work_that_gets_on_needs_no_help(helper: Handoff, loop: Loop, times: Times) -> None:
    helper.begin()
    helper.begin()
    helper.end()
    pass_time(times, computing=1.0)
    loop.run()
    assert helper.turns == 0


def test_no_timer_without_work(helper: Handoff, loop: Loop, times: Times) -> None:
    assert not loop.due
    helper.begin()
    helper.begin()
    assert len(loop.due) == 1
    helper.end(2)
    pass_time(times, computing=1.0)
    loop.run()
    assert not loop.due
    helper.begin()
    assert len(loop.due) == 1


def test_close_takes_the_timer_away(helper: Handoff, loop: Loop) -> None:
    helper.begin()
    helper.close()
    helper.close()
    assert not loop.due


def test_a_thread_that_has_worked_ends_the_wait(
    helper: Handoff, loop: Loop, times: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handoff, "_STAND_STILL", 50.0)
    helper.begin()
    pass_time(times, computing=1.0)
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            helper.worked()

    thread = threading.Thread(target=work)
    thread.start()
    loop.run()  # would else outlast the test's time
    stopped.set()
    thread.join()
    assert helper.turns == 1


async def test_commits_beside_a_loop_that_never_idles(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.db")
    await log.open(lambda _: None)
    pending = [log.append([make_event(number)]) for number in range(1, 20)]
    number = 20
    while number < 60 or not all(future.done() for future in pending):
        for _ in range(20_000):
            pass
        pending = [future for future in pending if not future.done()]
        if number < 60:
            pending.append(log.append([make_event(number)]))
            number += 1
        await asyncio.sleep(0)
    assert log.head == 59
    assert log.waiting_bytes == 0
    await log.close()
