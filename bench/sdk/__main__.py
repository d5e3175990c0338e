"""The TypeScript client measured: `python -m bench.sdk`.

Its heap over a million events in Node and in Chromium, and the time from a fault to the next event that a page
shows. It takes some minutes; `--docs` puts the tables into docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench import host
from bench.sdk import heap, recovery
from gapless.testing import find_chromium
from tests.sdk.hybrid import TRANSPORTS

DOCUMENT = host.ROOT / "docs/performance.md"
BEGIN, END = "<!-- sdk: begin -->", "<!-- sdk: end -->"
NAMES = {"socketio": "Socket.IO", "mqtt": "MQTT over WebSocket", "sse": "SSE", "poll": "long poll"}


def heap_table(heaps: Mapping[str, Mapping[int, int]]) -> str:
    """Megabytes by events handled."""
    rows = ["| heap after | " + " | ".join(f"{mark:,} events" for mark in heap.MARKS) + " |"]
    rows.append("|---|" + "---:|" * len(heap.MARKS))
    for place, found in heaps.items():
        rows.append(f"| {place} | " + " | ".join(f"{found[mark] / 1e6:.2f} MB" for mark in heap.MARKS) + " |")
    return "\n".join(rows)


def recovery_table(found: Mapping[tuple[str, str], list[float]]) -> str:
    """Median and 95th percentile in seconds, by transport and fault."""
    rows = ["| was connected over | " + " | ".join(f"{fault}, p50 / p95" for fault in recovery.FAULTS) + " |"]
    rows.append("|---|" + "---:|" * len(recovery.FAULTS))
    for transport in TRANSPORTS:
        cells = [
            "{:.2f} s / {:.2f} s".format(*recovery.percentiles(found[transport, fault])) for fault in recovery.FAULTS
        ]
        rows.append(f"| {NAMES[transport]} | " + " | ".join(cells) + " |")
    away = found[recovery.AWAY]
    rows.append(
        f"\nRestarted: SIGKILL, and started again at once; it was away for {min(away):.1f} to {max(away):.1f} s of it."
    )
    return "\n".join(rows)


async def _measure(asked: argparse.Namespace, folder: Path) -> str:
    tables = []
    if asked.only in (None, "heap"):
        _say("heap")
        tables.append(heap_table(await heap.measure(folder / "heap", progress=_say)))
    if asked.only in (None, "recovery"):
        found = await recovery.measure(folder / "recovery", clients=asked.clients, rounds=asked.rounds, progress=_say)
        tables.append(recovery_table(found))
    return "\n\n".join(tables)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, and print tables."""
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m bench.sdk", description=summary, epilog=more)
    parser.add_argument("--only", choices=("heap", "recovery"), help="default: both")
    parser.add_argument(
        "--clients", type=int, default=20, help="clients of the page that meet a fault at once (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="how often for each transport and fault (%(default)s)")
    parser.add_argument("--docs", action="store_true", help=f"write the tables into {DOCUMENT.relative_to(host.ROOT)}")
    asked = parser.parse_args()
    if find_chromium() is None:
        sys.exit("this needs Chromium (make setup-test)")
    host.raise_file_limit()
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(prefix="gapless-bench-") as name:
        folder = Path(name)
        for part in ("heap", "recovery"):
            (folder / part).mkdir()
        tables = asyncio.run(_measure(asked, folder))
    loads.append(os.getloadavg()[0])
    load = f"load average {loads[0]:.1f} at the start, {loads[1]:.1f} at the end"
    command = " ".join(["python -m bench.sdk", *sys.argv[1:]])
    node = host.versions().get("Node", "?")
    head = f"{host.machine()}; Node {node}; commit {host.commit()}; {load}; {time.strftime('%Y-%m-%d')}: {command}"
    print(f"{head}\n\n{tables}")
    if asked.docs:
        _write(f"{head}\n\n{tables}")
    return 0


def _write(shown: str) -> None:
    before, begin, rest = DOCUMENT.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{DOCUMENT} has no markers {BEGIN} and {END}")
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{shown}\n\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
