"""API keys of trusted back ends: random, shown once, kept as hashes in a file that is read again when it changes.

A key has 256 random bits, so a plain SHA-256 is enough to keep it (docs/decisions/): there is nothing to
guess from a list, which is what slow hashes are for.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import tempfile
import time as _time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gapless.auth.gate import Identity
from gapless.errors import ConfigError, Unauthorized
from gapless.event import format_time

PREFIX = "gk_"
"""What every key begins with: so that a leaked one is found, and none is taken for a token."""

_FORM = re.compile(r"gk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE_BYTES = 4 << 20


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key, without the key itself.

    Attributes:
        id: part of the key, in the clear.
        hash: SHA-256 of the whole key, in hexadecimal digits.
        roles: none: it may do all that the rule `service` allows; else only what these may.
    """

    id: str
    name: str
    hash: str
    roles: tuple[str, ...] = ()
    created: str = ""

    def __repr__(self) -> str:
        return f"ApiKey(id={self.id!r}, name={self.name!r}, roles={self.roles})"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[ApiKey, ...] = ()


class ApiKeys:
    """The keys that a file holds.

    Args:
        path: a file that is not there holds none, and may come later.

    Raises:
        ConfigError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._known: dict[str, tuple[ApiKey, Identity]] = {}
        self.problem = ""
        self._read()

    def identify(self, key: str) -> Identity:
        """Whose key it is.

        Raises:
            Unauthorized: nobody's.
        """
        match = _FORM.fullmatch(key)
        known = self._known.get(match[1]) if match is not None else None
        # The id only finds the entry; the hashes are compared in a time that says nothing of them.
        if known is None or not hmac.compare_digest(known[0].hash, hash_of(key)):
            raise Unauthorized("there is no such API key", hint="make one with: gapless key create", reason="key")
        return known[1]

    @property
    def names(self) -> frozenset[str]:
        """Names of the keys that are valid now."""
        return frozenset(key.name for key, _ in self._known.values())

    def holds(self, identity: Identity) -> bool:
        """Whether the very key that an identity came with is still there, with the same roles."""
        return any(known.claims is identity.claims for _, known in self._known.values())

    def reload(self) -> bool:
        """Read the file again if it changed. One that cannot be read leaves the keys as they were.

        Returns:
            Whether the keys are others now.
        """
        if self._stamp == _stamp(self._path):
            return False
        before = {key for key, _ in self._known.values()}
        try:
            self._read()
        except ConfigError as error:
            self.problem = error.message
            self._stamp = _stamp(self._path)
            return False
        return {key for key, _ in self._known.values()} != before

    def _read(self) -> None:
        stamp = _stamp(self._path)
        keys = read_keys(self._path)
        known = self._known
        self._known = {
            key.id: known[key.id] if key.id in known and known[key.id][0] == key else (key, _identity(key))
            for key in keys
        }
        self._stamp = stamp
        self.problem = ""


def _identity(key: ApiKey) -> Identity:
    # The claims are an object of its own: by it `holds` knows the key again, however often it was replaced.
    return Identity(service=True, roles=frozenset(key.roles), claims={}, token_id=key.name)


def hash_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The entries of a file; none where there is no file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise ConfigError(f"{path} is too large for a file of API keys", hint="name the right file")
        return msgspec.json.decode(path.read_bytes(), type=_File).keys
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigError(f"cannot read the API keys in {path}: {error.strerror}", hint="check the path") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} holds no API keys: {error}", hint="made by: gapless key create") from error


def create_key(path: Path, name: str, roles: Sequence[str] = ()) -> str:
    """Add a key to a file.

    Returns:
        The key, which is nowhere else.

    Raises:
        ConfigError: the name is taken, or no name; or the file cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a key", hint="letters, digits, '.', '_' and '-', up to 64")
    key_id = secrets.token_hex(6)
    key = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    created = format_time(int(_time.time() * 1000))
    with _changing(path):
        keys = read_keys(path)
        if any(each.name == name for each in keys):
            raise ConfigError(f"there is a key of the name {name!r}", hint="revoke it first, or take another name")
        _write(path, (*keys, ApiKey(key_id, name, hash_of(key), tuple(roles), created)))
    return key


def remove_key(path: Path, name: str) -> ApiKey:
    """Take a key out of a file, by its name or id. A running gateway ends its connections.

    Raises:
        ConfigError: there is none; or the file cannot be read or written.
    """
    with _changing(path):
        keys = read_keys(path)
        found = next((key for key in keys if name in (key.name, key.id)), None)
        if found is None:
            known = ", ".join(key.name for key in keys) or "none"
            raise ConfigError(f"there is no key {name!r} in {path}", hint=f"keys: {known}")
        _write(path, tuple(key for key in keys if key is not found))
    return found


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One at a time changes the file; readers see it whole, before or after."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="check the folder's permissions") from error


def _write(path: Path, keys: tuple[ApiKey, ...]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # readable by its owner alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(_File(keys)), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
