"""The command line as users run it: a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from typer.testing import CliRunner

from gapless.cli.app import make_app
from gapless.testing import Gateway

TRANSPORTS = ["socketio", "mqtt", "sse", "poll"]
DOORS = ["rest", "socketio", "mqtt"]

COMMAND = (sys.executable, "-m", "gapless")
_CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("GAPLESS_")}


class Finished(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, object]]:
        """Standard output as JSON lines."""
        return [msgspec.json.decode(line, type=dict[str, object]) for line in self.out.splitlines()]


def here(*arguments: str, env: dict[str, str] | None = None) -> Finished:
    """Run a command in this process: quick, for what ends before it connects anywhere."""
    without = dict.fromkeys(name for name in os.environ if name.startswith("GAPLESS_"))
    environment = {**without, "COLUMNS": "200", **(env or {})}
    result = CliRunner().invoke(make_app(arguments), arguments, prog_name="gapless", env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Finished(result.exit_code, result.stdout, result.stderr)


async def gapless(
    *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path | None = None
) -> Finished:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**_CLEAN, **(env or {})},
        cwd=cwd,
    )
    try:
        out, err = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


class Running:
    """A command that goes on; its lines are read one by one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        """The next line of standard output."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def note(self, containing: str) -> str:
        """The next line of standard error that contains a text."""
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            if containing in line:
                return line.rstrip("\n")
        raise AssertionError(f"standard error ended without {containing!r}")

    async def end(self) -> int:
        """Wait for its end."""
        return await self.process.wait()


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Running]:
    """Run a command beside the test."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_CLEAN,
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def publish(gateway: Gateway, lead: str, *more: str) -> dict[str, Any]:
    """Publish that a lead was created; the command's answer."""
    data = json.dumps({"leadId": lead})
    done = await gapless("publish", "--url", gateway.http, "--type", "lead:created", "--data", data, "--json", *more)
    assert done.code == 0, done
    return dict(done.lines[0])
