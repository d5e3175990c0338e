"""Render docs/mqtt-conformance.md from docs/mqtt-statements and the ids of the tests.

    python scripts/conformance.py           writes the document
    python scripts/conformance.py --check   writes nothing; fails where the document is stale, a statement
                                            that should be covered has no test, or a test names a wrong one

A test covers the statements that its id carries after the version: `3.1.1:MQTT-3.1.0-1,MQTT-3.1.0-2`. A
statement can also name tests (`[tests]` in the data), by node id without the parameters.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATEMENTS = ROOT / "docs" / "mqtt-statements"
DOCUMENT = ROOT / "docs" / "mqtt-conformance.md"
FOLDERS = ("tests/mqtt", "tests/mqtt_conformance", "tests/stock_mqtt")

_TAG = re.compile(r"(3\.1\.1|5):(MQTT-[\d.-]*\d(?:,MQTT-[\d.-]*\d)*)")


@dataclass(frozen=True)
class Standard:
    """One data file: the statements of a version and what is said of them, by id."""

    version: str
    title: str
    says: dict[str, str]
    not_applicable: dict[str, str]
    not_covered: dict[str, str]
    deviates: dict[str, str]
    tests: dict[str, list[str]]
    covered: dict[str, list[str]] = field(default_factory=dict)


def load() -> list[Standard]:
    """Read the data files, the older version first."""
    standards = []
    for path in sorted(STATEMENTS.glob("*.toml")):
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        standards.append(Standard(**data))
    return standards


def collect(folders: Iterable[str]) -> list[str]:
    """The node ids of all tests in these folders."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run([*command, *folders], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pytest could not collect the tests:\n{done.stdout}{done.stderr}")
    return [line for line in done.stdout.splitlines() if "::" in line]


def cover(standards: list[Standard], nodes: list[str]) -> list[str]:
    """Note which tests cover which statements; gives what is wrong."""
    wrong = []
    by_version = {standard.version: standard for standard in standards}
    for node in nodes:
        function, _, parameters = node.partition("[")
        for version, ids in _TAG.findall(parameters):
            standard = by_version[version]
            for one in ids.split(","):
                if one not in standard.says:
                    wrong.append(f"{node} names {one}, which is no statement of {standard.title}")
                    continue
                found = standard.covered.setdefault(one, [])
                if function not in found:
                    found.append(function)
    for standard in standards:
        for one, named in standard.tests.items():
            for node in named:
                if not _exists(node):
                    wrong.append(f"{standard.title} {one} names the test {node}, which does not exist")
                elif node not in standard.covered.setdefault(one, []):
                    standard.covered[one].append(node)
        wrong += _contradictions(standard)
    return wrong


def _contradictions(standard: Standard) -> list[str]:
    wrong: list[str] = []
    reasons = {**standard.not_applicable, **standard.not_covered}
    named = {*reasons, *standard.deviates, *standard.tests}
    wrong += [f"{one} is no statement of {standard.title}" for one in sorted(named - standard.says.keys())]
    for one in standard.says:
        if one in reasons and one in standard.covered:
            wrong.append(f"{standard.title} {one} has a test, and a reason for having none")
        elif one not in reasons and one not in standard.covered:
            wrong.append(f"{standard.title} {one} has no test, and no reason for having none")
    return wrong


def _exists(node: str) -> bool:
    path, _, function = node.partition("::")
    file = ROOT / path
    return file.is_file() and re.search(rf"def {re.escape(function)}\(", file.read_text(encoding="utf-8")) is not None


def render(standards: list[Standard]) -> str:
    """The document."""
    lines = [
        "# MQTT conformance",
        "",
        "The numbered statements of both standards, each in a few words of our own, with the tests that show that",
        "the edge keeps them, or the reason why there is none. Made by `scripts/conformance.py` from",
        "`docs/mqtt-statements` and the ids of the tests; change those, not this page.",
        "",
        "| | statements | covered | covered, with a difference that is meant | not applicable | not covered |",
        "|---|---|---|---|---|---|",
    ]
    for standard in standards:
        others = (len(standard.deviates), len(standard.not_applicable), len(standard.not_covered))
        figures = (len(standard.says), len(standard.says) - sum(others), *others)
        lines.append(f"| {standard.title} | {' | '.join(map(str, figures))} |")
    lines += [
        "",
        "The tests run on raw packets against a real gateway (`tests/mqtt_conformance`), on the codec alone",
        "(`tests/mqtt`), and with stock clients (`tests/stock_mqtt`). `pytest -k MQTT-3.1.4-3` runs those of one",
        "statement.",
    ]
    for standard in standards:
        lines += ["", f"## {standard.title}", "", "| statement | what it says | tests |", "|---|---|---|"]
        lines += [f"| {one} | {_escape(says)} | {_shown_by(standard, one)} |" for one, says in standard.says.items()]
    return "\n".join(lines) + "\n"


def _shown_by(standard: Standard, one: str) -> str:
    if one in standard.not_applicable:
        return f"Not applicable: {_escape(standard.not_applicable[one])}"
    if one in standard.not_covered:
        return f"**Not covered**: {_escape(standard.not_covered[one])}"
    tests: dict[str, list[str]] = {}
    for node in standard.covered.get(one, []):
        path, _, function = node.partition("::")
        tests.setdefault(path.removeprefix("tests/"), []).append(f"`{function}`")
    text = "; ".join(f"{path}: {', '.join(functions)}" for path, functions in sorted(tests.items()))
    difference = standard.deviates.get(one)
    return text if difference is None else f"{text}. **Differs**: {_escape(difference)}"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where something is wrong")
    arguments = parser.parse_args()
    standards = load()
    wrong = cover(standards, collect(FOLDERS))
    document = render(standards)
    if not arguments.check:
        DOCUMENT.write_text(document, encoding="utf-8")
        print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    elif not DOCUMENT.is_file() or DOCUMENT.read_text(encoding="utf-8") != document:
        wrong.append(f"{DOCUMENT.relative_to(ROOT)} is stale: run python scripts/conformance.py")
    for line in wrong:
        print(line, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
