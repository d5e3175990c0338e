"""The machine: what it is, what runs on it, which core belongs to whom."""

from __future__ import annotations

import os
import platform
import re
import resource
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gapless.testing import find_mosquitto, find_node

ROOT = Path(__file__).resolve().parent.parent
NODE_PACKAGES = ROOT / "tests/js/node_modules"

_FILES_WANTED = 32_768


def machine() -> str:
    """CPU, cores, memory and kernel, in one line."""
    model = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found.group(1) if found else model
    except OSError:
        pass  # no Linux: what Python knows
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def versions() -> dict[str, str]:
    """Of everything that takes part; what is absent is absent."""
    found = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    for package in ("uvloop", "python-socketio", "uvicorn", "msgspec"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if (node := find_node()) is not None:
        found["Node"] = _first_line(node, "--version").lstrip("v")
    socketio = NODE_PACKAGES / "socket.io/package.json"
    if socketio.exists() and (match := re.search(r'"version": "(.*?)"', socketio.read_text())):
        found["socket.io"] = match.group(1)
    if (mosquitto := find_mosquitto()) is not None:
        found["Mosquitto"] = _first_line(mosquitto, "-h").rpartition(" ")[2]
    return found


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return (done.stdout or done.stderr).partition("\n")[0].strip()


def commit() -> str:
    """The git commit of this tree, with `+` where files differ from it; `unknown` outside of git."""
    try:
        name = _git("rev-parse", "--short=10", "HEAD")
        return name + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def raise_file_limit() -> int:
    """Allow this process and its children as many sockets as the system lets them, up to 32,768; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(_FILES_WANTED, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


class Cores:
    """One core for the servers, one for the generator.

    Attributes:
        problem: why they are not pinned; None where they are.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self._all: set[int] = set()
        if not hasattr(os, "sched_setaffinity"):
            self.problem = "not pinned: this system has no sched_setaffinity"
            return
        self._all = os.sched_getaffinity(0)
        if len(self._all) < 2:
            self.problem = "not pinned: there is only one core for server and generator"

    def take_generator_core(self) -> None:
        """Pin this process to its core."""
        if self.problem is None:
            os.sched_setaffinity(0, {min(self._all)})

    @contextmanager
    def for_servers(self) -> Iterator[None]:
        """What the block starts runs on the servers' core: children inherit it."""
        if self.problem is not None:
            yield
            return
        os.sched_setaffinity(0, {max(self._all)})
        try:
            yield
        finally:
            os.sched_setaffinity(0, {min(self._all)})


def load_warning() -> str | None:
    """What to say where the machine is busy before anything is measured."""
    load = os.getloadavg()[0]
    return f"the machine is loaded: 1 minute load average {load:.2f} at the start" if load > 0.5 else None


def filesystem(folder: Path) -> str:
    """The type of file system that a folder is on, as /proc/mounts names it; `unknown` without that."""
    try:
        mounts = [line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    path = folder.resolve()
    fitting = [(point, kind) for _, point, kind in mounts if path.is_relative_to(point)]
    return max(fitting, key=lambda found: len(found[0]))[1] if fitting else "unknown"


def sync_times(folder: Path, *, count: int = 200) -> list[int]:
    """Microseconds that the disk takes for an append of 4 KiB and its fdatasync: the floor of one commit."""
    path = folder / "sync-probe"
    sync = getattr(os, "fdatasync", os.fsync)
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            begin = time.perf_counter_ns()
            file.write(b"\0" * 4096)
            sync(file.fileno())
            times.append((time.perf_counter_ns() - begin) // 1000)
    path.unlink()
    return times
