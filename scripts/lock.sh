#!/usr/bin/env bash
# Writes the locks anew from pyproject.toml, tests/js/package.json and the packages of sdk (called by `make lock`).
# The locks hold for every platform and Python >= 3.11, carry hashes, and name no registry host.
set -euo pipefail
cd "$(dirname "$0")/.."

UV=${UV:-.venv/bin/uv}
if [ ! -x "$UV" ]; then
  .venv/bin/python -m pip install --quiet uv
fi

compile() { # compile OUTPUT ARGUMENTS...
  local output=$1
  shift
  echo "locking $output"
  "$UV" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
    --output-file "$output" "$@"
}

compile requirements/run.txt pyproject.toml
compile requirements/build.txt --group build --constraints requirements/run.txt
compile requirements/dev.txt --group dev --constraints requirements/run.txt --constraints requirements/build.txt

for folder in tests/js sdk; do
  echo "locking $folder/package-lock.json"
  (PATH="$PWD/.venv/bin:$PATH" && cd "$folder" && npm install --package-lock-only --ignore-scripts --no-audit --no-fund)
done

if grep -nE "https?://" requirements/*.txt || grep -nE '"resolved": "(https?|git)' tests/js/package-lock.json sdk/package-lock.json; then
  echo "lock.sh: a lock names a host (above); remove it" >&2
  exit 1
fi
