"""Ids that nobody can guess, many at a time."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode

_BYTES = 15
_drawn = b""


def secret_text() -> str:
    """120 random bits from the system, as 20 letters, digits, `-` and `_`.

    They are drawn for 256 ids at once: each call to the system lets go of the interpreter, and
    waits for its turn again beside the log's threads.
    """
    global _drawn
    if not _drawn:
        _drawn = os.urandom(_BYTES * 256)
    text, _drawn = _drawn[:_BYTES], _drawn[_BYTES:]
    return urlsafe_b64encode(text).decode()
