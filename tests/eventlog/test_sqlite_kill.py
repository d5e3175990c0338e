"""What was acknowledged is there after SIGKILL: a real process, really killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from gapless.eventlog import EVERYTHING, StateKind
from gapless.eventlog.sqlite import SqliteLog, check
from tests.eventlog.events import read_all

CHILD = """
import asyncio, itertools, sys
from pathlib import Path
from gapless.eventlog import Retention, StateKind, StateWrite
from gapless.eventlog.sqlite import SqliteLog
from gapless.event import Event, Origin

def make_event(number, data):
    topic = f"t/{number}"
    return Event(
        id=f"id-{number:08d}", type="message", topic=topic, rooms=("all",), data=data, time=1, origin=Origin("rest")
    )

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

async def publish(log, numbers):
    for number in numbers:
        state = [StateWrite(StateKind.PUMP, str(number % 8), b"%d" % number)]
        [(record, duplicate)] = await log.append([make_event(number, b"x" * (number % 700))], state=state)
        say("event", record.event.id, record.offset)

async def remember(log):
    for number in itertools.count():
        await log.write_state([StateWrite(StateKind.MQTT_SESSION, "count", b"%d" % number)], durable=False)
        say("state", number)
        await asyncio.sleep(0)

async def main(path, start):
    log = SqliteLog(path)
    await log.open(lambda _: None)
    say("open", log.epoch, log.head)
    numbers = itertools.count(start)
    await asyncio.gather(remember(log), *[publish(log, numbers) for _ in range(8)])

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def run_and_kill(path: Path, start: int, after_lines: int) -> list[list[str]]:
    """Let a child append until it has said so many lines, kill it, and return what it said."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(path), str(start), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    lines = []
    try:
        for _ in range(after_lines):
            line = await child.stdout.readline()
            assert line, "the child ended by itself"
            lines.append(line)
    finally:
        child.kill()
    lines.extend((await child.stdout.read()).splitlines(keepends=True))
    assert await child.wait() == -signal.SIGKILL
    return [line.decode().split() for line in lines if line.endswith(b"\n")]


@pytest.mark.timeout(120)
async def test_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    acknowledged: dict[str, int] = {}
    counted = -1
    epochs = set()
    heads = []
    for life, lines in enumerate((50, 777, 2000)):
        said = await run_and_kill(path, life * 1_000_000, lines)
        for what, *rest in said:
            if what == "open":
                epochs.add(rest[0])
                heads.append(int(rest[1]))
                counted = -1
            elif what == "event":
                assert rest[0] not in acknowledged
                acknowledged[rest[0]] = int(rest[1])
            else:
                counted = int(rest[0])

        found = check(path)
        assert found.problems == ()
        log = SqliteLog(path)
        await log.open(lambda _: None)
        epochs.add(log.epoch)
        records = [record for page in await read_all(log, EVERYTHING) for record in page.records]
        assert [record.offset for record in records] == list(range(1, log.head + 1))
        assert acknowledged.items() <= {record.event.id: record.offset for record in records}.items()
        if counted >= 0:
            stored = await log.read_state(StateKind.MQTT_SESSION, "count")
            assert stored is not None
            assert int(stored) >= counted
        newest = {key: int(value) for key, value in (await log.all_state(StateKind.PUMP)).items()}
        by_key: dict[str, int] = {}
        for record in records:
            number = int(record.event.id[3:])
            by_key[str(number % 8)] = number
        assert newest == by_key, "an event and its state are stored together"
        await log.close()
        assert log.head >= len(acknowledged) > 0
    assert len(epochs) == 1
    assert heads == sorted(heads)
