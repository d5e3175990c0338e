"""Readers that stall, and what others feel of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from bench.cases.run import Run, connect_all
from bench.load.event import event_data
from bench.load.mqtt_client import MqttClient
from bench.load.tally import LoadFailed, Tally, percentile
from bench.load.websocket import SocketIoClient
from bench.servers import GAPLESS, Target
from bench.watch import Usage, resident_bytes, watching

_RATE = 1000
_WITHIN = 30.0
_BUFFER = 4096
"""Bytes of a stalled client's receive buffer, so that it is felt early."""

Client = SocketIoClient | MqttClient


async def stalled_socketio(run: Run) -> None:
    """Socket.IO on WebSocket."""

    async def healthy(target: Target, tally: Tally, number: int) -> Client:
        return await SocketIoClient.connect(target.http, tally, room=f"lead:{number}")

    async def stalled(target: Target, tally: Tally, number: int) -> Client:
        return await SocketIoClient.connect(target.http, tally, room="org:global", receive_buffer=_BUFFER)

    await _stalled(run, "Socket.IO", healthy, stalled)


async def stalled_mqtt(run: Run) -> None:
    """MQTT 3.1.1 at QoS 1: a stalled client acknowledges nothing, either."""

    async def healthy(target: Target, tally: Tally, number: int) -> Client:
        filter_ = f"crm/leads/{number}/updated"
        return await MqttClient.connect(target.mqtt, tally, client_id=f"healthy-{number}", qos=1, filter=filter_)

    async def stalled(target: Target, tally: Tally, number: int) -> Client:
        return await MqttClient.connect(
            target.mqtt,
            tally,
            client_id=f"stalled-{number}",
            qos=1,
            filter="crm/leads/+/updated",
            stays=True,
            receive_buffer=_BUFFER,
        )

    await _stalled(run, "MQTT QoS 1", healthy, stalled)


async def _stalled(
    run: Run,
    name: str,
    connect_healthy: Callable[[Target, Tally, int], Awaitable[Client]],
    connect_stalled: Callable[[Target, Tally, int], Awaitable[Client]],
) -> None:
    """Each event is for one healthy client and for all stalled ones."""
    count = max(1, run.clients // 10)
    case = f"stalled: {name}, {run.clients:,} beside {count:,}"

    async def load(target: Target) -> None:
        tally = Tally()
        publisher = await MqttClient.connect(target.mqtt, tally, client_id="bench-pub")
        healthy = await connect_all(count, lambda number: connect_healthy(target, tally, number))
        for client in healthy:
            client.sampling = True
        published = await _publish_to_all(publisher, count, run.warm_up)
        await tally.reach(published, within=_WITHIN)
        published += await _measure(run, case, target, "without", tally, publisher, count)
        before = resident_bytes(target.pids)
        stalled = await connect_all(run.clients, lambda number: connect_stalled(target, Tally(), number))
        for client in stalled:
            client.stall()
        published += await _publish_to_all(publisher, count, 2.0)  # until their sockets are full
        await tally.reach(published, within=_WITHIN)
        published += await _measure(run, case, target, "with", tally, publisher, count)
        grown = resident_bytes(target.pids) - before
        if grown > 0:
            run.report.add(case, "RSS per stalled client", target.name, grown / run.clients / 1024, unit="KiB")
        _check(healthy, tally, published)
        for client in (*healthy, *stalled, publisher):
            client.close()

    await run.against(case, (GAPLESS,), load)


async def _measure(
    run: Run, case: str, target: Target, how: str, tally: Tally, publisher: MqttClient, count: int
) -> int:
    tally.latencies.clear()
    tally.sampling = True
    with watching(target.pids) as usage:
        begin = tally.count
        published = await _publish_to_all(publisher, count, run.seconds * 2)
        await tally.reach(begin + published, within=_WITHIN)
    tally.sampling = False
    _report(run, case, target, how, tally, usage, published)
    return published


def _report(run: Run, case: str, target: Target, how: str, tally: Tally, usage: Usage, published: int) -> None:
    for part, value in (("p50", 0.5), ("p99", 0.99)):
        took = percentile(tally.latencies, value) / 1000
        run.report.add(case, f"latency {part}, {how}", target.name, took, unit="ms", notes=usage.notes)
    for name, seconds in (("CPU", usage.server), ("generator CPU", usage.generator)):
        if seconds:
            value = seconds / published * 1e6
            run.report.add(case, f"{name} per event, {how}", target.name, value, unit="µs", notes=usage.notes)


async def _publish_to_all(publisher: MqttClient, count: int, seconds: float) -> int:
    """1,000 events a second by the clock, to each healthy client in turn; how many."""
    begin, total = time.perf_counter(), int(seconds * _RATE)
    for number in range(total):
        wait = begin + number / _RATE - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        publisher.publish_to(f"crm/leads/{number % count}/updated", event_data())
    return total


def _check(healthy: Sequence[Client], tally: Tally, published: int) -> None:
    tally.check()
    received = sum(client.received for client in healthy)
    if received != published:
        raise LoadFailed(f"{published:,} events were published to healthy clients, {received:,} received")
