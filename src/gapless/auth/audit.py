"""The audit log: who came in, who was refused, what was denied and taken back. Logger `gapless.audit`.

Every line has the field `event`. None holds a payload, a token or a claim beside user and roles.
"""

from __future__ import annotations

import logging
import time as _time
from collections import Counter
from collections.abc import Callable
from typing import Any

from gapless.auth.gate import Credentials, Identity

logger = logging.getLogger("gapless.audit")

BURST = 10
"""Equal refusals or denials that are logged one by one within `WINDOW`; the others are counted."""

WINDOW = 10.0
"""Seconds."""

MAX_SUBJECTS = 10_000
"""Whose repetitions are told apart; with more at a time all are counted as one."""

_TEXT = 200


class Audit:
    """Writes the audit log, and counts for `/metrics`.

    Args:
        clock: seconds that never go back.

    Attributes:
        counts: of (event, door, kind): refused and denied.
        suppressed: lines not written because they repeated others.
    """

    def __init__(self, clock: Callable[[], float] = _time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._seen: Counter[tuple[str, str, str]] = Counter()
        self._held: Counter[tuple[str, str, str]] = Counter()
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.suppressed = 0

    def refused(self, credentials: Credentials, reason: str) -> None:
        """A client was not let in."""
        self.counts["refused", credentials.door, reason] += 1
        if self._may_write("refused", credentials.door, credentials.address or ""):
            self._write("refused", credentials, reason=reason, client=credentials.client_id)

    def denied(self, identity: Identity, kind: str, subject: str) -> None:
        """An identity was not allowed something.

        Args:
            kind: `room`, `filter`, `publish`, `will` (of an author whose access was taken back) or `operate`.
            subject: the room, filter, topic or operation.
        """
        door = identity.source.door
        self.counts["denied", door, kind] += 1
        if self._may_write("denied", door, identity.user_id or identity.source.address or ""):
            self.note("denied", identity, kind=kind, subject=subject)

    def note(self, event: str, identity: Identity, **fields: Any) -> None:
        """Something about an identity: `connected`, `renewed`, `expired`, `revoked`."""
        who = {"user": identity.user_id, "roles": sorted(identity.roles) or None}
        if identity.service:
            who["service"] = identity.token_id
        self._write(event, identity.source, **who, **fields)

    def tell(self, event: str, **fields: Any) -> None:
        """Something about the gateway: its configuration, a revocation."""
        self._write(event, None, **fields)

    def flush(self) -> None:
        """Begin a new window, and say how many repetitions the one before held back."""
        for (event, door, whom), count in self._held.items():
            self._write("suppressed", None, of=event, door=door, whom=whom, count=count)
        self._seen.clear()
        self._held.clear()
        self._began = self._clock()

    def _may_write(self, *subject: str) -> bool:
        if self._clock() - self._began >= WINDOW:
            self.flush()
        key = (subject[0], subject[1], subject[2][:_TEXT])
        if key not in self._seen and len(self._seen) >= MAX_SUBJECTS:
            key = (subject[0], "", "others")
        self._seen[key] += 1
        if self._seen[key] <= BURST:
            return True
        self._held[key] += 1
        self.suppressed += 1
        return False

    def _write(self, event: str, source: Any, **fields: Any) -> None:
        # A poll is a connection of one request: lines for each are for who looks for something.
        level = logging.DEBUG if event == "connected" and source is not None and source.door == "poll" else logging.INFO
        if not logger.isEnabledFor(level):
            return
        if source is not None:
            fields |= {"door": source.door, "address": source.address, "connection": source.connection}
        kept = {name: _short(value) for name, value in fields.items() if value is not None and value != ""}
        logger.log(level, "%s", event, extra={"event": event, **kept})


def _short(value: Any) -> Any:
    return value[:_TEXT] if isinstance(value, str) else value
