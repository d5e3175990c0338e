"""Programs out of documents, run in a folder of their own as a reader runs them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from gapless.testing import find_node
from tests.docs.blocks import ROOT

_CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("GAPLESS_")}
# What a browser has by itself.
_LIKE_A_BROWSER = ("--experimental-eventsource", "--experimental-webstorage", "--localstorage-file=storage")


class Reader(NamedTuple):
    """Who copied blocks: the folder they put them in, and what stands in for the addresses of the document."""

    folder: Path
    addresses: Mapping[str, str]
    env: Mapping[str, str]

    def here(self, code: str) -> str:
        """Code of a document with the addresses of the gateway that runs."""
        for written, real in self.addresses.items():
            code = code.replace(written, real)
        return code

    def save(self, name: str, code: str) -> None:
        """Copy a block into a file."""
        (self.folder / name).write_text(self.here(code))

    def link_packages(self, folder: str) -> None:
        """`npm install`, done before: the packages of a folder of the repository."""
        (self.folder / "node_modules").symlink_to(ROOT / folder / "node_modules")

    @asynccontextmanager
    async def running(self, *command: str) -> AsyncIterator[Running]:
        """Run a program until the block ends; then it is killed."""
        process = await asyncio.create_subprocess_exec(
            *self._command(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            cwd=self.folder,
            env={**_CLEAN, **self.env},
            start_new_session=True,  # so that what a shell started ends with it
        )
        try:
            yield Running(process)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()

    async def run(self, *command: str) -> str:
        """What a program prints, which must end well."""
        async with self.running(*command) as program:
            out, _ = await program.process.communicate()
            assert program.process.returncode == 0, (command, out)
            return out.decode()

    async def shell(self, code: str, **env: str) -> str:
        """What a block for the shell prints."""
        return await self._replace(env={**self.env, **env}).run("bash", "-euc", self.here(code))

    def _command(self, command: tuple[str, ...]) -> tuple[str, ...]:
        match Path(command[0]).suffix:
            case ".mjs":
                return (str(find_node()), *_LIKE_A_BROWSER, *command)
            case ".py":
                return (sys.executable, *command)
            case ".sh":
                return ("bash", *command)
        return command


class Running:
    """A program that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        """The next line that it prints; an empty one at its end."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            return (await self.process.stdout.readline()).decode()

    async def until(self, wanted: str) -> list[str]:
        """The lines that it prints up to one that contains a text; that one too."""
        lines: list[str] = []
        while not lines or wanted not in lines[-1]:
            lines.append(await self.line())
            assert lines[-1], f"it ended after {lines}"
        return lines
