#!/usr/bin/env bash
# Makes the environment in .venv from the locks (called by `make setup` and `make setup-test`).
#   setup.sh run    the gateway: .venv/bin/gapless
#   setup.sh test   what the tests need besides: test packages, Node and the JavaScript clients
# Safe to run again at any time, also after it was interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."

# What make looks at to know that there is nothing to do.
RUN_STAMP=.venv/.stamp-run
TEST_STAMP=.venv/.stamp-test

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

# The locks are complete and hashed: nothing is resolved here, and nothing unlisted is installed.
pip_install() {
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input "$@"
}

make_venv() {
  local python=$1 problem
  if problem=$("$python" -m venv --clear .venv 2>&1); then
    return
  fi
  # Debian ships Python without ensurepip; a package of its own brings it.
  if command -v apt-get >/dev/null 2>&1; then
    say "this Python cannot make virtual environments: installing Debian's python3-venv"
    if scripts/system_packages.sh install python3-venv && problem=$("$python" -m venv --clear .venv 2>&1); then
      return
    fi
  fi
  echo "$problem" >&2
  echo "could not make a virtual environment with $python; on Debian: apt-get install python3-venv" >&2
  exit 1
}

setup_run() {
  local python
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(scripts/find_python.sh)
    say "making .venv with $("$python" -V) ($python)"
    make_venv "$python"
  fi
  say "installing the locked run-time packages (about 20 MB the first time)"
  pip_install --require-hashes --requirement requirements/build.txt
  pip_install --require-hashes --requirement requirements/run.txt
  pip_install --no-deps --no-build-isolation --editable .
  touch "$RUN_STAMP"
  say "ready: .venv/bin/gapless"
}

setup_test() {
  say "installing the locked test packages, with Node (about 120 MB the first time)"
  pip_install --require-hashes --requirement requirements/dev.txt
  say "installing the JavaScript test clients, and what the SDK is built with"
  local have_clients=yes folder
  for folder in tests/js sdk; do
    # npm finds node through PATH; the one in .venv comes first so that every machine runs the same.
    if ! (PATH="$PWD/.venv/bin:$PATH" && cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error); then
      have_clients=no
      say "npm ci failed in $folder: tests marked needs_node or needs_sdk will be skipped; the next make test tries again"
      # A person without network goes on; continuous integration must not lose tests without a word.
      if [ -n "${CI:-}" ]; then exit 1; fi
    fi
  done
  scripts/system_packages.sh test-tools
  if [ "$have_clients" = yes ]; then touch "$TEST_STAMP"; fi
}

case "${1:-}" in
  run) setup_run ;;
  test) setup_test ;;
  *)
    echo "usage: scripts/setup.sh run|test" >&2
    exit 2
    ;;
esac
