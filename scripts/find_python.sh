#!/usr/bin/env bash
# Prints the path of a Python >= 3.11, or says what is missing. PYTHON=... overrides the search.
set -euo pipefail

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
  is_new_enough "$PYTHON" && { command -v "$PYTHON"; exit 0; }
  echo "gapless needs Python 3.11 or newer; PYTHON=$PYTHON is $("$PYTHON" -V 2>&1 || echo "not a Python")" >&2
  exit 1
fi

for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
  if command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate"; then
    command -v "$candidate"
    exit 0
  fi
done

found="no python3"
if command -v python3 >/dev/null 2>&1; then found=$(python3 -V 2>&1); fi
echo "gapless needs Python 3.11 or newer, found: $found." >&2
echo "Debian: apt-get install python3 python3-venv   macOS: brew install python@3.13" >&2
echo "or name one: make setup PYTHON=/path/to/python3" >&2
exit 1
