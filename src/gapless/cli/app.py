"""The commands and their options; each one's work is in its own module."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import typer

from gapless import __version__

COMMANDS = ("serve", "demo", "publish", "subscribe", "check", "token", "key", "revoke", "torture")
"""Each is in the module `gapless.cli.<name>`: an `app` of several, or the function of that name, with its EXAMPLES."""


def make_app(arguments: Sequence[str]) -> typer.Typer:
    """The command line for these arguments (without the program's name).

    Where the first word names a command only that one is loaded: the others would cost each
    start their imports.
    """
    app = typer.Typer(
        name="gapless",
        help="Every application event to every device, once and in order: Socket.IO, MQTT, SSE and long polling.",
        epilog="Start here: `gapless demo`, then `gapless serve` and `gapless subscribe --rooms org:global`.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    named = arguments[0] if arguments else ""
    for name in (named,) if named in COMMANDS else COMMANDS:
        module = import_module(f"gapless.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(epilog=module.EXAMPLES)(getattr(module, name))
    return app


def _print_version(*, wanted: bool) -> None:
    if wanted:
        print(f"gapless {__version__}")
        raise typer.Exit


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
