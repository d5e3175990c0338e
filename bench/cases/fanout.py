"""One event to many clients: CPU time per delivery, deliveries per second, memory per connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from bench.cases.doors import MQTT5_QOS1, MQTT_QOS0, MQTT_QOS1, SOCKETIO, SSE, Door, Publisher, Reader
from bench.cases.run import Run, connect_all, report_load
from bench.load.event import event_data
from bench.load.tally import LoadFailed, Tally
from bench.servers import Target
from bench.watch import resident_bytes, watching

_WITHIN = 30.0
_SETTLE = 0.5
_BURST_CLIENTS = 200


async def fanout_socketio(run: Run) -> None:
    """To Socket.IO clients on WebSocket; of Centrifugo, to clients of its own JSON protocol."""
    for clients in run.sizes:
        await fan_out(run, SOCKETIO, clients)


async def fanout_mqtt_qos0(run: Run) -> None:
    """To MQTT 3.1.1 clients that subscribed at QoS 0; the event is published at QoS 1."""
    for clients in run.sizes:
        await fan_out(run, MQTT_QOS0, clients)


async def fanout_mqtt_qos1(run: Run) -> None:
    """To MQTT 3.1.1 clients at QoS 1: every delivery is acknowledged."""
    for clients in run.sizes:
        await fan_out(run, MQTT_QOS1, clients)


async def fanout_mqtt5_qos1(run: Run) -> None:
    """To MQTT 5 clients at QoS 1; Gapless adds id, type, time and position as user properties."""
    await fan_out(run, MQTT5_QOS1, run.clients)


async def fanout_sse(run: Run) -> None:
    """To streams of server-sent events."""
    await fan_out(run, SSE, run.clients)


async def bursts_socketio(run: Run) -> None:
    """To Socket.IO clients, 10 and 100 events published at once."""
    for burst in (10, 100):
        await fan_out(run, SOCKETIO, min(_BURST_CLIENTS, run.clients), burst=burst)


async def bursts_mqtt_qos1(run: Run) -> None:
    """To MQTT clients at QoS 1, 10 and 100 events published at once."""
    for burst in (10, 100):
        await fan_out(run, MQTT_QOS1, min(_BURST_CLIENTS, run.clients), burst=burst)


async def fan_out(run: Run, door: Door, clients: int, *, burst: int = 1, named: str | None = None) -> None:
    """Events at once, the next once everybody has the last: with one, nothing can be joined into one write."""
    case = named or f"{door.name} {burst} → {clients:,}"
    # The middle size is the one to compare; beside it half the time is enough to see what size changes.
    seconds = run.seconds if clients == run.clients or burst > 1 else run.seconds / 2

    async def load(target: Target) -> None:
        tally = Tally()
        publisher = await door.warm_publisher(target, tally)
        before = resident_bytes(target.pids)
        readers = await connect_all(clients, lambda number: door.read(target, tally, number))
        if burst == 1:
            await _report_memory(run, case, target, before=before, connections=clients)
        await one_by_one(run, case, target, tally, readers, publisher, seconds=seconds, burst=burst)
        publisher.close()

    if problem := run.too_many(clients):
        run.report.skip(case, problem)
        return
    await run.against(case, door.servers, load)


async def _report_memory(run: Run, case: str, target: Target, *, before: int, connections: int) -> None:
    await asyncio.sleep(_SETTLE)
    grown = resident_bytes(target.pids) - before
    if grown > 0:
        run.report.add(case, "RSS per connection", target.name, grown / connections / 1024, unit="KiB")


async def one_by_one(
    run: Run,
    case: str,
    target: Target,
    tally: Tally,
    readers: Sequence[Reader],
    publisher: Publisher,
    *,
    seconds: float,
    burst: int = 1,
) -> None:
    """Publish, wait until all readers have it, and again; report, and close the readers.

    Raises:
        LoadFailed: a reader did not receive each event once.
    """
    events = await _publish_for(seconds / 5, tally, len(readers), publisher, burst)
    before = tally.count
    with watching(target.pids) as usage:
        events += await _publish_for(seconds, tally, len(readers), publisher, burst)
    tally.check()
    wrong = sum(reader.received != events for reader in readers)
    if wrong:
        raise LoadFailed(f"{wrong:,} clients did not receive each of {events:,} events once")
    report_load(run, case, target, usage, tally.count - before, what="deliver")
    for reader in readers:
        reader.close()


async def _publish_for(seconds: float, tally: Tally, readers: int, publisher: Publisher, burst: int) -> int:
    end = time.perf_counter() + seconds
    events = 0
    while True:
        target = tally.count + readers * burst
        publisher.publish_all(*(event_data() for _ in range(burst)))
        await tally.reach(target, within=_WITHIN)
        events += burst
        if time.perf_counter() >= end:
            return events
