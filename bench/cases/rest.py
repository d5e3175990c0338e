"""POST /api/events: answered once the events are in the log on disk."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from bench.cases.run import Run
from bench.load.event import TOPIC, TYPE, event_data, now_us
from bench.load.http_client import HttpClient, post
from bench.load.tally import Tally, percentile
from bench.servers import FLOOR, GAPLESS, Target
from bench.watch import watching

_CASE = "REST → log acknowledged"
_BATCH = 100
_RATE = 2000
_WITHIN = 30.0


async def rest(run: Run) -> None:
    """Single events and batches on keep-alive connections, then latency at 2,000 events a second."""

    async def load(target: Target) -> None:
        await _closed_loop(run, target, "single, 16 connections", 16, 1, post(target.http, _event()))
        array = b"[" + b",".join([_event()] * _BATCH) + b"]"
        await _closed_loop(run, target, "array of 100, 4 connections", 4, _BATCH, post(target.http, array))
        lines = post(target.http, b"\n".join([_event()] * _BATCH), content_type="application/x-ndjson")
        await _closed_loop(run, target, "NDJSON of 100, 4 connections", 4, _BATCH, lines)
        await _at_a_rate(run, target)

    await run.against(_CASE, (GAPLESS, FLOOR), load)


def _event() -> bytes:
    return f'{{"type":"{TYPE}","topic":"{TOPIC}","data":'.encode() + event_data() + b"}"


async def _closed_loop(run: Run, target: Target, name: str, connections: int, events: int, request: bytes) -> None:
    """Each connection posts again as soon as it was answered."""
    tally = Tally()
    going = True

    def answered(client: HttpClient, took_us: int) -> None:
        if tally.sampling:
            tally.latencies.append(took_us)
        tally.add(events)
        if going:
            client.send(request)

    clients = [await HttpClient.connect(target.http, tally, answered) for _ in range(connections)]
    for client in clients:
        client.send(request)
    await asyncio.sleep(run.warm_up)
    before, tally.sampling = tally.count, True
    with watching(target.pids) as usage:
        await asyncio.sleep(run.seconds)
        count = tally.count - before
    tally.sampling = going = False
    await _until_idle(clients, tally)
    add, notes = run.report.add, usage.notes
    add(_CASE, f"{name}: events", target.name, count / usage.seconds, unit="/s", notes=notes)
    if usage.server:
        add(_CASE, f"{name}: CPU per event", target.name, usage.server / count * 1e6, unit="µs", notes=notes)
    for part, value in (("p50", 0.5), ("p99", 0.99)):
        add(_CASE, f"{name}: {part}", target.name, percentile(tally.latencies, value) / 1000, unit="ms", notes=notes)


async def _at_a_rate(run: Run, target: Target) -> None:
    """An event when it is due, on any connection that is free; the wait for one counts."""
    tally = Tally()
    idle: deque[HttpClient] = deque()
    due: deque[int] = deque()
    request = post(target.http, _event())

    def answered(client: HttpClient, took_us: int) -> None:
        if tally.sampling:
            tally.latencies.append(took_us)
        tally.add(1)
        if due:
            client.send(request, due_us=due.popleft())
        else:
            idle.append(client)

    clients = [await HttpClient.connect(target.http, tally, answered) for _ in range(64)]
    idle.extend(clients)
    sent = await _post_steadily(run.warm_up, idle, due, request)
    tally.sampling = True
    with watching(target.pids) as usage:
        sent += await _post_steadily(run.seconds, idle, due, request)
        await tally.reach(sent, within=_WITHIN)
    await _until_idle(clients, tally)
    for part, value in (("p50", 0.5), ("p99", 0.99)):
        took = percentile(tally.latencies, value) / 1000
        run.report.add(_CASE, f"single at {_RATE:,}/s: {part}", target.name, took, unit="ms", notes=usage.notes)


async def _post_steadily(seconds: float, idle: deque[HttpClient], due: deque[int], request: bytes) -> int:
    begin, count = time.perf_counter(), int(seconds * _RATE)
    begin_us = now_us()
    sent = 0
    while sent < count:
        await asyncio.sleep(0.001)
        now = min(count, int((time.perf_counter() - begin) * _RATE))
        for number in range(sent, now):
            when = begin_us + number * 1_000_000 // _RATE
            if idle:
                # Not from when it was due: the millisecond of the generator's own clock is not the server's.
                idle.popleft().send(request)
            else:
                due.append(when)
        sent = max(sent, now)
    return sent


async def _until_idle(clients: list[HttpClient], tally: Tally) -> None:
    async with asyncio.timeout(_WITHIN):
        while any(client.busy for client in clients):
            tally.check()
            await asyncio.sleep(0.01)
    for client in clients:
        client.close()
