"""Journals: append-only files of JSON lines that survive the SIGKILL of who writes them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gapless.torture.content import fingerprint, key_of

Line = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


class Journal:
    """A journal that is written.

    A line is in the system's hands when `write` returns, so that a kill of this process cannot take it
    back; a power cut could. A line that a kill cut short is removed when the journal is opened again:
    what it would have told was not done.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.earlier = list(read_journal(path)) if path.exists() else []
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.truncate(self._file, _whole_bytes(path))

    def write(self, what: str, **fields: object) -> None:
        """Append a line: when, what (`is`), and more."""
        line = _encode({"t": round(time.time(), 4), "is": what, **fields}) + b"\n"
        while line:
            line = line[os.write(self._file, line) :]

    def event(self, data: Any, **fields: object) -> None:
        """Append an event that the application got."""
        if not isinstance(data, dict) or "p" not in data or "n" not in data:
            self.write("event", key="?", sha=repr(data)[:80], **fields)
            return
        self.write("event", key=key_of(data["p"], data["n"]), sha=fingerprint(data), **fields)


def _whole_bytes(path: Path) -> int:
    return path.read_bytes().rfind(b"\n") + 1


def read_journal(path: Path) -> Iterator[Line]:
    """The whole lines of a journal."""
    content = path.read_bytes()
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        yield _decode(line)


class Tail:
    """A journal that is read while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def new_lines(self) -> Iterator[Line]:
        """The whole lines that were added since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            yield _decode(line)
