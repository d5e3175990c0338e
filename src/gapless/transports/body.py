"""The body of a request, bounded in size and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gapless.errors import InvalidRequest, PayloadTooLarge
from gapless.transports.raw_http import RequestTimeout

PACE = 16 * 1024
"""Bytes per second that a client must send after the first seconds, to be read on."""

Message = MutableMapping[str, Any]


async def read_body(
    receive: Callable[[], Awaitable[Message]],
    *,
    first: Message | None = None,
    limit: int,
    timeout: float,
    grow: Callable[[int], None] = lambda size: None,
) -> bytes:
    """The whole body of an ASGI request.

    Args:
        first: the first message, where it was received already.
        limit: most bytes; no more are ever held.
        timeout: seconds within which it must come, and one more for each 16 KiB that came.
        grow: told the size of each piece before it is kept; may raise to refuse it.

    Raises:
        PayloadTooLarge: it has more than `limit` bytes.
        RequestTimeout: it did not come in time.
        InvalidRequest: the client went away in the middle of it.
    """
    loop = asyncio.get_running_loop()
    chunks: list[bytes] = []
    size = 0
    start = loop.time()
    try:
        async with asyncio.timeout(timeout) as time:
            message = await receive() if first is None else first
            while True:
                if message["type"] == "http.disconnect":
                    raise InvalidRequest("the connection was closed within the body")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise too_large(size, limit)
                grow(len(chunk))
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
                time.reschedule(start + timeout + size / PACE)
                message = await receive()
    except TimeoutError as error:
        raise RequestTimeout(
            f"the body did not come in time, {size} bytes of it did", hint="send it faster, or less", size=size
        ) from error


def too_large(size: int, limit: int) -> PayloadTooLarge:
    """The error for a body over the limit."""
    return PayloadTooLarge(
        f"the body has {size} bytes or more, over the limit of {limit}",
        hint="send fewer events at once, or raise http.body_bytes",
        size=size,
        limit=limit,
    )
