"""Names for one life of a log."""

from __future__ import annotations

import secrets
import string

_CHARACTERS = string.ascii_lowercase + string.digits


def new_epoch() -> str:
    """Eight random lower-case letters and digits: two logs agree once in 2.8 * 10^12."""
    return "".join(secrets.choice(_CHARACTERS) for _ in range(8))
