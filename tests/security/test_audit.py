"""The look-up of known vulnerabilities: blocks on one, and on nothing else."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "scripts" / "audit.py"


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_known_vulnerability_blocks_unless_it_is_allowed(audit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    text = json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}]})
    report = audit.read_pip(text)
    assert report.found == [("a", "CVE-1")]
    assert audit.verdict([("x", report)], {}) == 1
    assert audit.verdict([("x", report)], {"CVE-1": "not reached"}) == 0
    assert "allowed: not reached" in capsys.readouterr().out


def test_what_npm_found(audit: Any) -> None:
    advisory = {"url": "https://example.com/advisories/GHSA-1", "source": 7}
    text = json.dumps(
        {
            "vulnerabilities": {"a": {"via": [advisory]}, "b": {"via": ["a"]}},
            "metadata": {"dependencies": {"total": 9}},
        }
    )
    assert audit.read_npm(text) == ([("a", "GHSA-1")], 9, "")


@pytest.mark.parametrize("text", ["", "no json", '{"message": "405 Method Not Allowed"}', "[]", "null"])
def test_a_registry_that_does_not_answer_stops_nobody_and_is_named(
    audit: Any, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for read in (audit.read_pip, audit.read_npm):
        assert audit.verdict([("x", read(text))], {}) == 0
        assert "0 packages looked up; no answer" in capsys.readouterr().out


def test_packages_that_the_registry_does_not_know_are_counted_as_not_looked_up(audit: Any) -> None:
    report = audit.read_pip(json.dumps({"dependencies": [{"name": "a", "skip_reason": "not found"}]}))
    assert report == ([], 0, "the registry says nothing about 1 of 1 packages")


ANSWERS = Path(__file__).parent / "answers"
"""Of old h11 and ws, whose advisories are real, in the form of `pip-audit -f json` and `npm audit --json`."""
SILENT = '{"message": "request to https://registry.example.com/-/npm/v1/security/audits failed, reason: ", "error": {}}'


def looked_up(audit: Any, monkeypatch: pytest.MonkeyPatch, answers: dict[str, str]) -> int:
    """The exit status of the whole look-up, with these answers in place of the programs'."""
    monkeypatch.setattr(audit, "run", lambda command, folder=None: answers.get(command[0], ""))
    return int(audit.verdict(audit.reports()))


@pytest.mark.parametrize(
    ("program", "found"), [("pip-audit", "h11: CVE-2025-43859"), ("npm", "ws: GHSA-3h5v-q93c-6h6q")]
)
def test_a_recorded_answer_blocks(
    audit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str, found: str
) -> None:
    """Also where the other registry is silent."""
    recorded = (ANSWERS / f"{program.replace('npm', 'npm-audit').replace('-', '_')}.json").read_text()
    assert looked_up(audit, monkeypatch, {program: recorded}) == 1
    out = capsys.readouterr().out
    assert f"  {found}\n" in out
    assert "no answer" in out


def test_registries_that_are_silent_block_nobody(audit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked_up(audit, monkeypatch, {}) == 0
    assert looked_up(audit, monkeypatch, {"pip-audit": "Traceback (most recent call last):", "npm": SILENT}) == 0


def test_what_was_found_is_looked_at_also_where_one_answer_is_broken(audit: Any) -> None:
    broken = [json.dumps({"dependencies": [{}, 7]}), json.dumps({"vulnerabilities": {"a": 1}, "metadata": {}})]
    assert [read(text).looked_up for read, text in zip((audit.read_pip, audit.read_npm), broken, strict=True)] == [0, 0]
