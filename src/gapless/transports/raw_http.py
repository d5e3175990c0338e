"""An HTTP connection's transport, lent to a stream of events so that one encoded chunk serves every client.

uvicorn keeps the protocol. While an answer of unknown length is open and nothing of it waits,
a part of it may go straight to the socket as a finished chunk (RFC 9112 §7.1).
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gapless.transports.raw_websocket import SCOPE_KEY, WriterEvents


def chunk(data: bytes) -> bytes:
    """One chunk of a body in chunked transfer coding (RFC 9112 §7.1); `data` is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class LendingHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol, whose transport can be borrowed.

    It is found in the ASGI scope as `scope["extensions"][SCOPE_KEY]`. Pass this class to
    uvicorn as `http=`.
    """

    borrower: WriterEvents | None = None

    def on_headers_complete(self) -> None:
        super().on_headers_complete()  # the ASGI task it makes has not run yet
        scope: Any = self.scope
        scope.setdefault("extensions", {})[SCOPE_KEY] = self

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.borrower is not None:
            self.borrower.writer_paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.borrower is not None:
            self.borrower.writer_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        borrower, self.borrower = self.borrower, None
        if borrower is not None:
            borrower.writer_lost()
        super().connection_lost(exc)
