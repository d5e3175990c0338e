"""`python -m bench`: run the benchmarks, print one line a figure."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import gc
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from bench import host
from bench.cases.bridge import bridge, bridge_back
from bench.cases.fanout import (
    bursts_mqtt_qos1,
    bursts_socketio,
    fanout_mqtt5_qos1,
    fanout_mqtt_qos0,
    fanout_mqtt_qos1,
    fanout_socketio,
    fanout_sse,
)
from bench.cases.many import many_rooms, mixed
from bench.cases.rest import rest
from bench.cases.returning import catch_up, storm_mqtt, storm_socketio, storm_topics
from bench.cases.run import Run
from bench.cases.stalled import stalled_mqtt, stalled_socketio
from bench.document import render
from bench.figures import Report, write_json
from bench.load.event import SIZE
from bench.load.tally import percentile
from bench.peers.build import built
from bench.watch import LEGEND, has_proc

CASES: dict[str, Callable[[Run], Awaitable[None]]] = {
    "rest": rest,
    "bridge": bridge,
    "bridge-back": bridge_back,
    "fanout-socketio": fanout_socketio,
    "fanout-mqtt-qos0": fanout_mqtt_qos0,
    "fanout-mqtt-qos1": fanout_mqtt_qos1,
    "fanout-mqtt5-qos1": fanout_mqtt5_qos1,
    "fanout-sse": fanout_sse,
    "bursts-socketio": bursts_socketio,
    "bursts-mqtt-qos1": bursts_mqtt_qos1,
    "rooms": many_rooms,
    "mixed": mixed,
    "storm-socketio": storm_socketio,
    "storm-mqtt": storm_mqtt,
    "storm-topics": storm_topics,
    "catchup": catch_up,
    "stalled-socketio": stalled_socketio,
    "stalled-mqtt": stalled_mqtt,
}
SIZES = (200, 1000, 5000)
"""Clients of the fan-outs that are measured with several numbers; the middle one is that of the others."""
RESULTS = host.ROOT / "bench/results"
DOCUMENT = host.ROOT / "docs/performance.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

EXAMPLES = """
examples:
  python -m bench                             everything: expect 40 minutes; written to bench/results/<date>.json
  python -m bench --quick                     one repeat, half a second each, 200 clients: does it work?
  python -m bench --only fanout --repeat 5    the cases whose name has "fanout" in it
  python -m bench --only rest --json -        the results as JSON on standard output
  python -m bench --docs                      afterwards, goals, plots and tables into docs/performance.md
  python -m bench --from FILE --docs          the same of an earlier run; nothing is measured
"""


def arguments(line: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Gapless, and its peers that are installed, under the same load on loopback.",
        epilog=EXAMPLES + "\ncases: " + ", ".join(CASES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", action="append", metavar="CASE", help="only cases whose name has this in it; may be repeated")
    add("--repeat", type=_positive, metavar="N", help="run everything N times, in turn (default 5)")
    add("--quick", action="store_true", help="one repeat, half a second a load, 200 clients")
    add("--seconds", type=float, help="how long each load is measured (default 1.5)")
    add(
        "--clients",
        type=_positive,
        help="clients of a fan-out, and stalled ones (default 1,000); ten times as many in a storm",
    )
    add("--no-peers", action="store_true", help="measure Gapless alone")
    add("--data", type=Path, help="folder for the servers' data (default: the temporary folder)")
    add(
        "--profile",
        type=Path,
        metavar="FILE",
        help="Gapless alone, under cProfile, for pstats; its figures are then wrong",
    )
    add("--json", metavar="FILE", help="write the results here; - is standard output, in place of the lines")
    add("--docs", action="store_true", help="write goals, plots and tables into docs/performance.md")
    add("--from", dest="source", type=Path, metavar="FILE", help="take an earlier run's results; run nothing")
    return parser.parse_args(line)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("use 1 or more")
    return number


def choose(only: list[str] | None) -> dict[str, Callable[[Run], Awaitable[None]]]:
    """The cases asked for.

    Raises:
        SystemExit: none fits.
    """
    chosen = {name: case for name, case in CASES.items() if only is None or any(part in name for part in only)}
    if not chosen:
        sys.exit(f"no case is called like that; there are: {', '.join(CASES)}")
    return chosen


async def measure(asked: argparse.Namespace, report: Report, cores: host.Cores, files: int) -> None:
    """Run the chosen cases, all of them once before any is run again."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # the servers are to end with us
    clients = asked.clients or (200 if asked.quick else SIZES[1])
    run = Run(
        report=report,
        cores=cores,
        seconds=asked.seconds or (0.5 if asked.quick else 1.5),
        clients=clients,
        sizes=(clients,) if asked.clients or asked.quick else SIZES,
        files=files,
        peers=not (asked.no_peers or asked.profile),
        data=asked.data,
        profile=asked.profile,
        progress=_progress,
    )
    repeats = asked.repeat or (1 if asked.quick else 5)
    times = host.sync_times(_data_folder(asked))
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        report.add("disk", f"4 KiB and fdatasync, {name}", "the machine", percentile(times, part) / 1000, unit="ms")
    for repeat in range(repeats):
        for name, case in choose(asked.only).items():
            _progress(f"repeat {repeat + 1} of {repeats}: {name}")
            await case(run)


