"""One gateway at a time: the side file `<log>.lock`, and what it remembers of the last one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Literal

import msgspec

from gapless.errors import LogUnavailable


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the side file says.

    Attributes:
        pid: process that has, or last had, the log open.
        epoch: the log's epoch; empty before the log was made.
        state: `open` from the first commit until closing began: a write-ahead log must exist.
    """

    pid: int = 0
    epoch: str = ""
    state: Literal["open", "closed"] = "closed"


class DataLock:
    """An exclusive lock on a log's files, let go by the system when the process dies.

    Attributes:
        previous: what the last process noted; empty where there was none or it is unreadable.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock for the log at `path`.

        Raises:
            LogUnavailable: another process has it, or the side file cannot be written.
        """
        self._path = path.with_name(path.name + ".lock")
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LogUnavailable(
                f"{self._path} cannot be written: {error.strerror}",
                hint="give the gateway's user write access to the folder, or choose another with --data",
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = self._read().pid
            os.close(self._descriptor)
            raise LogUnavailable(
                f"another gateway (pid {holder or 'unknown'}) has {path} open",
                hint="stop it first, or give this one another data folder",
                pid=holder,
            ) from error
        self.previous = self._read()
        try:
            self.write(epoch=self.previous.epoch, state=self.previous.state)
        except OSError as error:
            self.release()
            raise LogUnavailable(f"{self._path} cannot be written: {error.strerror}", hint="free some space") from error

    def _read(self) -> Note:
        try:
            return msgspec.json.decode(os.pread(self._descriptor, 4096, 0), type=Note)
        except msgspec.DecodeError:
            return Note()  # new, or torn by a power cut: it then says nothing

    def write(self, *, epoch: str, state: Literal["open", "closed"]) -> None:
        """Note this process, the log's epoch and state, durably."""
        text = msgspec.json.encode(Note(os.getpid(), epoch, state)) + b"\n"
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))
        os.fsync(self._descriptor)

    def release(self) -> None:
        """Let go. The side file stays: unlinking it would race with the next gateway."""
        os.close(self._descriptor)
