"""One event to many clients: CPU time per delivery, deliveries per second, memory per connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from bench.cases.run import Run, connect_all
from bench.load.event import event_data
from bench.load.mqtt_client import MqttClient
from bench.load.tally import LoadFailed, Tally
from bench.load.websocket import SocketIoClient
from bench.servers import FLOOR, GAPLESS, MOSQUITTO, NODE_SOCKETIO, PYTHON_SOCKETIO, Target
from bench.watch import Usage, resident_bytes, watching
from gapless.mqtt import ProtocolVersion

_WITHIN = 30.0
_SETTLE = 0.5


async def fanout_socketio(run: Run) -> None:
    """To Socket.IO clients on WebSocket."""
    case = f"Socket.IO 1 → {run.clients:,}"

    async def load(target: Target) -> None:
        tally = Tally()
        publisher = await SocketIoClient.connect(target.http, tally, room=None)
        await publisher.publish(event_data())  # everything is loaded and warm before memory is read
        before = resident_bytes(target.pids)
        clients = await connect_all(run.clients, lambda _: SocketIoClient.connect(target.http, tally))
        await _report_memory(run, case, target, before=before, connections=len(clients))
        await _fan_out(run, case, target, tally, clients, lambda: publisher.publish(event_data()))
        publisher.close()

    await run.against(case, (GAPLESS, FLOOR, NODE_SOCKETIO, PYTHON_SOCKETIO), load)


async def fanout_mqtt_qos0(run: Run) -> None:
    """To MQTT 3.1.1 clients that subscribed at QoS 0; the event is published at QoS 1."""
    await _fanout_mqtt(run, qos=0, version=ProtocolVersion.V311)


async def fanout_mqtt_qos1(run: Run) -> None:
    """To MQTT 3.1.1 clients at QoS 1: every delivery is acknowledged."""
    await _fanout_mqtt(run, qos=1, version=ProtocolVersion.V311)


async def fanout_mqtt5_qos1(run: Run) -> None:
    """To MQTT 5 clients at QoS 1; Gapless adds id, type, time and position as user properties."""
    await _fanout_mqtt(run, qos=1, version=ProtocolVersion.V5)


async def _fanout_mqtt(run: Run, *, qos: int, version: ProtocolVersion) -> None:
    name = "MQTT 5" if version is ProtocolVersion.V5 else "MQTT"
    case = f"{name} QoS {qos} 1 → {run.clients:,}"

    async def load(target: Target) -> None:
        tally = Tally()
        publisher = await MqttClient.connect(target.mqtt, tally, client_id="bench-pub", version=version)

        async def publish() -> None:
            publisher.publish(event_data())

        await publish()
        before = resident_bytes(target.pids)
        clients = await connect_all(
            run.clients,
            lambda number: MqttClient.connect(
                target.mqtt, tally, client_id=f"bench-{number}", qos=qos, version=version
            ),
        )
        await _report_memory(run, case, target, before=before, connections=len(clients))
        await _fan_out(run, case, target, tally, clients, publish)
        publisher.close()

    peers = (FLOOR, MOSQUITTO) if version is ProtocolVersion.V311 else (MOSQUITTO,)
    await run.against(case, (GAPLESS, *peers), load)


async def _report_memory(run: Run, case: str, target: Target, *, before: int, connections: int) -> None:
    await asyncio.sleep(_SETTLE)
    grown = resident_bytes(target.pids) - before
    if grown > 0:
        run.report.add(case, "RSS per connection", target.name, grown / connections / 1024, unit="KiB")


async def _fan_out(
    run: Run,
    case: str,
    target: Target,
    tally: Tally,
    clients: Sequence[SocketIoClient | MqttClient],
    publish: Callable[[], Awaitable[None]],
) -> None:
    """One event at a time, the next once everybody has the last: nothing can be joined into one write."""
    events = await _one_by_one(tally, len(clients), publish, seconds=run.warm_up)
    before = tally.count
    with watching(target.pids) as usage:
        events += await _one_by_one(tally, len(clients), publish, seconds=run.seconds)
    _check(tally, clients, events)
    _report(run, case, target, usage, tally.count - before)
    for client in clients:
        client.close()


async def _one_by_one(tally: Tally, size: int, publish: Callable[[], Awaitable[None]], *, seconds: float) -> int:
    end = time.perf_counter() + seconds
    events = 0
    while time.perf_counter() < end:
        target = tally.count + size
        await publish()
        await tally.reach(target, within=_WITHIN)
        events += 1
    return events


def _check(tally: Tally, clients: Sequence[SocketIoClient | MqttClient], events: int) -> None:
    tally.check()
    wrong = sum(client.received != events for client in clients)
    if wrong:
        raise LoadFailed(f"{wrong:,} clients did not receive each of {events:,} events once")


def _report(run: Run, case: str, target: Target, usage: Usage, deliveries: int) -> None:
    notes = usage.notes
    add = run.report.add
    if usage.server:
        value = usage.server / deliveries * 1e6
        add(case, "CPU per delivery", target.name, value, unit="µs", notes=notes)
    add(case, "deliveries", target.name, deliveries / usage.seconds, unit="/s", notes=notes)
