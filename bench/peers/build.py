"""`python -m bench.peers.build`: build the peers that no package of the tests brings, into `.venv/bench`.

nats-server and Centrifugo need Go, aedes needs npm. What cannot be had is named, with the reason, here and in
the table of the benchmark: that is no failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.host import ROOT

FOLDER = ROOT / ".venv/bench"
VERSIONS = {"nats-server": "2.15.2", "Centrifugo": "6.9.1", "aedes": "1.2.0"}
"""Of the Go peers. That of aedes is pinned in bench/peers/package.json, and repeated here for the table."""

_GO = {
    "nats-server": ("github.com/nats-io/nats-server/v2", "nats-server"),
    "Centrifugo": ("github.com/centrifugal/centrifugo/v6", "centrifugo"),
}
_BUILDING = 1800.0  # seconds


class NotBuilt(Exception):
    """A peer cannot be built on this machine; the text says why."""


def executable(name: str) -> Path:
    """The program of a Go peer.

    Raises:
        NotBuilt: it is not there.
    """
    path = _program(name)
    if not path.is_file():
        raise NotBuilt(_reason(name))
    return path


def node_packages() -> Path:
    """The folder where aedes is.

    Raises:
        NotBuilt: it is not there.
    """
    folder = FOLDER / "node/node_modules"
    if not (folder / "aedes").is_dir():
        raise NotBuilt(_reason("aedes"))
    return folder


def built() -> dict[str, str]:
    """The versions of the peers that are there."""
    found = {}
    for name, version in VERSIONS.items():
        try:
            executable(name) if name in _GO else node_packages()
        except NotBuilt:
            continue
        found[name] = version
    return found


def _program(name: str) -> Path:
    # The version is in the path, so that another one is built anew.
    return FOLDER / f"{name.lower()}-{VERSIONS[name]}" / _GO[name][1]


def _why(name: str) -> Path:
    return FOLDER / f"{name.lower()}.why"


def _reason(name: str) -> str:
    try:
        return _why(name).read_text()
    except FileNotFoundError:
        return f"{name} is not built: python -m bench.peers.build"


def _build_go(name: str) -> None:
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if go is None:
        raise NotBuilt(f"{name} needs Go to be built, and there is none on this machine")
    module, program = _GO[name]
    target = _program(name).parent
    env = {"GOBIN": str(target), "CGO_ENABLED": "0", "GOWORK": "off", "GO111MODULE": "on"}
    _run(name, [go, "install", "-trimpath", f"{module}@v{VERSIONS[name]}"], env)
    assert (target / program).is_file()


def _build_aedes(name: str) -> None:
    npm = ROOT / ".venv/bin/npm"
    if not npm.is_file():
        raise NotBuilt("aedes needs npm: make setup-test")
    folder = FOLDER / "node"
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(ROOT / "bench/peers" / file, folder)
    # npm finds node through PATH; the one in .venv comes first so that every machine runs the same.
    env = {"PATH": f"{npm.parent}:{os.environ.get('PATH', '')}"}
    _run(name, [str(npm), "ci", "--ignore-scripts", "--loglevel=error"], env, folder)


def _run(name: str, command: list[str], env: Mapping[str, str], folder: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **env},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_BUILDING,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"{name} could not be built: {type(error).__name__}") from error
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        lines = [line for line in done.stderr.splitlines() if line and not line.startswith("go: downloading")]
        raise NotBuilt(f"{name} could not be built: {lines[-1] if lines else done.returncode}")


def build(name: str) -> None:
    """Build one where it is missing, and note why where it cannot be had."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"{name} {VERSIONS[name]}: ", end="", flush=True)
    try:
        (_build_go if name in _GO else _build_aedes)(name)
    except NotBuilt as error:
        _why(name).write_text(str(error))
        print(error)
    else:
        _why(name).unlink(missing_ok=True)
        print("ready")


def main() -> None:
    there = built()
    for name in VERSIONS:
        if name not in there:
            build(name)


if __name__ == "__main__":
    main()
