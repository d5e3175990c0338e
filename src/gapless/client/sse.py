"""Hearing events over Server-Sent Events, with httpx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from gapless.client.event_stream import EventStreamDecoder, ServerSentEvent
from gapless.client.http import decode_answer, error_of, http_client
from gapless.client.model import (
    Alive,
    ClientEvent,
    ConnectionLost,
    Heard,
    Hole,
    Moved,
    Refused,
    Revoked,
    Subscribed,
    Target,
)
from gapless.errors import InvalidPayload

_SILENCE = 60.0
"""Seconds without a byte, not even a heartbeat comment, after which the stream counts as dead."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class SseConnection:
    """`GET /api/stream`. Flow control is TCP's: a slow caller is fed from the log later."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def listen(self, after: str | None) -> AsyncGenerator[Heard, None]:
        """See `Connection.listen`."""
        if not self._target.rooms:
            yield Subscribed(after)  # there is nothing to ask for
            await asyncio.Event().wait()
        parameters = {"rooms": ",".join(self._target.rooms)}
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = after
        async with (
            http_client(self._target.url, self._target.token, read_timeout=_SILENCE, tls=self._target.tls) as client,
            client.stream("GET", "/api/stream", params=parameters, headers=headers) as response,
        ):
            if not response.is_success:
                await response.aread()
                decode_answer(response)
            media_type = response.headers.get("content-type", "")
            if not media_type.startswith("text/event-stream"):
                raise Refused(f"/api/stream answered with {media_type or 'no type'}", hint="is this a Gapless gateway?")
            decoder = EventStreamDecoder()
            begun = after is not None
            if begun:
                yield Subscribed(after)
            async for chunk in response.aiter_bytes():
                try:
                    events = decoder.feed(chunk)
                except ValueError as error:
                    raise ConnectionLost(f"the event stream is broken: {error}") from error
                if not events:
                    yield Alive()
                for event in events:
                    signal = _signal_of(event)
                    if not begun and isinstance(signal, Moved | Hole):
                        begun = True
                        yield Subscribed(signal.position)
                    yield signal
        raise ConnectionLost("the server ended the event stream")


def _signal_of(event: ServerSentEvent) -> Moved | Hole | Alive | Revoked | ClientEvent:
    try:
        document = _decode(event.data)
        match event.event:
            case "gapless.position":
                return Moved(str(document["position"]))
            case "gapless.incomplete":
                return Hole(str(document["position"]))
            case "gapless.revoked":
                return Revoked(tuple(map(str, document["rooms"])))
            case "gapless.unauthorized":
                raise error_of(document, "the server ended the event stream")
            case name if name.startswith("gapless."):
                return Alive()  # of a later version, or of no use here
            case _:
                return ClientEvent.from_envelope(document)
    except (msgspec.DecodeError, KeyError, InvalidPayload) as error:
        raise ConnectionLost(f"the event stream holds what is not an event: {error}") from error
