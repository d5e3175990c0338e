"""From a fault to the next event that a page of Chromium shows, by transport and kind of fault."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from bench.load.tally import LoadFailed
from gapless.testing import Link
from tests.sdk.hybrid import TRANSPORTS
from tests.sdk.stage import Stage, staged

RESTARTED = "gateway restarted"
FAULTS = ("killed", "blacked out", RESTARTED)
AWAY = ("gateway", "away")
Links = list[dict[str, Link]]


async def measure(
    folder: Path, *, clients: int, rounds: int, progress: Callable[[str], None]
) -> dict[tuple[str, str], list[float]]:
    """Seconds of each client in each round, by transport and fault; under `away`, how long the gateway was."""
    found: dict[tuple[str, str], list[float]] = {}
    async with staged(folder) as stage:
        stage.tab = stage.tab.another()
        await stage.tab.open(f"{stage.origin}/many.html")
        await stage.tab.until("begin")
        async with stage.streaming():
            for transport in TRANSPORTS:
                for fault in FAULTS:
                    for _ in range(rounds):
                        progress(f"{transport} {fault}")
                        times, away = await _once(stage, transport, fault, clients)
                        found.setdefault((transport, fault), []).extend(times)
                        if fault == RESTARTED:
                            found.setdefault(AWAY, []).append(away)
    return found


async def _once(stage: Stage, transport: str, fault: str, clients: int) -> tuple[list[float], float]:
    """Clients whose first transport is this one, with all others behind it; each with links of its own."""
    tab = stage.tab
    ladder = [transport, *(name for name in TRANSPORTS if name != transport)]
    async with AsyncExitStack() as stack:
        links: Links = []
        for n in range(clients):
            own = {name: await stack.enter_async_context(Link.to(stage.gateway.http)) for name in TRANSPORTS}
            links.append(own)
            urls = {name: link.url("http") for name, link in own.items()}
            options = {"url": stage.gateway.http, "transports": ladder, "links": urls}
            await tab.run(f"begin('client{n}', {json.dumps(options)})")
        await tab.until(f"all().every(({{ over }}) => over === {json.dumps(transport)})")
        await stage.all_show_more(25)  # long enough for the adaptive bounds to know the rate
        next_number = stage.published + 1  # one may be on its way
        at = time.time() * 1000
        await _break(stage, links, transport, fault)
        away = time.time() * 1000 - at
        await tab.until(f"all().every(({{ shown }}) => shown.at(-1) >= {next_number})")
        seen = await tab.run(f"all().map(({{ shown, at }}) => at[shown.findIndex((n) => n >= {next_number})])")
        wrong = await tab.run(
            "all().filter(({ shown, gaps }) => gaps.length || shown.some((n, i) => n !== shown[0] + i)).length"
        )
        await tab.run("end()")
        if wrong:
            raise LoadFailed(f"{transport} {fault}: {wrong} clients showed an event twice, not, or out of order")
    return [(moment - at) / 1000 for moment in seen], away / 1000


async def _break(stage: Stage, links: Links, transport: str, fault: str) -> None:
    if fault == RESTARTED:
        await stage.gateway.kill()
        return await stage.gateway.start()
    for own in links:
        if fault == "killed":
            await own[transport].cut()
        else:
            own[transport].blackhole()


def percentiles(times: list[float]) -> tuple[float, float]:
    """Median and 95th percentile."""
    return statistics.median(times), statistics.quantiles(times, n=20, method="inclusive")[18]
