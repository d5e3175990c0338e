"""The command line `gapless`: serve, publish, subscribe, check, demo.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted (141 where the
reader of the output went away). `serve`, and `demo` without `--once`, end with 0 on Ctrl-C:
that is how they are stopped.
"""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line; the entry point of the script `gapless`."""
    from gapless.cli.app import make_app  # here, so that importing this package costs nothing

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no "×" is no reason to fail
    make_app(sys.argv[1:])(prog_name="gapless")


__all__ = ["main"]
