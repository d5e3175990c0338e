"""What every case needs: the settings of a run, and a server to measure."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.figures import Report
from bench.host import Cores
from bench.load.tally import LoadFailed
from bench.servers import NotHere, Target, run_target
from bench.watch import Usage
from gapless.testing import ProcessFailed

T = TypeVar("T")

_CONNECTING = 64
_OTHER_FILES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the benchmark.

    Attributes:
        report: takes the figures.
        cores: which core is whose.
        seconds: how long each load is measured; a fifth of it goes before, to warm up.
        clients: of the fan-outs, and those that stall; storms have ten times as many.
        peers: whether to measure others than Gapless.
        data: where the servers' data goes; None is the system's temporary folder.
        profile: where to write a profile of Gapless; None measures it as it is.
        progress: told what is measured now.
    """

    report: Report
    cores: Cores
    seconds: float
    clients: int
    sizes: tuple[int, ...]
    files: int
    peers: bool
    data: Path | None
    profile: Path | None
    progress: Callable[[str], None]

    @property
    def warm_up(self) -> float:
        """Seconds of load before what is measured."""
        return self.seconds / 5

    def too_many(self, connections: int) -> str | None:
        """Why so many connections cannot be opened here; None where they can."""
        if connections + _OTHER_FILES <= self.files:
            return None
        return f"{connections:,} connections need more open files than the {self.files:,} that are allowed (ulimit -Hn)"

    async def against(
        self,
        case: str,
        names: tuple[str, ...],
        load: Callable[[Target], Awaitable[None]],
        *,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Put one load on several servers in turn: Gapless (with settings of `env`), then its peers.

        A server that is missing, or that does not stand the load, is reported by name; the others go on.
        """
        for name in names if self.peers else names[:1]:
            self.progress(f"{case}: {name}")
            try:
                async with self.server(name, env) as target:
                    await load(target)
            except NotHere as error:
                self.report.skip(f"{case}, {name}", str(error))
            except (LoadFailed, ProcessFailed, OSError, TimeoutError, ExceptionGroup) as error:
                self.report.fail(f"{case}, {name}", error)
            gc.collect()

    @asynccontextmanager
    async def server(self, name: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Target]:
        """A server with an empty data folder."""
        with tempfile.TemporaryDirectory(prefix="gapless-bench-", dir=self.data) as folder:
            async with run_target(name, Path(folder), self.cores, profile=self.profile, env=env) as target:
                yield target


async def connect_all(count: int, connect: Callable[[int], Awaitable[T]]) -> list[T]:
    """Open `count` connections, 64 at a time."""
    gate = asyncio.Semaphore(_CONNECTING)

    async def one(number: int) -> T:
        async with gate:
            return await connect(number)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number), name=f"connect-{number}") for number in range(count)]
    return [task.result() for task in tasks]


def report_load(run: Run, case: str, target: Target, usage: Usage, count: int, *, what: str) -> None:
    """Report what a saturating load took: CPU for each, how many a second, and the generator's own share.

    Args:
        count: deliveries or events within the interval.
        what: `deliver` or `event`.
    """
    one, many = ("delivery", "deliveries") if what == "deliver" else (what, f"{what}s")
    add, notes = run.report.add, usage.notes
    if usage.server:
        add(case, f"CPU per {one}", target.name, usage.server / count * 1e6, unit="µs", notes=notes)
    add(case, many, target.name, count / usage.seconds, unit="/s", notes=notes)
    add(case, "generator's CPU", target.name, usage.generator / usage.seconds * 100, unit="%")
