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
