"""What every command shares in speaking to people and to scripts."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from gapless.errors import GaplessError

_encode = msgspec.json.Encoder(decimal_format="string").encode


class Output:
    """Standard output for results, standard error for everything said about the work.

    Colours and live redrawing only on a terminal, and never with `NO_COLOR`.

    Args:
        json: results are JSON, one value a line, and nothing else goes to standard output.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.stdout = Console(highlight=False, soft_wrap=True)
        self.stderr = Console(stderr=True, highlight=False, soft_wrap=True)

    def result(self, value: Any) -> None:
        """One line of JSON, at once."""
        sys.stdout.buffer.write(_encode(value) + b"\n")
        sys.stdout.buffer.flush()

    def line(self, text: str) -> None:
        """One line of a result for people; may hold rich markup."""
        self.stdout.print(text)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A line about the work, to standard error; plain text."""
        self.stderr.print(escape(text))

    def warn(self, text: str) -> None:
        """A warning, to standard error; plain text."""
        self.stderr.print(f"[yellow]warning:[/] {escape(text)}")

    def error(self, error: GaplessError) -> None:
        """What went wrong and how to mend it, to standard error."""
        if self.json:
            sys.stderr.write(_encode({"error": error.to_wire()}).decode() + "\n")
            return
        self.stderr.print(f"[bold red]error:[/] {escape(error.message)}")
        if error.hint:
            self.stderr.print(f"[bold]mend it:[/] {escape(error.hint)}")


def let_go_of_stdout() -> None:
    """After a broken pipe: keep the interpreter from failing again when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
