"""docs/mqtt-conformance.md says what the tests show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_statement_has_a_test_or_a_reason_and_the_document_says_so() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "conformance.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
