"""`python -m bench.eventlog`: the SQLite event log by itself, on a real disk, one line a figure."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from bench import host
from gapless.event import Event, EventIds, Origin
from gapless.eventlog import Selector
from gapless.eventlog.sqlite import SqliteLog, check

DATA_BYTES = 283
ENTITIES = 10_000

new_id = EventIds()


def events(count: int, start: int = 0) -> list[Event]:
    """Events of the reference domain: 10,000 leads, two rooms each."""
    return [
        Event(
            id=new_id(),
            type="lead:updated",
            topic=f"crm/leads/{number % ENTITIES}/updated",
            rooms=(f"lead:{number % ENTITIES}", "org:global"),
            data=b"x" * DATA_BYTES,
            time=1_700_000_000_000,
            origin=Origin("rest"),
            captures={"leadId": str(number % ENTITIES)},
        )
        for number in range(start, start + count)
    ]


def show(name: str, value: str) -> None:
    print(f"{name:<62} {value}", flush=True)


def percentiles(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return f"p50 {p50 * 1000:.2f} ms  p99 {p99 * 1000:.2f} ms  max {ordered[-1] * 1000:.1f} ms"


async def appends(log: SqliteLog, per_call: int, seconds: float) -> None:
    """One call after another, each waiting for the one before."""
    prepared = events(per_call * 50)
    times, stored = [], 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        if (stored // per_call) % 50 == 0 and stored:
            prepared = await asyncio.to_thread(events, per_call * 50)
        part = prepared[stored % len(prepared) : stored % len(prepared) + per_call]
        before = time.perf_counter()
        await log.append(part)
        times.append(time.perf_counter() - before)
        stored += per_call
    show(f"append, {per_call} a call, one call at a time", f"{stored / sum(times):,.0f} events/s  {percentiles(times)}")


async def publishers(log: SqliteLog, count: int, seconds: float) -> None:
    """Publishers of single events, each waiting for its own: group commit at work."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def publish() -> None:
        while (before := time.perf_counter()) < end:
            await log.append(events(1))
            times.append(time.perf_counter() - before)

    cpu = time.process_time()
    await asyncio.gather(*[publish() for _ in range(count)])
    cost = (time.process_time() - cpu) / len(times) * 1e6
    show(
        f"append, {count} publishers of single events",
        f"{len(times) / seconds:,.0f} events/s  {percentiles(times)}  {cost:.0f} µs of CPU an event",
    )


async def beside_a_busy_loop(log: SqliteLog, seconds: float) -> None:
    """The event loop computes without a pause: what do appends take then?"""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def publish() -> None:
        while (before := time.perf_counter()) < end:
            await log.append(events(10))
            times.append(time.perf_counter() - before)

    async def compute() -> None:
        while (now := time.perf_counter()) < end:
            while time.perf_counter() - now < 0.002:
                pass
            await asyncio.sleep(0)

    await asyncio.gather(compute(), *[publish() for _ in range(10)])
    rate = f"{10 * len(times) / seconds:,.0f} events/s"
    show("append, 10 publishers of 10 events, the event loop never idle", f"{rate}  {percentiles(times)}")


async def fill(log: SqliteLog, total: int) -> None:
    before = time.perf_counter()
    began_with = log.head
    while log.head < total:
        await log.append(await asyncio.to_thread(events, min(1000, total - log.head), log.head))
    rate = (total - began_with) / (time.perf_counter() - before)
    show(f"append, 1000 a call, up to {total:,} events, making them included", f"{rate:,.0f} events/s")


async def reads(log: SqliteLog, selector: Selector, what: str, most: int, after: int = 0) -> None:
    read, calls, before = 0, [], time.perf_counter()
    while read < most and after < log.head:
        started = time.perf_counter()
        page = await log.read(selector, after, limit=min(1000, most - read))
        calls.append(time.perf_counter() - started)
        read += len(page.records)
        after = page.through
    spent = time.perf_counter() - before
    show(what, f"{read:,} events in {spent * 1000:.0f} ms, {len(calls)} pages  {percentiles(calls)}")


async def timed(what: str, work: Callable[[], Awaitable[object]]) -> None:
    before = time.perf_counter()
    await work()
    show(what, f"{(time.perf_counter() - before) * 1000:,.0f} ms")


async def measure(folder: Path, total: int, seconds: float) -> None:
    path = folder / "log.db"
    log = SqliteLog(path)
    await log.open(lambda _: None)
    for per_call in (1, 10, 100, 1000):
        await appends(log, per_call, seconds)
    for count in (10, 100, 1000):
        await publishers(log, count, seconds)
    await beside_a_busy_loop(log, seconds)
    await fill(log, total)
    await appends(log, 1, seconds)
    show("write-ahead log at most", f"{path.with_name('log.db-wal').stat().st_size / 1e6:.0f} MB")
    everywhere = f"of {total:,}"
    await reads(log, Selector(rooms=frozenset({"org:global"})), f"read 10,000 {everywhere} by a room of all", 10_000)
    await reads(log, Selector(rooms=frozenset({"lead:77"})), f"read all {everywhere} by a room of few", total)
    many = Selector(rooms=frozenset(f"lead:{number}" for number in range(100)))
    await reads(log, many, f"read 10,000 {everywhere} by 100 rooms of few", 10_000)
    await reads(log, Selector(filters=("crm/leads/77/+",)), f"read all {everywhere} by a filter of few", total)
    await reads(log, Selector(filters=("crm/#",)), f"read 10,000 {everywhere} by a filter of all", 10_000)
    await reads(log, Selector(everything=True), f"read 10,000 {everywhere}, everything", 10_000)
    await timed("close", log.close)
    show("file", f"{path.stat().st_size / 1e6:.0f} MB, {path.stat().st_size / total:.0f} bytes an event")
    log = SqliteLog(path, quick_check_bytes=0)
    await timed("open, without looking at every page", lambda: log.open(lambda _: None))
    await log.close()
    log = SqliteLog(path, quick_check_bytes=1 << 40)
    await timed("open, looking at every page", lambda: log.open(lambda _: None))
    await log.close()
    await timed("check", lambda: asyncio.to_thread(check, path))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.eventlog", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="size of the log for the reads")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each load of appends lasts")
    parser.add_argument("--data", type=Path, help="folder on the disk to measure (default: the temporary folder)")
    parser.add_argument("--asyncio", action="store_true", help="the standard event loop instead of uvloop")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gapless-bench-", dir=asked.data))
    versions = ", ".join(f"{name} {version}" for name, version in host.versions().items())
    print(f"{host.machine()}; data on {host.filesystem(folder)}; {versions}; commit {host.commit()}")
    print(
        f"python -m bench.eventlog --events {asked.events}; events of {DATA_BYTES} bytes, in 2 rooms; pid {os.getpid()}"
    )
    try:
        work = measure(folder, asked.events, asked.seconds)
        if asked.asyncio:
            asyncio.run(work)
        else:
            import uvloop

            uvloop.run(work)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
