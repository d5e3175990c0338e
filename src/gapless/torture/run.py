"""A run: the plan's processes, its faults, the time to become whole, and the verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gapless.client.rest import RestPublisher
from gapless.client.single import Outgoing, RetryingPublisher
from gapless.eventlog import EVERYTHING
from gapless.eventlog.sqlite import SqliteLog
from gapless.torture.checker import FaultDone, History, LogRow, Report, check
from gapless.torture.content import LEADS, data_of, fingerprint, key_of, rooms_of, topic_of
from gapless.torture.injector import Injector
from gapless.torture.journal import Journal, Line, Tail, read_journal
from gapless.torture.plan import Fault, Plan
from gapless.torture.world import TortureFailed, World

SETTLE = 45.0
"""Seconds that publishers, and then clients, have to become whole once all faults are healed.

A hybrid client may have drawn a delay of 30 s just before, and then opens two transports with up to 8 s each.
"""

_READY = 60.0
_LOOK = 0.1
_END = "end"
_ENDS = 2


class Outcome(msgspec.Struct, frozen=True):
    """A run and its verdict.

    Attributes:
        whole_after: by client: seconds from when all was healed and published until it had everything; None: never.
        seconds: how long it took in all.
    """

    plan: Plan
    report: Report
    faults: tuple[FaultDone, ...]
    skipped: tuple[str, ...]
    whole_after: dict[str, float | None]
    seconds: float


async def run_torture(
    plan: Plan,
    folder: Path,
    *,
    modules: Path | None = None,
    plant: str | None = None,
    settle: float = SETTLE,
    on_fault: Callable[[Fault], None] = lambda _: None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run a plan in a folder, which keeps all journals, and check them.

    Bounded by the plan's seconds, 60 s to start, four times `settle`, and a little. All processes are gone
    when it returns or raises.

    Args:
        modules: folder of `node_modules`; needed where the plan has JavaScript clients.
        plant: a defect for the gateway; see `plants`. For tests of the checker.
        settle: see `SETTLE`.
        on_fault, on_stage: told what happens.

    Raises:
        TortureFailed: the run could not be made.
        ProcessFailed: a server did not start.
    """
    started = time.time()
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "plan.json", plan)
    on_stage("starting the gateway and the clients")
    async with World(plan, folder, plant=plant, modules=modules) as world:
        watch = Watch(world, settle)
        await watch.until_ready()
        began = await world.start_publishers()
        on_stage(f"publishing {plan.events} events, with {len(plan.faults)} faults in {plan.seconds:g} s")
        injector = Injector(world, on_fault)
        await asyncio.gather(injector.run(began), asyncio.sleep(max(0.0, began + plan.seconds - time.time())))
        on_stage("all is healed: everybody has to become whole")
        await watch.until_published()
        healed = time.time()
        await watch.until_whole()
        whole_after = watch.whole_after(healed)
        await _publish_ends(world, watch)
        await world.stop()
        rows = await read_log(folder / "data" / "events.db")
        _write(folder / "log.json", {"epoch": world.gateway.epoch, "rows": rows})
        _write(folder / "faults.json", injector.done)
        _write(folder / "ended.json", world.ended)
    report = check(load_history(folder))
    skipped = tuple(str(fault) for fault in injector.skipped)
    return Outcome(plan, report, tuple(injector.done), skipped, whole_after, time.time() - started)


def load_history(folder: Path) -> History:
    """Read a run's folder, for the checker.

    Raises:
        TortureFailed: it holds no whole run.
    """
    try:
        plan = msgspec.json.decode((folder / "plan.json").read_bytes(), type=Plan)
        log = msgspec.json.decode((folder / "log.json").read_bytes(), type=_Log)
        faults = msgspec.json.decode((folder / "faults.json").read_bytes(), type=list[FaultDone])
        ended = msgspec.json.decode((folder / "ended.json").read_bytes(), type=dict[str, str])
        publishers = _journals(folder, [*(each.name for each in plan.publishers), _END])
        clients = _journals(folder, [each.name for each in plan.clients])
    except (OSError, msgspec.DecodeError) as error:
        raise TortureFailed(
            f"{folder} holds no whole run: {error}", hint="name the folder of a run that ended"
        ) from error
    return History(plan, log.epoch, clients, publishers, log.rows, faults, ended)


async def read_log(path: Path) -> list[LogRow]:
    """Every event of a log that no gateway has open."""
    log = SqliteLog(path)
    await log.open(lambda _: None)
    rows: list[LogRow] = []
    after = 0
    while after < log.head:
        page = await log.read(EVERYTHING, after)
        after = page.through
        for record in page.records:
            data: Any = msgspec.json.decode(record.event.data)
            key = key_of(data["p"], data["n"]) if isinstance(data, dict) and "p" in data else record.event.id
            rows.append(
                LogRow(record.offset, record.event.id, key, fingerprint(data) if isinstance(data, dict) else "")
            )
    await log.close()
    return rows


