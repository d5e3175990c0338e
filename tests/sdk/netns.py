"""A network namespace, and wires into it that a test unplugs or lets swallow everything. Linux, as root."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


def why_not() -> str | None:
    """Why namespaces cannot be made here; None where they can."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "ip and tc (iproute2) are not on this machine"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    name = f"gapless-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"ip netns add: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {said.decode().strip()}")


class Wire:
    """A pair of interfaces: one here, one in the namespace.

    Attributes:
        address: the namespace's end.
    """

    def __init__(self, name: str, address: str) -> None:
        self.address = address
        self._name = name

    async def unplug(self) -> None:
        """Take the interface here down: the system knows."""
        await _run("ip", "link", "set", self._name, "down")

    async def plug(self) -> None:
        await _run("ip", "link", "set", self._name, "up")

    async def swallow(self) -> None:
        """Drop every packet; nobody is told."""
        bucket = ("rate", "8bit", "burst", "1", "latency", "1ms")  # into which no packet fits
        await _run("tc", "qdisc", "add", "dev", self._name, "root", "tbf", *bucket)

    async def deliver(self) -> None:
        await _run("tc", "qdisc", "del", "dev", self._name, "root")


class Namespace:
    """Attributes:
    command: what runs a program in it, as the beginning of a command line.
    wires: into it.
    """

    def __init__(self, name: str, wires: list[Wire]) -> None:
        self.command = ("ip", "netns", "exec", name)
        self.wires = wires


@asynccontextmanager
async def namespace(wires: int) -> AsyncIterator[Namespace]:
    """A namespace with so many wires; it is removed at the end, and they with it."""
    mark = secrets.token_hex(3)
    name = f"gapless-{mark}"
    subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
    await _run("ip", "netns", "add", name)
    try:
        await _run("ip", "-n", name, "link", "set", "lo", "up")
        made = []
        for n in range(wires):
            here, there = f"gl{mark}{n}", f"gm{mark}{n}"
            await _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
            await _run("ip", "addr", "add", f"{subnet}.{4 * n + 1}/30", "dev", here)
            await _run("ip", "link", "set", here, "up")
            await _run("ip", "-n", name, "addr", "add", f"{subnet}.{4 * n + 2}/30", "dev", there)
            await _run("ip", "-n", name, "link", "set", there, "up")
            made.append(Wire(here, f"{subnet}.{4 * n + 2}"))
        yield Namespace(name, made)
    finally:
        await _run("ip", "netns", "del", name)
