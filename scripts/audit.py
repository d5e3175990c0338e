"""Look up what is installed from the locks among the known vulnerabilities: pip-audit and npm audit.

python scripts/audit.py     exit 1 if one is known that ALLOWED does not name

A registry that does not answer, or does not know, stops nobody: it is said, and counts as not looked up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
TIMEOUT = 60
"""Seconds for one look-up."""

ALLOWED: dict[str, str] = {}
"""Vulnerabilities that are known and harm nobody here, by id: why that is so."""


class Found(NamedTuple):
    """A known vulnerability."""

    package: str
    id: str


class Report(NamedTuple):
    """The answer of one look-up: what was found, how many packages were looked up, and what was not."""

    found: list[Found]
    looked_up: int
    silent: str = ""


def read_pip(text: str) -> Report:
    """The report of `pip-audit -f json`."""
    try:
        packages = json.loads(text)["dependencies"]
        found = [Found(each["name"], vuln["id"]) for each in packages for vuln in each.get("vulns", ())]
        skipped = sum("skip_reason" in each for each in packages)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Report([], 0, "no answer")
    silent = f"the registry says nothing about {skipped} of {len(packages)} packages" if skipped else ""
    return Report(found, len(packages) - skipped, silent)


def read_npm(text: str) -> Report:
    """The report of `npm audit --json`."""
    try:
        document = json.loads(text)
        packages, total = document["vulnerabilities"], document["metadata"]["dependencies"]["total"]
        found = {
            Found(name, str(via.get("url", via.get("source"))).rsplit("/", 1)[-1])
            for name, each in packages.items()
            for via in each["via"]
            if isinstance(via, dict)  # else it names the package that it comes from
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return Report([], 0, "no answer")
    return Report(sorted(found), total)


def verdict(reports: Iterable[tuple[str, Report]], allowed: dict[str, str] = ALLOWED) -> int:
    """Print what was found; the exit status."""
    status = 0
    for name, report in reports:
        print(f"{name}: {report.looked_up} packages looked up" + (f"; {report.silent}" if report.silent else ""))
        for package, id_ in report.found:
            reason = allowed.get(id_)
            print(f"  {package}: {id_}" + (f" (allowed: {reason})" if reason else ""))
            status |= reason is None
    return int(status)


def run(command: list[str], folder: Path = ROOT) -> str:
    """What a command prints; nothing where it does not end in time, or is not there."""
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=TIMEOUT
        )
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return ""
    return done.stdout


def reports() -> Iterable[tuple[str, Report]]:
    """Look up every lock."""
    pip: list[Any] = ["pip-audit", "-r", "requirements/run.txt", "--no-deps", "--disable-pip", "-f", "json"]
    yield "requirements/run.txt", read_pip(run([*pip, "--progress-spinner", "off", "--timeout", "10"]))
    for folder in ("sdk", "tests/js", "bench/peers"):
        yield (
            f"{folder}/package-lock.json",
            read_npm(run(["npm", "audit", "--json", "--package-lock-only"], ROOT / folder)),
        )


if __name__ == "__main__":
    sys.exit(verdict(reports()))