class _Log(msgspec.Struct):
    epoch: str
    rows: list[LogRow]


def _journals(folder: Path, names: Sequence[str]) -> Mapping[str, list[Line]]:
    return {name: list(read_journal(folder / f"{name}.jsonl")) for name in names}


def _write(path: Path, value: object) -> None:
    path.write_bytes(msgspec.json.encode(value))


class Watch:
    """Reads the journals while they are written, to know when everybody has everything."""

    def __init__(self, world: World, settle: float) -> None:
        self._world = world
        self._settle = settle
        self._clients = {each.name: _Reading(Tail(world.journal(each.name))) for each in world.plan.clients}
        self._publishers = {each.name: _Reading(Tail(world.journal(each.name))) for each in world.plan.publishers}
        self._whole_at: dict[str, float] = {}

    async def until_ready(self) -> None:
        """Wait until every client is subscribed.

        Raises:
            TortureFailed: one is not, after a minute.
        """
        until = time.time() + _READY
        while waiting := [name for name, reading in self._clients.items() if not reading.look().connected]:
            self._check_players()
            if time.time() > until:
                raise TortureFailed(f"not subscribed after {_READY:g} s: {', '.join(waiting)}")
            await asyncio.sleep(_LOOK)

    def _check_players(self) -> None:
        for name, said in self._world.ended.items():
            raise TortureFailed(f"{name} did not start: {said}")

    async def until_published(self) -> None:
        """Let all publishers finish what they tried; bounded."""
        for player in self._world.publisher_groups():
            player.tell("stop")
        until = time.time() + self._settle
        while not self._are_done():
            if time.time() > until:
                return
            await asyncio.sleep(_LOOK)

    def _are_done(self) -> bool:
        readings = [reading.look() for reading in self._publishers.values()]
        return all(reading.done for reading in readings)

    async def until_whole(self) -> None:
        """Wait until every client has all that was acknowledged; bounded."""
        rooms: dict[str, tuple[str, str]] = {}
        for name, reading in self._publishers.items():
            rooms |= {key_of(name, n): rooms_of(data_of(name, n)) for n in reading.look().acknowledged}
        self._whole_at = await self.until_heard(rooms)

    async def until_heard(self, rooms: Mapping[str, tuple[str, str]]) -> dict[str, float]:
        """Wait until every client has these events, of which the rooms are given; bounded. Who had them, and when."""
        wanted = {
            client.name: {key for key, theirs in rooms.items() if set(theirs) & set(client.rooms)}
            for client in self._world.plan.clients
        }
        done: dict[str, float] = {}
        until = time.time() + self._settle
        while len(done) < len(wanted) and time.time() < until:
            for name, reading in self._clients.items():
                if name not in done and wanted[name] <= reading.look().heard:
                    done[name] = time.time()
            await asyncio.sleep(_LOOK)
        return done

    def whole_after(self, healed: float) -> dict[str, float | None]:
        """Seconds until each client was whole; None: it is not."""
        return {
            name: round(max(0.0, self._whole_at[name] - healed), 2) if name in self._whole_at else None
            for name in self._clients
        }


class _Reading:
    """What a journal has said so far."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail
        self.connected = self.done = False
        self.heard: set[str] = set()
        self.acknowledged: set[int] = set()

    def look(self) -> _Reading:
        for line in self._tail.new_lines():
            match line["is"]:
                case "event":
                    self.heard.add(line["key"])
                case "ack":
                    self.acknowledged.add(line["n"])
                case "connected":
                    self.connected = True
                case "done":
                    self.done = True
                case "started":
                    self.done = False
        return self


async def _publish_ends(world: World, watch: Watch) -> None:
    """Publish to every room and wait for it, twice.

    Each connection is in order: once all have the first, nothing that was published before is on its way as a
    live event; after the second, nor is what the first set off. Copies that were on their way are in the journals.
    """
    journal = Journal(world.journal(_END))
    n = 0
    for _ in range(_ENDS):
        rooms: dict[str, tuple[str, str]] = {}
        while len({theirs[0] for theirs in rooms.values()}) < LEADS:
            await _publish_end(world, journal, n)
            rooms[key_of(_END, n)] = rooms_of(data_of(_END, n))
            n += 1
        await watch.until_heard(rooms)
    journal.write("done")


async def _publish_end(world: World, journal: Journal, n: int) -> None:
    data = data_of(_END, n)
    journal.write("attempt", first=n, upto=n)
    async with RetryingPublisher(lambda: RestPublisher(world.gateway.http), retry_for=SETTLE) as publisher:
        [answer] = await publisher.publish([Outgoing(id=key_of(_END, n), topic=topic_of(data), data=data)])
    journal.write("ack", n=n, pos=answer.position)
