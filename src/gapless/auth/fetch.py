"""Requests to other servers, bounded in time and size: key sets, the application's decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx


class FetchFailed(Exception):
    """The other server did not answer as it should."""


class Fetched(NamedTuple):
    """An answer with status 200."""

    body: bytes
    headers: Mapping[str, str]


async def fetch(client: httpx.AsyncClient, method: str, url: str, *, limit: int, **request: Any) -> Fetched:
    """Send a request and read the whole answer.

    Args:
        limit: most bytes of the answer.
        request: further arguments of httpx.

    Raises:
        FetchFailed: no answer, another status than 200, or too long an answer.
    """
    try:
        async with client.stream(method, url, **request) as response:
            if response.status_code != 200:
                raise FetchFailed(f"it answered with status {response.status_code}")
            parts: list[bytes] = []
            size = 0
            async for part in response.aiter_bytes():
                size += len(part)
                if size > limit:
                    raise FetchFailed(f"its answer has over {limit} bytes")
                parts.append(part)
            return Fetched(b"".join(parts), response.headers)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise FetchFailed(str(error) or type(error).__name__) from error
