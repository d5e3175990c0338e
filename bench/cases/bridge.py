"""MQTT in at QoS 1, Socket.IO out: how much, and how soon."""

from __future__ import annotations

import asyncio
import time

from bench.cases.run import Run
from bench.load.event import event_data
from bench.load.mqtt_client import MqttClient
from bench.load.tally import LoadFailed, Tally, percentile
from bench.load.websocket import SocketIoClient
from bench.servers import FLOOR, GAPLESS, NODE_BRIDGE, Target
from bench.watch import watching

_CASE = "MQTT QoS 1 → Socket.IO 1 : 1"
_WINDOW = 256
_RATE = 1000
_WITHIN = 30.0


async def bridge(run: Run) -> None:
    """Events per second with a window of 256, then latency at 1,000 events a second."""

    async def load(target: Target) -> None:
        tally = Tally()
        receiver = await SocketIoClient.connect(target.http, tally)
        receiver.sampling = True
        publisher = await MqttClient.connect(target.mqtt, tally, client_id="bench-pub")
        await _saturate(run, target, tally, publisher)
        await _at_a_rate(run, target, tally, publisher)
        if receiver.received != publisher.published:
            raise LoadFailed(f"{publisher.published:,} events were published, {receiver.received:,} received")
        receiver.close()
        publisher.close()

    await run.against(_CASE, (GAPLESS, FLOOR, NODE_BRIDGE), load)


async def _saturate(run: Run, target: Target, tally: Tally, publisher: MqttClient) -> None:
    def more() -> None:
        # What neither the server has acknowledged nor the receiver has got is in the window.
        behind = min(tally.count, publisher.acknowledged)
        room = _WINDOW - (publisher.published - behind)
        if room >= _WINDOW // 8:  # several in one write: the generator must not be the limit
            publisher.publish(*(event_data() for _ in range(room)))

    tally.on_progress = more
    more()
    await asyncio.sleep(run.warm_up)
    before = tally.count
    with watching(target.pids) as usage:
        await asyncio.sleep(run.seconds)
        received = tally.count - before
    tally.on_progress = None
    await tally.reach(publisher.published, within=_WITHIN)
    if not received:
        raise LoadFailed("no event arrived")
    add, notes = run.report.add, usage.notes
    add(_CASE, f"events, window {_WINDOW}", target.name, received / usage.seconds, unit="/s", notes=notes)
    if usage.server:
        add(_CASE, "CPU per event", target.name, usage.server / received * 1e6, unit="µs", notes=notes)


async def _at_a_rate(run: Run, target: Target, tally: Tally, publisher: MqttClient) -> None:
    await _publish_steadily(publisher, run.warm_up)
    await tally.reach(publisher.published, within=_WITHIN)
    tally.sampling = True
    with watching(target.pids) as usage:
        late = await _publish_steadily(publisher, run.seconds)
        await tally.reach(publisher.published, within=_WITHIN)
    tally.sampling = False
    notes = usage.notes
    if late > 5:
        notes.append("generator was late")
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        value = percentile(tally.latencies, part) / 1000
        run.report.add(_CASE, f"latency {name} at {_RATE:,}/s", target.name, value, unit="ms", notes=notes)


async def _publish_steadily(publisher: MqttClient, seconds: float) -> float:
    """An event every millisecond whatever comes back; by how many milliseconds it was late at worst.

    The load is open: a slow server does not slow it down, so the times of sending can be stamped when
    an event is really written without leaving out the waits that count.
    """
    loop = asyncio.get_running_loop()
    begin = time.perf_counter()
    worst = 0.0
    for number in range(int(seconds * _RATE)):
        due = begin + number / _RATE
        wait = due - time.perf_counter()
        if wait > 0:
            await _sleep(loop, wait)
        worst = max(worst, time.perf_counter() - due)
        publisher.publish(event_data())
    return worst * 1000


async def _sleep(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    waiter = loop.create_future()
    loop.call_later(seconds, waiter.set_result, None)
    await waiter
