"""Publishing through the REST door, with httpx."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Self

import msgspec

from gapless.client.http import decode_answer, make_client, wire_errors
from gapless.client.model import Outgoing, Published, Refused

_JSON = {"Content-Type": "application/json"}
_encode = msgspec.json.Encoder().encode


class RestPublisher:
    """`POST /api/events`: one request per call of `publish`, all of its events or none."""

    def __init__(self, url: str, token: str | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._client = make_client(url, token, read_timeout=60.0, tls=tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def publish(self, events: Sequence[Outgoing]) -> list[Published]:
        """See `Publisher.publish`."""
        body = _encode([event.to_wire() for event in events])
        with wire_errors(self._url):
            response = await self._client.post("/api/events", content=body, headers=_JSON)
        try:
            return msgspec.convert(decode_answer(response)["events"], list[Published])
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise Refused(f"/api/events answered in another form: {error}") from error
