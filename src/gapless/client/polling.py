"""Hearing events by long polling, with httpx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec

from gapless.client.http import decode_answer, http_client
from gapless.client.model import ClientEvent, Heard, Hole, Moved, Refused, Subscribed, Target

_WAIT = 25
"""Seconds one poll may wait: below the 30 s after which many proxies give up."""

_LIMIT = 500


class PollConnection:
    """`GET /api/events`. One request at a time; each begins at the cursor the last one gave."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def listen(self, after: str | None) -> AsyncGenerator[Heard, None]:
        """See `Connection.listen`."""
        if not self._target.rooms:
            yield Subscribed(after)  # there is nothing to ask for
            await asyncio.Event().wait()
        parameters = {"rooms": ",".join(self._target.rooms), "limit": str(_LIMIT)}
        position, wait = after, 0  # the first answer comes at once, and says where it begins
        target = self._target
        async with http_client(target.url, target.token, read_timeout=_WAIT + 15.0, tls=target.tls) as client:
            while True:
                query = parameters | ({"wait": str(wait)} if wait else {})
                if position is not None:
                    query["after"] = position
                answer = decode_answer(await client.get("/api/events", params=query))
                try:
                    page = msgspec.convert(answer, _Page)
                except msgspec.ValidationError as error:
                    raise Refused(f"/api/events answered in another form: {error}") from error
                if not wait:
                    yield Subscribed(position or page.position)
                if not page.complete:
                    yield Hole(page.position if not page.events else None)
                for envelope in page.events:
                    yield ClientEvent.from_envelope(envelope)
                yield Moved(page.position)
                position, wait = page.position, _WAIT


class _Page(msgspec.Struct):
    position: str
    events: list[dict[str, object]]
    complete: bool
