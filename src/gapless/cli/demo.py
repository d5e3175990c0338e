"""`gapless demo`: everything at once, and a table of who received what."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gapless.cli.logs import LogLevel, set_up_logs
from gapless.cli.output import Output
from gapless.cli.running import FAILED, OK, run, stop_signals

if TYPE_CHECKING:
    from gapless.demo import Demo, Fault
    from gapless.demo.board import Row

EXAMPLES = """
**Examples**

`gapless demo` — then open the page it names, watch, publish; Ctrl-C stops it

`gapless demo --once` — for a script: exit code 0 only if every client received each event exactly once

`gapless demo --port 8080 --mqtt-port 1883 --keep ./demo-data`
"""

T = TypeVar("T")
CLIENT_NAMES = {
    "socketio": "Socket.IO",
    "mqtt": "MQTT",
    "mqtt-ws": "MQTT over WS",
    "sse": "SSE",
    "poll": "long poll",
}
NARROW_NAMES = {**CLIENT_NAMES, "mqtt-ws": "MQTT/WS", "poll": "poll"}

_WIDTH = 116
_WIDE = 112
_REFRESH = 0.1


def demo(
    once: Annotated[bool, typer.Option("--once", help="End with a verdict in place of staying up.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; 0 takes a free one.")] = 0,
    mqtt_port: Annotated[int, typer.Option(min=0, max=65535, help="MQTT port; 0 takes a free one.")] = 0,
    keep: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep the log there.")] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="How long the events may take.")] = 30.0,
    json: Annotated[bool, typer.Option("--json", help="The result as one JSON line.")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="Logs go to standard error.")] = LogLevel.warning,
) -> None:
    """Start a gateway, one real client of each kind, and publish five events, each by another door.

    Shows who received what, how long after it was published, and how many times.
    """
    output = Output(json=json)
    set_up_logs(log_level)

    async def command() -> int:
        if once:
            return await _demo(output, port=port, mqtt_port=mqtt_port, keep=keep, timeout=timeout, stop=None)
        async with stop_signals() as stop:
            return await _demo(output, port=port, mqtt_port=mqtt_port, keep=keep, timeout=timeout, stop=stop)

    run(command, output)


async def _demo(
    output: Output, *, port: int, mqtt_port: int, keep: Path | None, timeout: float, stop: asyncio.Event | None
) -> int:
    from gapless.demo import Demo  # the gateway's imports take a moment: not for --help

    view = View(output)
    async with Demo(port=port, mqtt_port=mqtt_port, data=keep, on_change=view.changed) as demo:
        view.begin(demo)
        async with view.live(demo):
            faults = await _unless(stop, demo.run(timeout=timeout))
        if faults is None:
            return OK  # stopped by hand before the end
        view.verdict(demo, faults)
        if stop is not None:
            view.staying(demo)
            async with view.live(demo, others=True):
                await stop.wait()
            return OK
    return FAILED if faults else OK


async def _unless(stop: asyncio.Event | None, work: Coroutine[Any, Any, T]) -> T | None:
    """The work's result; None where it was stopped first."""
    if stop is None:
        return await work
    working = asyncio.create_task(work, name="demo-run")
    stopping = asyncio.create_task(stop.wait(), name="demo-stop")
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