def _data_folder(asked: argparse.Namespace) -> Path:
    import tempfile

    return Path(asked.data or tempfile.gettempdir())


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def describe(asked: argparse.Namespace, cores: host.Cores, command: list[str]) -> dict[str, Any]:
    """Where and of what the figures are."""
    warnings = [said for said in (host.load_warning(), cores.problem) if said is not None]
    if asked.profile is not None:
        warnings.append("profiled: these figures say nothing of Gapless as it is")
    if not has_proc():
        warnings.append("no CPU and memory figures: this system has no /proc")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench", *command]),
        "machine": host.machine(),
        "filesystem": host.filesystem(_data_folder(asked)),
        "versions": host.versions() | built(),
        "commit": host.commit(),
        "event_bytes": SIZE,
        "warnings": warnings,
    }


def heading(about: dict[str, Any]) -> list[str]:
    """The lines before the figures."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    took = f", {about['minutes']} minutes" if "minutes" in about else ""
    lines = [
        f"{about['machine']}; data on {about['filesystem']}; {versions}; commit {about['commit']}",
        f"{about['date']}{took}: {about['command']}; events of {about['event_bytes']} bytes; medians, then min–max",
    ]
    return lines + [f"WARNING: {warning}" for warning in about["warnings"]]


def legend(report: Report) -> list[str]:
    """What the notes mean that figures have."""
    used = {note for figure in report.figures.values() for note in figure.notes}
    return [f"{note}: {meaning}" for note, meaning in LEGEND.items() if note in used]


def write_table(about: dict[str, Any], report: Report) -> None:
    """Put goals, plots and tables between the markers of docs/performance.md."""
    text = DOCUMENT.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{DOCUMENT} has no markers {BEGIN} and {END}")
    shown = "\n\n".join(heading(about)) + "\n\n" + render(report, DOCUMENT.parent)
    shown += "".join(f"\n{line}.\n" for line in legend(report))
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{shown}\n{END}{after}")


def main() -> int:
    asked = arguments()
    report = Report()
    if asked.source is not None:
        document = msgspec.json.decode(asked.source.read_bytes())
        about = document["about"]
        report.load(document)
    else:
        choose(asked.only)
        cores = host.Cores()
        about = describe(asked, cores, sys.argv[1:])
        files = host.raise_file_limit()
        cores.take_generator_core()
        began = time.monotonic()
        _run(measure(asked, report, cores, files))
        about["minutes"] = round((time.monotonic() - began) / 60, 1)
        _progress("")
    _hand_out(asked, about, report)
    return 1 if report.failed else 0


def _run(work: Any) -> None:
    gc.disable()  # its pauses would be taken for the servers'; cases collect between two servers
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def _hand_out(asked: argparse.Namespace, about: dict[str, Any], report: Report) -> None:
    document = {"about": about, **report.document()}
    if asked.json == "-":
        print(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())
    else:
        print("\n".join([*heading(about), *report.lines(), *legend(report)]))
    whole = asked.source is None and not (asked.quick or asked.only or asked.no_peers or asked.profile)
    if asked.json not in (None, "-"):
        write_json(Path(asked.json), document)
    elif whole:
        write_json(path := RESULTS / f"{time.strftime('%Y-%m-%d')}.json", document)
        print(f"written to {path.relative_to(host.ROOT)}")
    if asked.docs:
        write_table(about, report)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("interrupted: no figures")
