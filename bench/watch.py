"""CPU time and memory of the servers and of the generator over an interval."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

GENERATOR_LIMIT = 0.9
"""Share of its core from which the generator counts as busy to the full."""
DISTURBED = 0.15
"""Cores used by others, or taken by the hypervisor, from which a figure is marked as disturbed."""

LEGEND = {
    "generator was the limit": (
        f"the generator used over {GENERATOR_LIMIT:.0%} of its core, the server less of its own: it could do more"
    ),
    "disturbed": f"other processes, or other machines on the same host, used over {DISTURBED:.0%} of a core meanwhile",
    "generator was late": "over 5 ms for at least one event: some of the latency is not the server's",
}
"""What the notes of figures mean."""


def has_proc() -> bool:
    """Whether this system tells CPU time and memory of processes the way Linux does."""
    return (_PROC / "self/stat").exists()


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of processes so far, all threads of theirs; 0 without /proc."""
    return sum(_ticks(pid) for pid in pids) / _TICK if has_proc() else 0.0


def _ticks(pid: int) -> int:
    # The name, in parentheses, may hold anything; utime and stime are the 12th and 13th field after it.
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident_bytes(pids: Sequence[int]) -> int:
    """Resident memory of processes; 0 without /proc."""
    if not has_proc():
        return 0
    return sum(int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE for pid in pids)


def reset_peak(pids: Sequence[int]) -> None:
    """Let `peak_bytes` count from now on (Linux 4.0: `/proc/<pid>/clear_refs`)."""
    if has_proc():
        for pid in pids:
            (_PROC / str(pid) / "clear_refs").write_text("5")


def peak_bytes(pids: Sequence[int]) -> int:
    """Largest resident memory of processes, together; 0 without /proc."""
    if not has_proc():
        return 0
    statuses = [(_PROC / str(pid) / "status").read_text() for pid in pids]
    return sum(int(status.partition("VmHWM:")[2].split()[0]) * 1024 for status in statuses)


@dataclass(slots=True)
class Usage:
    """What an interval took.

    Attributes:
        seconds: how long it was.
        server, generator: seconds of CPU.
        others: cores that neither of them used, but somebody did; the hypervisor's share included.
    """

    seconds: float = 0.0
    server: float = 0.0
    generator: float = 0.0
    others: float = 0.0

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know; see `LEGEND`."""
        notes = []
        busy = self.generator / self.seconds
        if busy >= GENERATOR_LIMIT and self.server / self.seconds < GENERATOR_LIMIT:
            notes.append("generator was the limit")
        if self.others > DISTURBED:
            notes.append("disturbed")
        return notes


@contextmanager
def watching(pids: Sequence[int]) -> Iterator[Usage]:
    """Measure what the block takes; the figures are there after it."""
    usage = Usage()
    machine, server, generator, begin = _machine_busy(), cpu_seconds(pids), time.process_time(), time.perf_counter()
    yield usage
    usage.seconds = time.perf_counter() - begin
    usage.generator = time.process_time() - generator
    usage.server = cpu_seconds(pids) - server
    busy = _machine_busy() - machine
    usage.others = max(0.0, busy - usage.server - usage.generator) / usage.seconds


def _machine_busy() -> float:
    """Seconds of all cores that were not idle, since the start of the machine; 0 where it is not told."""
    try:
        first = (_PROC / "stat").read_text().partition("\n")[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first)
    return (user + nice + system + irq + softirq + steal) / _TICK
