"""Counters and state of a link, for /metrics, /readyz and people."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

import msgspec

from gapless.errors import GaplessError

logger = logging.getLogger("gapless.link")


class LinkStats(msgspec.Struct):
    """Counters since the start; they only rise.

    Attributes:
        connections: CONNACKs that said yes.
        failures: attempts that failed, and connections that were lost.
        received: PUBLISH packets from the broker.
        accepted: new events among them.
        duplicates: known events among them: redelivered, retained before, or our own coming back.
        echoes: our own messages among them that were known without asking the log.
        rejected: bad ones among them; acknowledged, as they can never be accepted.
        dropped_qos0: QoS 0 messages that the log could not take.
        published: PUBLISH packets sent, those sent again among them.
        resent: those sent again.
        acknowledged: publications that the broker took over.
        refused: publications that the broker refused for good.
        skipped: events not published by the filter, or because they came from this broker.
        expired: events whose time had run out before they could be published.
        too_large: events over the broker's maximum packet size.
        missed: events that retention removed before they could be published, while no gateway had this link.
        ephemeral: ephemeral events sent.
        ephemeral_dropped: ephemeral events not sent, as the broker was away or slow.
        history_requests: clients of the broker that asked for what they missed.
        history_events: events that they were sent.
        history_refused: requests answered with an error.
        history_dropped: requests not answered: too many at once, no topic to answer to, or no room for an answer.
    """

    connections: int = 0
    failures: int = 0
    received: int = 0
    accepted: int = 0
    duplicates: int = 0
    echoes: int = 0
    rejected: int = 0
    dropped_qos0: int = 0
    published: int = 0
    resent: int = 0
    acknowledged: int = 0
    refused: int = 0
    skipped: int = 0
    expired: int = 0
    too_large: int = 0
    missed: int = 0
    ephemeral: int = 0
    ephemeral_dropped: int = 0
    history_requests: int = 0
    history_events: int = 0
    history_refused: int = 0
    history_dropped: int = 0


class LinkState(msgspec.Struct, frozen=True, kw_only=True):
    """How a link is doing now.

    Attributes:
        status: `connecting` also while it waits for the next attempt after a failure;
            `disconnected` before the start and after the stop.
        version: `5` or `3.1.1` while connected.
        error: why the last connection failed or ended; while connected: a subscription that
            the broker refused; else empty.
        hint: how to mend that.
        attempts: failed attempts since the last stable connection.
    """

    status: Literal["disconnected", "connecting", "connected"] = "disconnected"
    version: str | None = None
    error: str = ""
    hint: str = ""
    attempts: int = 0


class Complaints:
    """Warnings about messages, at most one of a kind every `seconds`; the others are counted.

    Texts must hold no payload.
    """

    def __init__(self, link: str, *, seconds: float = 10.0, now: Callable[[], float] | None = None) -> None:
        self._link = link
        self._seconds = seconds
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._last: dict[str, float] = {}
        self._silent: dict[str, int] = {}

    def warn(self, kind: str, topic: str, error: GaplessError) -> None:
        """Log that a message on `topic` was not taken."""
        now = self._now()
        last = self._last.get(kind)
        if last is not None and now - last < self._seconds:
            self._silent[kind] = self._silent.get(kind, 0) + 1
            return
        self._last[kind] = now
        more = self._silent.pop(kind, 0)
        since = f" (and {more} more since the last warning)" if more else ""
        logger.warning("link %s: %s on topic %.200r: %s%s", self._link, kind, topic, error.explained, since)
