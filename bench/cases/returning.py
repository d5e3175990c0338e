"""Clients that come back: many at once, and one that missed much."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import msgspec

from bench.cases.run import Run, connect_all
from bench.load.event import FILTER, ROOM, event_data
from bench.load.http_readers import SseReader, fetch, poll_all, publish_all
from bench.load.mqtt_client import MqttClient
from bench.load.tally import LoadFailed, Tally
from bench.load.websocket import SocketIoClient
from bench.servers import GAPLESS, Target
from bench.watch import Usage, peak_bytes, reset_peak, resident_bytes, watching

_WITHIN = 60.0
_CONNECTING = 1000
_BEHIND = 100
_BEHIND_EACH = 10
_MISSED = 10_000

Client = SocketIoClient | MqttClient
Return = Callable[[Target, Tally, int], Coroutine[Any, Any, Client]]


class Drop(Protocol):
    """Connects clients and drops them; they then miss events."""

    async def __call__(self, target: Target, count: int, *, missed: int) -> Return:
        """How each of them comes back."""


async def storm_socketio(run: Run) -> None:
    """Socket.IO clients on WebSocket, recovered by `pid` and offset."""
    await _storm(run, "Socket.IO clients", _drop_socketio, behind=_BEHIND)


async def storm_mqtt(run: Run) -> None:
    """MQTT 3.1.1 clients with persistent sessions at QoS 1."""
    await _storm(run, "MQTT sessions", _drop_mqtt, behind=_BEHIND)


async def storm_topics(run: Run) -> None:
    """The same with a topic for each, and fewer events for each: together as many as are kept in memory."""
    drop = partial(_drop_mqtt, own_topics=True)
    await _storm(run, "MQTT sessions, a topic each", drop, behind=_BEHIND_EACH)


async def catch_up(run: Run) -> None:
    """One client that missed 10,000 events, on each transport: from the recent events in memory, and from the log."""
    for source, env in (("memory", None), ("the log", {"GAPLESS_RECENT_EVENTS": "1"})):
        case = f"catch-up of {_MISSED:,} from {source}"

        async def load(target: Target, case: str = case) -> None:
            returns = [
                ("Socket.IO", await _drop_socketio(target, 1, missed=0)),
                ("MQTT QoS 1", await _drop_mqtt(target, 1, missed=0)),
            ]
            after = msgspec.json.decode(await fetch(target.http, f"/api/events?rooms={ROOM}"))["position"]
            await _publish_missed(target, _MISSED)
            for name, come_back in returns:
                tally = Tally()
                with watching(target.pids) as usage:
                    client = await come_back(target, tally, 0)
                    await tally.reach(_MISSED, within=_WITHIN)
                client.close()
                _report_catch_up(run, case, name, target, usage, tally.count)
            tally = Tally()
            with watching(target.pids) as usage:
                stream = await SseReader.connect(target.http, tally, after=after)
                await tally.reach(_MISSED, within=_WITHIN)
            stream.close()
            _report_catch_up(run, case, "SSE", target, usage, tally.count)
            with watching(target.pids) as usage:
                await poll_all(target.http, after=after, count=_MISSED)
            _report_catch_up(run, case, "polling", target, usage, _MISSED)

        await run.against(case, (GAPLESS,), load, env=env)


def _report_catch_up(run: Run, case: str, name: str, target: Target, usage: Usage, received: int) -> None:
    if received != _MISSED:
        raise LoadFailed(f"{name}: {received:,} events came in place of {_MISSED:,}")
    add, notes = run.report.add, usage.notes
    add(case, f"{name}: until whole", target.name, usage.seconds, unit="s", notes=notes)
    add(case, f"{name}: events", target.name, _MISSED / usage.seconds, unit="/s", notes=notes)
    if usage.server:
        add(case, f"{name}: CPU per event", target.name, usage.server / _MISSED * 1e6, unit="µs", notes=notes)


async def _storm(run: Run, who: str, drop: Drop, *, behind: int) -> None:
    """Ten times as many clients as a fan-out has are dropped, miss events, and return."""
    clients = 10 * run.clients
    case = f"storm: {clients:,} {who}"

    async def load(target: Target) -> None:
        come_back = await drop(target, clients, missed=behind)
        await _return(run, case, target, clients, come_back, behind=behind)

    if problem := run.too_many(clients):
        run.report.skip(case, problem)
        return
    await run.against(case, (GAPLESS,), load)


async def _return(run: Run, case: str, target: Target, count: int, come_back: Return, *, behind: int) -> None:
    """All of them, a thousand connecting at a time (the backlog is 4,096); done when each has what it missed."""
    tally = Tally()
    gate = asyncio.Semaphore(_CONNECTING)

    async def one(number: int) -> Client:
        async with gate:
            return await come_back(target, tally, number)

    before = resident_bytes(target.pids)
    reset_peak(target.pids)
    with watching(target.pids) as usage:
        returning = [asyncio.create_task(one(number)) for number in range(count)]
        try:
            await tally.reach(count * behind, within=_WITHIN)
            clients = await asyncio.gather(*returning)
        except BaseException:
            for task in returning:
                task.cancel()
            await asyncio.wait(returning)
            raise
    wrong = sum(client.received != behind for client in clients)
    for client in clients:
        client.close()
    if wrong:
        raise LoadFailed(f"{wrong:,} clients did not receive each of {behind} events once")
    add, notes = run.report.add, usage.notes
    add(case, f"until all have {behind} events", target.name, usage.seconds, unit="s", notes=notes)
    add(case, "generator CPU", target.name, usage.generator, unit="s", notes=notes)
    if usage.server:
        peak = peak_bytes(target.pids)
        add(case, "server CPU", target.name, usage.server, unit="s", notes=notes)
        add(case, "server CPU per client", target.name, usage.server / count * 1e3, unit="ms", notes=notes)
        add(case, "RSS before", target.name, before / 2**20, unit="MiB", notes=notes)
        add(case, "peak RSS", target.name, peak / 2**20, unit="MiB", notes=notes)


async def _drop_socketio(target: Target, count: int, *, missed: int) -> Return:
    """Connect clients, let them receive an event, drop them, publish what they miss; how they come back."""
    tally = Tally()
    clients = await connect_all(count, lambda _: SocketIoClient.connect(target.http, tally))
    offset = await publish_all(target.http, [event_data()])
    await tally.reach(count, within=_WITHIN)
    pids = [client.pid for client in clients]
    for client in clients:
        client.close()
    await _all_gone(target, "socketio")
    await _publish_missed(target, missed)

    async def come_back(target: Target, tally: Tally, number: int) -> Client:
        return await SocketIoClient.come_back(target.http, tally, pid=pids[number], offset=offset)

    return come_back


async def _drop_mqtt(target: Target, count: int, *, missed: int, own_topics: bool = False) -> Return:
    """See `_drop_socketio`; a session stands at its subscription without an event."""
    tally = Tally()
    topic = "crm/leads/{}/updated".format

    async def connect(target: Target, tally: Tally, number: int, qos: int | None = None) -> Client:
        wanted = topic(number) if own_topics else FILTER
        client_id = f"storm-{number}"
        return await MqttClient.connect(target.mqtt, tally, client_id=client_id, qos=qos, filter=wanted, stays=True)

    clients = await connect_all(count, lambda number: connect(target, tally, number, 1))
    for client in clients:
        client.close()
    await _all_gone(target, "mqtt")
    if own_topics:
        await publish_all(target.http, [event_data()] * (count * missed), topics=[topic(n) for n in range(count)])
    else:
        await _publish_missed(target, missed)
    return connect


async def _publish_missed(target: Target, count: int) -> None:
    if count:
        await publish_all(target.http, [event_data() for _ in range(count)])


async def _all_gone(target: Target, transport: str) -> None:
    """Wait until the server has noticed that nobody is connected."""
    gauge = re.compile(rf'^gapless_connections{{transport="{transport}"}} (\S+)$'.encode(), re.MULTILINE)
    end = time.perf_counter() + _WITHIN
    while time.perf_counter() < end:
        found = gauge.search(await fetch(target.http, "/metrics"))
        if found is not None and float(found[1]) == 0:
            return
        await asyncio.sleep(0.05)
    raise LoadFailed(f"the server still knows clients on {transport}")
