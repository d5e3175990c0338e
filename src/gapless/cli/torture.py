"""`gapless torture`: a real gateway under faults, and proof of what its clients heard."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from gapless.cli.output import Output
from gapless.cli.running import FAILED, OK, run
from gapless.errors import ConfigError

if TYPE_CHECKING:
    from gapless.torture.checker import Report
    from gapless.torture.plan import Fault, Plan
    from gapless.torture.run import Outcome

EXAMPLES = """
**Examples**

`gapless torture --seed 1 --seconds 40` — the same seed and options: the same faults at the same times

`gapless torture --broker` — with a real Mosquitto on the link, which is killed and cut off too

`gapless torture --seed 7 --keep ./history` — keep all journals; `gapless torture --check ./history` checks them again

Stock JavaScript clients take part where Node.js is, and what `npm install socket.io-client mqtt eventsource` brings;
the TypeScript client, where this runs in a clone of the repository that is set up for its tests.
"""

_EVENTS_A_SECOND = 100
_SHOWN = 20
_WIDTH = 116


def torture(
    seed: Annotated[int | None, typer.Option(help="Draws everything. [default: a new one, which is named]")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long events are published and faults happen.")] = 40.0,
    clients: Annotated[int, typer.Option(min=1, max=200, help="Processes that listen.")] = 14,
    events: Annotated[
        int | None, typer.Option(min=1, help=f"Events to publish. [default: {_EVENTS_A_SECOND} a second]")
    ] = None,
    broker: Annotated[bool, typer.Option("--broker", help="A real Mosquitto on the link.")] = False,
    keep: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep the log and all journals there.")] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Run nothing: check the journals of a run that was kept.")
    ] = None,
    node_modules: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the stock JavaScript clients are.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The result as one JSON line.")] = False,
) -> None:
    """Kill, pause, cut and starve a gateway, its clients and publishers; then check what everybody heard.

    Starts a real gateway and clients of every kind as processes, publishes by every door, draws faults from
    the seed, heals them, and compares every client's own journal with the log and with what was acknowledged:
    lost, duplicated, reordered, invented. Exits with 1 on any violation.
    """
    output = Output(json=json)

    async def command() -> int:
        if check is not None:
            return _check_again(output, check)
        return await _torture(
            output,
            keep,
            node_modules,
            seed=secrets.randbelow(1_000_000) if seed is None else seed,
            seconds=seconds,
            clients=clients,
            events=round(seconds * _EVENTS_A_SECOND) if events is None else events,
            broker=broker,
        )

    run(command, output)


async def _torture(output: Output, keep: Path | None, modules: Path | None, *, broker: bool, **options: Any) -> int:
    from gapless.testing import find_mosquitto, find_node  # these imports take a moment: not for --help
    from gapless.torture.plan import make_plan
    from gapless.torture.run import run_torture
    from gapless.torture.world import find_modules, find_sdk

    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise ConfigError(f"{keep} is not empty", hint="name a new folder, or remove what is there")
    if broker and find_mosquitto() is None:
        raise ConfigError("there is no Mosquitto on this machine", hint="install it, or leave --broker out")
    found = find_modules(modules)
    js = found is not None and find_node() is not None
    sdk = find_sdk() is not None and find_node() is not None
    plan = make_plan(**options, js=js, sdk=sdk, broker=broker)
    view = _View(output, plan)
    view.begin(js=js, sdk=sdk)
    folder = Path(tempfile.mkdtemp(prefix="gapless-torture-")) if keep is None else keep
    is_kept = True
    try:
        outcome = await run_torture(plan, folder, modules=found, on_fault=view.fault, on_stage=view.stage)
        is_kept = keep is not None or bool(outcome.report.findings)
    except BaseException:
        if keep is None:
            is_kept = False
        raise
    finally:
        if not is_kept:
            shutil.rmtree(folder, ignore_errors=True)
    view.verdict(outcome, folder if is_kept else None)
    return FAILED if outcome.report.findings else OK


def _check_again(output: Output, folder: Path) -> int:
    from gapless.torture.checker import check
    from gapless.torture.run import load_history

    history = load_history(folder)
    report = check(history)
    if output.json:
        output.result(_report_json(report) | {"seed": history.plan.seed})
    else:
        _print_report(output, report)
    return FAILED if report.findings else OK


class _View:
    """A run on a terminal, in a pipe, or as JSON."""

    def __init__(self, output: Output, plan: Plan) -> None:
        self._output = output
        self._plan = plan
        self._tells = not output.json and output.stderr.is_terminal

    def begin(self, *, js: bool, sdk: bool) -> None:
        """Say what comes, and what cannot be part of it."""
        plan = self._plan
        if not js:
            self._output.note(
                "no JavaScript clients: Node.js, or socket.io-client, mqtt and eventsource in node_modules, are not "
                "here (--node-modules names a folder)"
            )
        if not sdk:
            self._output.note(
                "no TypeScript client: this is no clone of the repository with Node.js and sdk/node_modules"
            )
        if not self._output.json:
            broker = ", Mosquitto on the link" if plan.broker else ""
            self._output.note(
                f"seed {plan.seed}: {len(plan.clients)} clients, {len(plan.publishers)} doors, {plan.events} events, "
                f"{len(plan.faults)} faults in {plan.seconds:g} s{broker}"
            )

    def stage(self, text: str) -> None:
        """The next step of the run."""
        if self._tells:
            self._output.note(text)

    def fault(self, fault: Fault) -> None:
        """A fault begins."""
        if self._tells:
            self._output.note(f"  {fault}")

    def verdict(self, outcome: Outcome, kept: Path | None) -> None:
        """The final table and the verdict."""
        output, plan, report = self._output, self._plan, outcome.report
        faults = dict(sorted(Counter(fault.kind for fault in outcome.faults).items()))
        repeat = _repeat(plan)
        if output.json:
            output.result(
                _report_json(report)
                | {
                    "seed": plan.seed,
                    "seconds": round(outcome.seconds, 1),
                    "clients": len(plan.clients),
                    "faults": faults,
                    "skipped": list(outcome.skipped),
                    "whole_after": outcome.whole_after,
                    "kept": None if kept is None else str(kept),
                    "repeat": repeat,
                }
            )
            return
        console = _console(output)
        console.print(_table(outcome))
        console.print(f"faults  {', '.join(f'{kind} {count}' for kind, count in faults.items()) or 'none'}")
        for text in outcome.skipped:
            console.print(f"skipped, not possible on this system: {text}")
        _print_report(output, report)
        if kept is not None:
            console.print(f"kept in {kept}; again: gapless torture --check {kept}", markup=False)
        if report.findings:
            console.print(f"the same run: {repeat}", markup=False)


def _repeat(plan: Plan) -> str:
    words = ["gapless", "torture", "--seed", str(plan.seed), "--seconds", f"{plan.seconds:g}"]
    words += ["--clients", str(len(plan.clients)), "--events", str(plan.events)]
    return " ".join([*words, *(["--broker"] if plan.broker else [])])


def _console(output: Output) -> Console:
    if output.stdout.is_terminal:
        return output.stdout
    return Console(highlight=False, width=_WIDTH)


def _table(outcome: Outcome) -> Table:
    from gapless.torture.kinds import KINDS

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("client")
    table.add_column("kind")
    table.add_column("rooms")
    table.add_column("whole after", justify="right")
    for client in outcome.plan.clients:
        seconds = outcome.whole_after[client.name]
        whole = "never" if seconds is None else f"{seconds:.1f} s"
        table.add_row(client.name, KINDS[client.kind].title, ", ".join(client.rooms), whole)
    return table


def _print_report(output: Output, report: Report) -> None:
    console = _console(output)
    console.print(
        f"{report.acknowledged:,} events acknowledged, {report.stored:,} in the log, "
        f"{report.checked:,} deliveries checked"
    )
    for reason, count in sorted(report.allowed.items()):
        console.print(f"allowed  {count} × {reason}")
    for finding in report.findings[:_SHOWN]:
        console.print(f"  {finding}", markup=False, style="red")
    if len(report.findings) > _SHOWN:
        console.print(f"  … and {len(report.findings) - _SHOWN} more", markup=False)
    counts = ", ".join(f"{kind} {count}" for kind, count in report.counts().items())
    if report.findings:
        console.print(f"[bold red]FAILED[/]: {len(report.findings)} violations: {counts}")
    else:
        console.print(f"[bold green]PASSED[/]: no violations: {counts}")


def _report_json(report: Report) -> dict[str, Any]:
    return {
        "ok": not report.findings,
        "acknowledged": report.acknowledged,
        "stored": report.stored,
        "deliveries": report.checked,
        "allowed": report.allowed,
        "violations": report.counts(),
        "findings": report.findings,
    }
