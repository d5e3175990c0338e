"""Reading server-sent events: a pure decoder (HTML, "Server-sent events", §9.2.6)."""

from __future__ import annotations

import re

import msgspec

_LINE_END = re.compile(rb"\r\n|\n|\r")


class ServerSentEvent(msgspec.Struct, frozen=True):
    """One dispatched event. `last_event_id` is the last `id:` so far, as `EventSource` has it."""

    event: str
    data: str
    last_event_id: str


class EventStreamDecoder:
    """Feed bytes, get events; lines end with CR, LF or CRLF, and with nothing else.

    Args:
        limit: longest event that is taken, in bytes.

    Attributes:
        last_event_id: what a client sends as `Last-Event-ID` when it comes back.
        retry_ms: the server's hint for the delay before reconnecting; None where it gave none.
    """

    def __init__(self, *, limit: int = 16 << 20) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self._limit = limit
        self._buffer = b""
        self._started = False
        self._event = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take bytes as they come from the network.

        Raises:
            ValueError: one event is over the limit, or the stream is not UTF-8.
        """
        buffer = self._buffer + chunk
        if not self._started:
            if len(buffer) < 3 and b"\xef\xbb\xbf".startswith(buffer):
                self._buffer = buffer  # perhaps the beginning of a byte order mark
                return []
            self._started = True
            buffer = buffer.removeprefix(b"\xef\xbb\xbf")
        events: list[ServerSentEvent] = []
        start = 0
        for match in _LINE_END.finditer(buffer):
            if match.group() == b"\r" and match.end() == len(buffer):
                break  # the LF of a CRLF may still come
            event = self._line(buffer[start : match.start()].decode())
            start = match.end()
            if event is not None:
                events.append(event)
        self._buffer = buffer[start:]
        if self._size + len(self._buffer) > self._limit:
            raise ValueError(f"a server-sent event is larger than {self._limit} bytes")
        return events

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            return None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
                self._size += len(value)
            case "id" if "\0" not in value:
                self.last_event_id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_ms = int(value)
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        data, name = self._data, self._event
        self._data, self._event, self._size = [], "", 0
        if not data:
            return None
        return ServerSentEvent(name or "message", "\n".join(data), self.last_event_id)
