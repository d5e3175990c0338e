"""Tokens, keys and clocks for the tests of the gate."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt

SECRET = "of-thirty-two-bytes-and-a-few-more"
NOW = 1_800_000_000.0


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def claims(**more: Any) -> dict[str, Any]:
    """Those of user 7, for a minute; a value of None leaves a claim out."""
    found = {"sub": "7", "iat": NOW, "exp": NOW + 60, **more}
    return {name: value for name, value in found.items() if value is not None}


def token(key: Any = SECRET, algorithm: str = "HS256", *, headers: dict[str, Any] | None = None, **more: Any) -> str:
    """A signed token."""
    return jwt.encode(claims(**more), key, algorithm, headers=headers)


def forged(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    """A token of any header, with any signature."""
    parts = (json.dumps(header).encode(), json.dumps(body).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
