"""How cost grows with events per second, clients, rooms, topics and the size of the log: `python -m bench.growth`.

Each is varied twice by ten, topics by a hundred; everything else stays. It takes some minutes; `--docs` puts
the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench import host
from bench.cases.bridge import publish_steadily
from bench.cases.doors import SOCKETIO, Door, Publisher, Reader
from bench.cases.fanout import fan_out
from bench.cases.many import rooms_of_three
from bench.cases.run import Run
from bench.eventlog import events
from bench.figures import Report, number, write_json
from bench.load.mqtt_client import MqttClient
from bench.load.tally import LoadFailed, Tally
from bench.load.websocket import SocketIoClient
from bench.servers import GAPLESS, Target
from bench.watch import watching
from gapless.eventlog import Selector
from gapless.eventlog.sqlite import SqliteLog

DOCUMENT = host.ROOT / "docs/performance.md"
BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"
RATES = (100, 1_000, 10_000)
CLIENTS = (100, 1_000, 10_000)
ROOMS = (100, 1_000, 10_000)
TOPICS = (1, 100, 10_000)
EVENTS = (10_000, 100_000, 1_000_000)
_SAME = 1.3
"""A cost that changes by at most this factor from the smallest to the largest size counts as the same."""
_PAGE = 1000
_EVERYWHERE, _EVERY_LEAD = "org:global", "crm/leads/+/updated"


@dataclass(frozen=True, slots=True)
class Row:
    """A cost that is followed over the sizes.

    Attributes:
        varied: what grows, as the cases are called: `varied: size`.
        figure: the cost of one.
        why: what it depends on in the code.
        whole: it is the cost of all at once, not of each.
    """

    varied: str
    figure: str
    sizes: tuple[int, ...]
    why: str
    whole: bool = False


ROWS = (
    Row("events/s", "CPU per event", RATES, "what waits goes into one commit and one write, so more share them"),
    Row(
        "clients", "CPU per delivery", CLIENTS, "one write to each socket; what is more is the kernel's and its caches'"
    ),
    Row("clients", "RSS per connection", CLIENTS, "objects of each connection; nothing is kept for pairs of them"),
    Row(
        "rooms",
        "CPU per delivery",
        ROOMS,
        "a room is found by its name in a hash table; with the rooms grow the connections, three for twenty rooms",
    ),
    Row("rooms", "RSS per membership", ROOMS, "a hash table entry for each member, on both sides"),
    Row(
        "topics, Socket.IO",
        "CPU per delivery",
        TOPICS,
        "who is in the rooms that somebody is in is kept, whatever other rooms an event names",
    ),
    Row("topics, MQTT QoS 0", "CPU per delivery", TOPICS, "who has the filters that match a topic is kept by filters"),
    Row("log size", "append of 100, per event", EVENTS, "B-trees get deeper, and their pages no longer fit the cache"),
    Row(
        "log size",
        "page of 1,000 of a room of all, per event",
        EVENTS,
        "an index by room and offset: a search, then a walk",
    ),
    Row(
        "log size",
        "first event of a room of few",
        EVENTS,
        "the same search, however many events lie between",
        whole=True,
    ),
    Row(
        "log size",
        "open",
        EVENTS,
        "pages are looked at in files below a bound only (`quick_check_bytes`); the rest is the end of the log",
        whole=True,
    ),
    Row("log size", "bytes per event", EVENTS, "rows and index entries"),
)


async def by_rate(run: Run) -> None:
    """CPU of one event from MQTT to Socket.IO, at growing rates."""
    for rate in RATES:
        case = f"events/s: {rate:,}"

        async def load(target: Target, case: str = case, rate: int = rate) -> None:
            tally = Tally()
            reader = await SocketIoClient.connect(target.http, tally)
            publisher = await MqttClient.connect(target.mqtt, tally, client_id="bench-pub")
            await publish_steadily(publisher, run.warm_up, rate)
            await tally.reach(publisher.published, within=30)
            before = publisher.published
            with watching(target.pids) as usage:
                await publish_steadily(publisher, run.seconds, rate)
                await tally.reach(publisher.published, within=30)
            if reader.received != publisher.published:
                raise LoadFailed(f"{publisher.published:,} events were published, {reader.received:,} received")
            cost = usage.server / (publisher.published - before) * 1e6
            run.report.add(case, "CPU per event", target.name, cost, unit="µs", notes=usage.notes)
            reader.close()
            publisher.close()

        await run.against(case, (GAPLESS,), load)


async def by_clients(run: Run) -> None:
    """A fan-out to growing numbers of Socket.IO clients."""
    for clients in CLIENTS:
        await fan_out(run, SOCKETIO, clients, named=f"clients: {clients:,}")


async def by_rooms(run: Run) -> None:
    """Growing numbers of rooms with three members each."""
    for rooms in ROOMS:
        await rooms_of_three(run, rooms=rooms, case=f"rooms: {rooms:,}")


async def by_topics(run: Run) -> None:
    """A fan-out to a thousand clients that hear of all leads, of events about growing numbers of leads in turn."""

    async def read_room(target: Target, tally: Tally, _number: int) -> Reader:
        return await SocketIoClient.connect(target.http, tally, room=_EVERYWHERE)

    async def read_filter(target: Target, tally: Tally, number: int) -> Reader:
        return await MqttClient.connect(target.mqtt, tally, client_id=f"bench-{number}", qos=0, filter=_EVERY_LEAD)

    for topics in TOPICS:

        async def publish(target: Target, tally: Tally, topics: int = topics) -> Publisher:
            publisher = await _InTurn.connect(target.mqtt, tally, client_id="bench-pub")
            publisher.topics = topics
            return publisher

        for name, read in (("Socket.IO", read_room), ("MQTT QoS 0", read_filter)):
            door = Door(name, (GAPLESS,), read, publish)
            await fan_out(run, door, run.clients, named=f"topics, {name}: {topics:,}")


class _InTurn(MqttClient):
    """Publishes about one lead after the other; see `Publisher`."""

    topics = 1

    def publish_all(self, *events: bytes) -> None:
        for event in events:
            self.publish_to(f"crm/leads/{self.published % self.topics}/updated", event)


async def by_log_size(run: Run) -> None:
    """The event log alone, in this process, as it grows."""
    with tempfile.TemporaryDirectory(prefix="gapless-bench-", dir=run.data) as folder:
        path = Path(folder) / "log.db"
        for size in EVENTS:
            run.progress(f"log size: {size:,}")
            await _fill_and_measure(run.report, f"log size: {size:,}", path, size)


async def _fill_and_measure(report: Report, case: str, path: Path, size: int) -> None:
    def add(name: str, value: float, unit: str) -> None:
        report.add(case, name, GAPLESS, value, unit=unit)

    log = SqliteLog(path)
    await log.open(lambda _: None)
    while log.head < size:
        await log.append(events(min(1000, size - log.head), log.head))
    prepared = [events(100, number * 100) for number in range(20)]
    took = [await _seconds(lambda part=part: log.append(part)) for part in prepared]  # type: ignore[misc]
    add("append of 100, per event", statistics.median(took) / 100 * 1e6, "µs")
    everywhere = Selector(rooms=frozenset({_EVERYWHERE}))
    starts = [size * part // 20 for part in range(10)]
    took = [await _seconds(lambda start=start: log.read(everywhere, start, limit=_PAGE)) for start in starts]  # type: ignore[misc]
    add("page of 1,000 of a room of all, per event", statistics.median(took) / _PAGE * 1e6, "µs")
    few = [Selector(rooms=frozenset({f"lead:{number}"})) for number in range(0, 1000, 50)]
    took = [await _seconds(lambda room=room: log.read(room, 0, limit=1)) for room in few]  # type: ignore[misc]
    add("first event of a room of few", statistics.median(took) * 1e3, "ms")
    stored = log.head
    await log.close()
    add("bytes per event", path.stat().st_size / stored, "B")
    log = SqliteLog(path)
    add("open", await _seconds(lambda: log.open(lambda _: None)) * 1e3, "ms")
    await log.close()


async def _seconds(work: Callable[[], Awaitable[object]]) -> float:
    before = time.perf_counter()
    await work()
    return time.perf_counter() - before


def table(report: Report) -> str:
    """A row for each cost: its values, how it grows, and why."""
    rows = ["| varied | cost | at each size | smallest to largest size | what it depends on |", "|---|---|---|---|---|"]
    for row in ROWS:
        figures = [report.figures.get((f"{row.varied}: {size:,}", row.figure, GAPLESS)) for size in row.sizes]
        found = [(size, figure) for size, figure in zip(row.sizes, figures, strict=True) if figure is not None]
        if not found:
            continue
        values = "; ".join(f"{size:,}: {number(figure.median)} {figure.unit}" for size, figure in found)
        grown = _grown(found[0][1].median, found[-1][1].median, found[-1][0] / found[0][0], whole=row.whole)
        rows.append(f"| {row.varied} | {row.figure} | {values} | {grown} | {row.why} |")
    rows += [f"\nNot run: {what}: {why}." for what, why in report.not_run.items()]
    rows += [f"\nFailed: {what}: {why}." for what, why in report.failed.items()]
    return "\n".join(rows) + "\n"


def _grown(first: float, last: float, size: float, *, whole: bool) -> str:
    factor = last / first
    if whole:
        if factor <= _SAME:
            return f"{factor:.2f} x: no more at the largest size"
        much = "as the size" if factor >= size / 3 else "far less than the size"
        return f"{factor:.2f} x at {size:,.0f} times the size: grows {much}"
    if factor > _SAME:
        return f"{factor:.2f} x: each costs more, the sum grows **more than linearly**"
    if factor < 1 / _SAME:
        return f"{factor:.2f} x: each costs less, the sum grows less than linearly"
    return f"{factor:.2f} x: the same for each, the sum is linear"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    add = parser.add_argument
    add("--only", choices=[name for name, _ in _PARTS], help="one of these alone")
    add("--repeat", type=int, default=3, help="run everything N times, in turn (default 3)")
    add("--seconds", type=float, default=2.0, help="how long each load is measured (default 2)")
    add("--data", type=Path, help="folder for the servers' data (default: the temporary folder)")
    add("--docs", action="store_true", help="put the table into docs/performance.md")
    add("--from", dest="source", type=Path, metavar="FILE", help="take an earlier run's results; run nothing")
    asked = parser.parse_args()
    if asked.source is not None:
        document = msgspec.json.decode(asked.source.read_bytes())
        earlier = Report()
        earlier.load(document)
        print(table(earlier))
        if asked.docs:
            _write(document["about"], table(earlier))
        return 0
    cores, report = host.Cores(), Report()
    files = host.raise_file_limit()
    cores.take_generator_core()
    run = Run(
        report=report,
        cores=cores,
        seconds=asked.seconds,
        clients=1000,
        sizes=(1000,),
        files=files,
        peers=False,
        data=asked.data,
        profile=None,
        progress=lambda what: print(what, file=sys.stderr, flush=True),
    )
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python -m bench.growth", *sys.argv[1:]]),
        "machine": host.machine(),
        "filesystem": host.filesystem(asked.data or Path(tempfile.gettempdir())),
        "versions": host.versions(),
        "commit": host.commit(),
        "warnings": [said for said in (host.load_warning(), cores.problem) if said is not None],
    }
    _run(run, asked.only, asked.repeat)
    shown = table(report)
    print(shown)
    if asked.only is None:
        write_json(host.ROOT / f"bench/results/growth-{about['date']}.json", {"about": about, **report.document()})
    if asked.docs:
        _write(about, shown)
    return 1 if report.failed else 0


_PARTS = (("rate", by_rate), ("clients", by_clients), ("rooms", by_rooms), ("topics", by_topics), ("log", by_log_size))


def _run(run: Run, only: str | None, repeat: int) -> None:
    import uvloop

    async def work() -> None:
        for _ in range(repeat):
            for name, part in _PARTS:
                if only in (None, name):
                    await part(run)

    gc.disable()  # its pauses would be taken for the servers'
    uvloop.run(work())


def _write(about: Mapping[str, object], shown: str) -> None:
    text = DOCUMENT.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{DOCUMENT} has no markers {BEGIN} and {END}")
    where = f"{about['machine']}; data on {about['filesystem']}; commit {about['commit']}"
    head = f"{where}; {about['date']}: {about['command']}"
    warnings = "".join(f"\nWARNING: {warning}\n" for warning in msgspec.convert(about["warnings"], list[str]))
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{head}\n{warnings}\n{shown}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
