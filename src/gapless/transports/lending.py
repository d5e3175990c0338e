"""What the connections have in common whose transport a fan-out borrows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from gapless.limits import FREE, Visit

SCOPE_KEY = "gapless.lent"
"""Under `extensions` in the ASGI scope: the connection itself."""


def peer_of(scope: Any) -> str | None:
    """Address and port at the other end of a connection, as the logs name it: a proxy's, where one is between."""
    raw = scope.get("extensions", {}).get(SCOPE_KEY)
    client = scope.get("client") if raw is None else raw.client
    return f"{client[0]}:{client[1]}" if client else None


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they stand in a message (RFC 9112 §5)."""
    return b"".join([b"%b: %b\r\n" % line for line in headers])


class WriterEvents(Protocol):
    """What the borrower of a transport is told, always from the event loop."""

    def writer_paused(self) -> None:
        """The socket's buffer is over its high-water mark: write no more live events."""

    def writer_resumed(self) -> None:
        """The buffer has drained."""

    def writer_lost(self) -> None:
        """The connection is gone; `write` must not be called any more."""


class Lending(asyncio.Protocol):
    """Tells its borrower what becomes of the transport. To be mixed into a protocol, before its other bases.

    Attributes:
        borrower: who is told; None while nobody borrows it.
        visit: what this connection counts as.
    """

    borrower: WriterEvents | None = None
    visit: Visit = FREE

    def pause_writing(self) -> None:
        """See asyncio."""
        super().pause_writing()
        if self.borrower is not None:
            self.borrower.writer_paused()

    def resume_writing(self) -> None:
        """See asyncio."""
        super().resume_writing()
        if self.borrower is not None:
            self.borrower.writer_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self.visit.leave()
        borrower, self.borrower = self.borrower, None
        if borrower is not None:
            borrower.writer_lost()
        super().connection_lost(exc)
