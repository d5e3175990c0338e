"""The flow in the folder names is the flow in the imports: ingress → eventlog → hub → transports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import gapless

ROOT = Path(gapless.__file__).parent

# package -> prefixes of what it must not import, with everything below it
FORBIDDEN = {
    "event.py": ("gapless.eventlog", "gapless.hub", "gapless.transports", "gapless.mqtt", "asyncio"),
    "envelope.py": ("gapless.eventlog", "gapless.hub", "gapless.transports", "gapless.mqtt", "asyncio"),
    "topicmap": ("gapless.eventlog", "gapless.hub", "gapless.transports", "asyncio"),
    "mqtt": (
        "asyncio",
        "socket",
        "gapless.hub",
        "gapless.transports",
        "gapless.ingress",
        "gapless.link",
        "gapless.gateway",
    ),
    "delivery": ("asyncio", "socket", "gapless.hub", "gapless.transports", "gapless.ingress", "gapless.gateway"),
    "eventlog": ("gapless.hub", "gapless.transports", "gapless.ingress", "gapless.link", "gapless.gateway"),
    "limits": ("asyncio", "socket", "gapless.auth", "gapless.ingress", "gapless.transports", "gapless.gateway"),
    "hub": ("gapless.transports", "gapless.ingress", "gapless.link", "gapless.gateway"),
    "presence": ("gapless.transports", "gapless.link", "gapless.gateway"),
    "presence/roster.py": ("asyncio", "gapless.hub", "gapless.ingress", "gapless.eventlog"),
    "presence/watches.py": ("asyncio", "gapless.hub", "gapless.ingress", "gapless.eventlog"),
    "presence/covered.py": ("asyncio", "gapless.hub", "gapless.ingress", "gapless.eventlog"),
    "ingress.py": ("gapless.transports", "gapless.link", "gapless.gateway"),
    "auth": ("gapless.transports", "gapless.link", "gapless.gateway", "gapless.hub"),
    "link": ("gapless.transports", "gapless.gateway"),
    "brokers": ("gapless.transports", "gapless.gateway", "gapless.config", "gapless.cli"),
    "transports": ("gapless.link", "gapless.gateway", "gapless.config", "gapless.cli"),
    "client": ("gapless.gateway", "gapless.hub", "gapless.transports", "gapless.eventlog", "gapless.ingress"),
}


def imports_of(path: Path) -> set[str]:
    """Absolute names that a module imports when it runs (not those for type checkers alone)."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    checking = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in checking:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def modules(part: str) -> list[Path]:
    target = ROOT / part
    return [target] if target.is_file() else sorted(target.rglob("*.py"))


def is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("part", FORBIDDEN)
def test_a_part_imports_only_what_lies_before_it(part: str) -> None:
    paths = modules(part)
    assert paths, f"{part} is gone: mend this table"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports_of(path)
        for prefix in FORBIDDEN[part]
        if is_below(name, prefix)
    ]
    assert wrong == []


def test_transports_do_not_import_each_other() -> None:
    transports = [folder.name for folder in (ROOT / "transports").iterdir() if (folder / "__init__.py").exists()]
    assert len(transports) >= 3
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for transport in transports
        for path in modules(f"transports/{transport}")
        for name in imports_of(path)
        for other in transports
        if other != transport and is_below(name, f"gapless.transports.{other}")
    ]
    assert wrong == []


def test_only_the_gateway_knows_every_part() -> None:
    everything = {"gapless.transports.http", "gapless.transports.mqtt", "gapless.transports.socketio", "gapless.link"}
    knowing = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if everything <= {name for name in imports_of(path) if name in everything}
    }
    assert knowing <= {"gateway/app.py", "config.py"}


def test_the_checker_sees_an_import(tmp_path: Path) -> None:
    module = tmp_path / "x.py"
    module.write_text("def f():\n    import asyncio.events\n    from gapless import hub\n")
    assert {"asyncio.events", "gapless.hub"} <= imports_of(module)
