"""From one protocol to the other, one publisher and one reader: how much, and how soon."""

from __future__ import annotations

import asyncio
import time

from bench.cases.doors import Publisher
from bench.cases.run import Run, report_load
from bench.load.event import event_data
from bench.load.mqtt_client import MqttClient
from bench.load.tally import LoadFailed, Tally, percentile
from bench.load.websocket import SocketIoClient
from bench.servers import FLOOR, GAPLESS, NODE_BRIDGE, Target
from bench.watch import watching

_WINDOW = 256
_RATE = 1000
_STEP = 0.001
_WITHIN = 30.0

Client = SocketIoClient | MqttClient


async def bridge(run: Run) -> None:
    """MQTT at QoS 1 in, Socket.IO out."""

    async def load(target: Target) -> None:
        tally = Tally()
        reader = await SocketIoClient.connect(target.http, tally)
        publisher = await MqttClient.connect(target.mqtt, tally, client_id="bench-pub")
        await _measure(run, "MQTT QoS 1 → Socket.IO 1 : 1", target, tally, reader, publisher)

    await run.against("MQTT QoS 1 → Socket.IO 1 : 1", (GAPLESS, FLOOR, NODE_BRIDGE), load)


async def bridge_back(run: Run) -> None:
    """Socket.IO in, each event acknowledged, MQTT at QoS 1 out."""

    async def load(target: Target) -> None:
        tally = Tally()
        reader = await MqttClient.connect(target.mqtt, tally, client_id="bench-reader", qos=1)
        publisher = await SocketIoClient.connect(target.http, tally, room=None)
        await _measure(run, "Socket.IO → MQTT QoS 1 1 : 1", target, tally, reader, publisher)

    await run.against("Socket.IO → MQTT QoS 1 1 : 1", (GAPLESS, FLOOR, NODE_BRIDGE), load)


async def _measure(run: Run, case: str, target: Target, tally: Tally, reader: Client, publisher: Client) -> None:
    """Events per second with a window of 256, then latency at 1,000 a second and at half of what was reached."""
    reader.sampling = True
    rate = await _saturate(run, case, target, tally, publisher)
    await _at_a_rate(run, case, f"at {_RATE:,}/s", target, tally, publisher, _RATE)
    await _at_a_rate(run, case, "at half its events/s", target, tally, publisher, rate / 2)
    if reader.received != publisher.published:
        raise LoadFailed(f"{publisher.published:,} events were published, {reader.received:,} received")
    reader.close()
    publisher.close()


async def _saturate(run: Run, case: str, target: Target, tally: Tally, publisher: Publisher) -> float:
    def more() -> None:
        # What neither the server has acknowledged nor the receiver has got is in the window.
        behind = min(tally.count, publisher.acknowledged)
        room = _WINDOW - (publisher.published - behind)
        if room >= _WINDOW // 8:  # several in one write: the generator must not be the limit
            publisher.publish_all(*(event_data() for _ in range(room)))

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
    report_load(run, case, target, usage, received, what="event")
    return received / usage.seconds


async def _at_a_rate(
    run: Run, case: str, name: str, target: Target, tally: Tally, publisher: Publisher, rate: float
) -> None:
    await publish_steadily(publisher, run.warm_up, rate)
    await tally.reach(publisher.published, within=_WITHIN)
    tally.latencies.clear()
    tally.sampling = True
    with watching(target.pids) as usage:
        late = await publish_steadily(publisher, run.seconds, rate)
        await tally.reach(publisher.published, within=_WITHIN)
    tally.sampling = False
    notes = usage.notes
    if late > 5:
        notes.append("generator was late")
    for part_name, part in (("p50", 0.5), ("p99", 0.99)):
        value = percentile(tally.latencies, part) / 1000
        run.report.add(case, f"latency {part_name} {name}", target.name, value, unit="ms", notes=notes)


async def publish_steadily(publisher: Publisher, seconds: float, rate: float) -> float:
    """Every millisecond the events that are due, whatever comes back; by how many milliseconds it was late at worst.

    The load is open: a slow server does not slow it down, so the times of sending can be stamped when
    an event is really written without leaving out the waits that count.
    """
    loop = asyncio.get_running_loop()
    begin = time.perf_counter()
    worst = 0.0
    sent, count = 0, int(seconds * rate)
    while sent < count:
        now = time.perf_counter()
        due = min(count, int((now - begin) * rate) + 1)
        if due > sent:
            worst = max(worst, now - begin - sent / rate)
            publisher.publish_all(*(event_data() for _ in range(due - sent)))
            sent = due
        if sent < count:
            wait = begin + max(sent / rate, now - begin + _STEP) - time.perf_counter()
            if wait > 0:
                await _sleep(loop, wait)
            else:
                await asyncio.sleep(0)  # what has come back must be read, too
    return worst * 1000


async def _sleep(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    waiter = loop.create_future()
    loop.call_later(seconds, waiter.set_result, None)
    await waiter
