"""`gapless check`: test the way to a broker step by step, or the file of a log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.markup import escape

from gapless.cli.output import Output
from gapless.cli.running import FAILED, OK, run
from gapless.errors import ConfigError

if TYPE_CHECKING:
    from gapless.link.check import Step

EXAMPLES = """
**Examples**

`gapless check mqtt://127.0.0.1:1883` — any broker, this gateway too

`gapless check mqtts://broker.example.com:8883 --user crm --password "$PASSWORD" --ca ca.pem`

`gapless check wss://broker.example.com/mqtt --json`

`gapless check --log gapless-data` — is the log's file whole? (also while a gateway has it open)
"""


def check(
    url: Annotated[str | None, typer.Argument(help="The broker: mqtt://, mqtts://, ws:// or wss://.")] = None,
    user: Annotated[str | None, typer.Option(help="User name.")] = None,
    password: Annotated[str | None, typer.Option(envvar="GAPLESS_LINK__PASSWORD", help="Password.")] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificate authority to trust, PEM.")] = None,
    cert: Annotated[Path | None, typer.Option(help="Client certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Key of the client certificate, PEM.")] = None,
    log: Annotated[Path | None, typer.Option(metavar="PATH", help="Check a log's file, or its folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a step.")] = False,
) -> None:
    """Test a broker: DNS, TCP, TLS, CONNECT, SUBSCRIBE, a round trip at each QoS, retained messages, strangers.

    Says at each step what happened, and of one that fails what to do about it. Exits with 1 if any fails.
    """
    output = Output(json=json)

    async def command() -> int:
        if (url is None) == (log is None):
            raise ConfigError("name one thing to check", hint="gapless check mqtt://host:1883, or --log FOLDER")
        if log is not None:
            return await _check_log(output, log)
        from gapless.link import LinkOptions
        from gapless.link.check import check_broker

        assert url is not None
        options = LinkOptions(url=url, username=user, password=password, ca_file=ca, cert_file=cert, key_file=key)
        return await _show(output, str(options.address), check_broker(options))

    run(command, output)


async def _show(output: Output, what: str, steps: AsyncIterator[Step]) -> int:
    passed = failed = warned = 0
    if not output.json:
        output.line(f"[bold]{escape(what)}[/]")
    async for step in steps:
        if step.ok:
            passed += 1
        else:
            failed += 1
        warned += step.warning
        _print(output, step)
    if output.json:
        output.result({"ok": not failed, "passed": passed, "failed": failed, "warnings": warned})
    elif failed:
        output.line(f"[bold red]{failed} of {passed + failed} steps failed[/]")
    else:
        output.line(f"[bold green]all {passed} steps passed[/]{', [bold red]with a warning[/]' if warned else ''}")
    return FAILED if failed else OK


def _print(output: Output, step: Step) -> None:
    if output.json:
        fields: dict[str, Any] = {"step": step.name, "ok": step.ok, "detail": step.detail}
        fields |= {"hint": step.hint or None, "warning": step.warning, "ms": round(step.seconds * 1000, 2)}
        output.result(fields)
        return
    mark = "[bold red]![/]" if step.warning else "[green]✓[/]" if step.ok else "[bold red]✗[/]"
    detail = f"[bold red]{escape(step.detail)}[/]" if step.warning else escape(step.detail)
    output.line(f"  {mark} [bold]{escape(step.name):<10}[/] {step.seconds * 1000:8.1f} ms  {detail}")
    if step.hint:
        output.line(f"      [{'dim' if step.ok and not step.warning else 'yellow'}]→ {escape(step.hint)}[/]")


async def _check_log(output: Output, path: Path) -> int:
    from gapless.eventlog.sqlite import check as check_log

    file = path / "events.db" if path.is_dir() else path
    if output.stderr.is_terminal:
        with output.stderr.status("reading the whole log"):
            report = await asyncio.to_thread(check_log, file)
    else:
        report = await asyncio.to_thread(check_log, file)
    if output.json:
        output.result({"ok": not report.problems, **msgspec.to_builtins(report)})
    else:
        mark = "[bold red]✗[/]" if report.problems else "[green]✓[/]"
        output.line(
            f"{mark} {escape(str(file))}: {report.events:,} events in {report.bytes:,} bytes, epoch {report.epoch}"
        )
        output.line(f"  offsets {report.oldest:,} to {report.head:,}")
        for problem in report.problems:
            output.line(f"  [red]{escape(problem)}[/]")
        if report.problems:
            output.line("  [yellow]→ stop the gateway, and restore the log from a backup; nothing was changed[/]")
    return FAILED if report.problems else OK
