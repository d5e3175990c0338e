"""The commands and their options; each one's work is in its own module."""

from __future__ import annotations

import typer

from gapless import __version__
from gapless.cli import check, demo, key, publish, revoke, serve, subscribe, token, torture

app = typer.Typer(
    name="gapless",
    help="Every application event to every device, once and in order: Socket.IO, MQTT, SSE and long polling.",
    epilog="Start here: `gapless demo`, then `gapless serve` and `gapless subscribe --rooms org:global`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(*, wanted: bool) -> None:
    if wanted:
        print(f"gapless {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False,
        "--version",
        help="Print the version.",
        is_eager=True,
        callback=lambda value: _print_version(wanted=value),
    ),
) -> None:
    """Every application event to every device, once and in order."""


app.command(epilog=serve.EXAMPLES)(serve.serve)
app.command(epilog=demo.EXAMPLES)(demo.demo)
app.command(epilog=publish.EXAMPLES)(publish.publish)
app.command(epilog=subscribe.EXAMPLES)(subscribe.subscribe)
app.command(epilog=check.EXAMPLES)(check.check)
app.command(epilog=token.EXAMPLES)(token.token)
app.add_typer(key.app, name="key")
app.command(epilog=revoke.EXAMPLES)(revoke.revoke)
app.command(epilog=torture.EXAMPLES)(torture.torture)