class View:
    """The demonstration on a terminal, in a pipe, or as JSON."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._dirty = asyncio.Event()
        self._started = time.monotonic()
        console = output.stdout
        if not console.is_terminal:
            console = Console(highlight=False, width=_WIDTH)
        self._console = console

    def changed(self) -> None:
        """The board changed."""
        self._dirty.set()

    def begin(self, demo: Demo) -> None:
        """Say what is running."""
        if self._output.json:
            return
        data = demo.gateway.settings.data
        self._console.print(f"[bold]Gapless demo[/]: one process, one port, one log in {escape(str(data))}")
        self._console.print("  Five clients in overlapping rooms; five events, each by another door.", style="dim")
        self._console.print("  A cell says how many ms after publishing it came × how many times.", style="dim")

    @asynccontextmanager
    async def live(self, demo: Demo, *, others: bool = False) -> AsyncGenerator[None, None]:
        """Redraw the table while the body runs, at most ten times a second; only on a terminal.

        With `others`, the table of what somebody else published.
        """
        if self._output.json or not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=not others) as live:
            drawing = asyncio.create_task(self._draw(live, demo, others=others), name="demo-draw")
            try:
                yield
            finally:
                drawing.cancel()
                await asyncio.gather(drawing, return_exceptions=True)
                live.update(self._table(demo, others=others), refresh=True)

    async def _draw(self, live: Live, demo: Demo, *, others: bool) -> None:
        while True:
            self._dirty.clear()
            live.update(self._table(demo, others=others), refresh=True)
            await asyncio.sleep(_REFRESH)
            await self._dirty.wait()

    def _table(self, demo: Demo, *, others: bool = False) -> Table:
        narrow = self._console.width < _WIDE
        rows = demo.board.others if others else demo.board.rows
        # Asked of the console: while the table is live, sys.stdout is a stand-in.
        drawn = self._console.encoding.lower().replace("-", "") == "utf8"
        table = Table(box=box.SIMPLE_HEAD if drawn else box.ASCII2, pad_edge=False)
        table.add_column("event", overflow="fold")
        table.add_column("topic" if others else "published by", overflow="fold")
        for name in demo.board.clients:
            table.add_column(NARROW_NAMES[name] if narrow else CLIENT_NAMES[name], justify="right", no_wrap=True)
        for row in rows:
            where = row.topic if others else row.door
            cells = (_cell(copies, narrow=narrow) for copies in row.received.values())
            table.add_row(Text(row.title), Text(where), *cells)
        return table

    def verdict(self, demo: Demo, faults: list[Fault]) -> None:
        """The final table and the verdict."""
        seconds = time.monotonic() - self._started
        if self._output.json:
            self._output.result(_result(demo, faults, seconds))
            return
        self._console.print(self._table(demo))
        again = f" ({demo.reconnects} reconnects)" if demo.reconnects else ""
        if not faults:
            what = f"{len(demo.board.clients)} clients received each of {len(demo.board.rows)} events exactly once"
            self._console.print(f"[bold green]PASSED[/]: {what}, in order, in {seconds:.1f} s{again}")
            return
        for fault in faults:
            self._console.print(f"  [red]{escape(str(fault))}[/]")
        self._console.print(f"[bold red]FAILED[/]: not every client received each event exactly once{again}")

    def staying(self, demo: Demo) -> None:
        """Say where a person can watch and publish."""
        gateway = demo.gateway
        if self._output.json:
            return
        self._console.print(f"\nWatch and publish: [bold cyan]{gateway.http_url}/[/]")
        command = escape(called_as())
        self._console.print(f"  or: {command} publish --url {gateway.http_url} --type lead:created --data", end=" ")
        self._console.print("""'{"leadId": "7", "company": "Initech"}'""", markup=False)
        self._console.print(f"      {command} subscribe --url {gateway.mqtt_url} --topic 'crm/#'")
        self._console.print("Events that are published now appear here. Ctrl-C stops it.\n")


def called_as() -> str:
    """As what this was started: `.venv/bin/gapless` in a clone, to copy from the screen."""
    return sys.argv[0] if sys.argv[0].endswith("bin/gapless") and shutil.which("gapless") is None else "gapless"


def _cell(copies: list[float], *, narrow: bool) -> Text:
    if not copies:
        return Text("—", style="dim")
    milliseconds = copies[0] * 1000
    text = f"{milliseconds:.0f} ×{len(copies)}" if narrow else f"{milliseconds:.1f} ms ×{len(copies)}"
    return Text(text, style="green" if len(copies) == 1 else "bold red")


def _result(demo: Demo, faults: list[Fault], seconds: float) -> dict[str, Any]:
    gateway = demo.gateway
    return {
        "ok": not faults,
        "faults": [{"client": fault.client, "text": fault.text} for fault in faults],
        "seconds": round(seconds, 3),
        "reconnects": demo.reconnects,
        "http": gateway.http_url,
        "mqtt": gateway.mqtt_url,
        "epoch": gateway.epoch,
        "events": [_event(row) for row in demo.board.rows],
    }


def _event(row: Row) -> dict[str, Any]:
    return {
        "title": row.title,
        "door": row.door,
        "id": row.id,
        "type": row.type,
        "topic": row.topic,
        "position": row.position,
        "received": {
            client: {"count": len(copies), "ms": [round(delay * 1000, 2) for delay in copies]}
            for client, copies in row.received.items()
        },
    }
