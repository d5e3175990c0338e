"""Many rooms with few members each, and one room with readers of every kind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import msgspec

from bench.cases.doors import MQTT_QOS1, SOCKETIO, SSE, Reader
from bench.cases.fanout import one_by_one
from bench.cases.run import Run, connect_all, report_load
from bench.load.centrifugo_client import CentrifugoClient
from bench.load.event import ROOM, event_data
from bench.load.http_readers import PollReader, fetch
from bench.load.tally import LoadFailed, Tally
from bench.load.websocket import SocketIoClient
from bench.servers import CENTRIFUGO, GAPLESS, NODE_SOCKETIO, PYTHON_SOCKETIO, Target
from bench.watch import resident_bytes, watching

_MEMBERS = 3
_ROOMS_EACH = 20
_WINDOW = 64
_WITHIN = 30.0


async def many_rooms(run: Run) -> None:
    """Ten rooms for each client of a fan-out, three members each: events to rooms by chance."""
    await rooms_of_three(run, rooms=10 * run.clients, case=f"Socket.IO, {10 * run.clients:,} rooms of 3")


async def rooms_of_three(run: Run, *, rooms: int, case: str, peers: bool = True) -> None:
    """Rooms of three members; each connection is in twenty of them."""
    each = min(_ROOMS_EACH, rooms)
    connections = rooms * _MEMBERS // each

    async def load(target: Target) -> None:
        tally = Tally()
        publisher = await SOCKETIO.warm_publisher(target, tally)
        before = resident_bytes(target.pids)

        async def connect(number: int) -> SocketIoClient | CentrifugoClient:
            # Three connections have the same rooms but for their order: who is in a room changes nothing else.
            mine = [(number // _MEMBERS * each + place) % rooms for place in range(each)]
            if target.name == CENTRIFUGO:
                return await CentrifugoClient.connect(target.http, tally, channels=tuple(f"lead_{n}" for n in mine))
            return await SocketIoClient.connect(target.http, tally, rooms=[f"lead:{n}" for n in mine])

        readers = await connect_all(connections, connect)
        grown = resident_bytes(target.pids) - before
        if grown > 0:
            run.report.add(case, "RSS per membership", target.name, grown / (rooms * _MEMBERS), unit="B")
        assert isinstance(publisher, SocketIoClient | CentrifugoClient)
        await _publish_to_rooms(run, case, target, tally, publisher, rooms)
        _close(readers)
        publisher.close()

    if problem := run.too_many(connections):
        run.report.skip(case, problem)
        return
    await run.against(case, (GAPLESS, NODE_SOCKETIO, PYTHON_SOCKETIO, CENTRIFUGO) if peers else (GAPLESS,), load)


async def _publish_to_rooms(
    run: Run, case: str, target: Target, tally: Tally, publisher: SocketIoClient | CentrifugoClient, rooms: int
) -> None:
    chance = random.Random(1)
    name = "lead_{}" if target.name == CENTRIFUGO else "crm/leads/{}/updated"
    first = publisher.published  # the first event was to a room that nobody was in

    def more() -> None:
        behind = min(tally.count // _MEMBERS + first, publisher.acknowledged)
        while publisher.published - behind < _WINDOW:
            publisher.publish_to(name.format(chance.randrange(rooms)), event_data())

    tally.on_progress = more
    more()
    await asyncio.sleep(run.warm_up)
    before = tally.count
    with watching(target.pids) as usage:
        await asyncio.sleep(run.seconds)
        deliveries = tally.count - before
    tally.on_progress = None
    await tally.reach((publisher.published - first) * _MEMBERS, within=_WITHIN)
    if tally.count != (publisher.published - first) * _MEMBERS:
        raise LoadFailed(f"{publisher.published - first:,} events came {tally.count:,} times")
    report_load(run, case, target, usage, deliveries, what="deliver")


async def mixed(run: Run) -> None:
    """A quarter each of Socket.IO, MQTT at QoS 1, SSE and long polling in one room; no peer has all of them."""
    quarter = max(1, run.clients // 4)
    case = f"mixed 1 → {quarter:,} each of Socket.IO, MQTT, SSE, polling"

    async def load(target: Target) -> None:
        tally = Tally()
        publisher = await SOCKETIO.warm_publisher(target, tally)
        readers: list[Reader] = []
        for door in (SOCKETIO, MQTT_QOS1, SSE):
            readers += await connect_all(quarter, lambda number, door=door: door.read(target, tally, number))  # type: ignore[misc]
        after = msgspec.json.decode(await fetch(target.http, f"/api/events?rooms={ROOM}"))["position"]
        readers += await connect_all(quarter, lambda _: PollReader.connect(target.http, tally, after=after))
        await one_by_one(run, case, target, tally, readers, publisher, seconds=run.seconds)
        publisher.close()

    await run.against(case, (GAPLESS,), load)


def _close(readers: Sequence[Reader]) -> None:
    for reader in readers:
        reader.close()
