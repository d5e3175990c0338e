"""An event on its way to the gateway."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Generator
from typing import Any

import msgspec

from gapless.client.hybrid.options import EventOptions
from gapless.client.hybrid.process import Later
from gapless.client.model import Published
from gapless.errors import InvalidRequest
from gapless.event import format_time

_encode = msgspec.json.Encoder().encode


class Publication:
    """A publication that was accepted. Await it for the gateway's answer, as often as you like.

    Cancelling who waits does not call it back.

    Attributes:
        id: the event's.
        is_stored: whether it is in the client's store, and so is sent even if this process is killed now.
    """

    def __init__(self, identity: str, answer: Later, *, is_stored: bool) -> None:
        self.id = identity
        self.is_stored = is_stored
        self._answer = answer

    def __await__(self) -> Generator[Any, None, Published]:
        return outcome_of(self._answer).__await__()


async def outcome_of(later: Later) -> Any:
    """The outcome of a `Later` on the event loop."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    later.then(lambda _: None if future.done() else future.set_result(None))
    await future
    if later.error is not None:
        raise later.error
    return later.value


def encode_event(kind: str | None, data: Any, options: EventOptions, *, new_id: Callable[[], str]) -> tuple[str, bytes]:
    """Its id, and the JSON that is sent.

    Raises:
        InvalidRequest: it has neither a type nor a topic, or its data is not JSON.
    """
    fields: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if not kind and not fields.get("topic"):
        raise InvalidRequest("an event needs a type or a topic", hint='publish("lead:updated", data)')
    identity: str = fields.get("id") or new_id()
    fields |= {"id": identity, "time": format_time(int(time.time() * 1000))} | ({"type": kind} if kind else {})
    if "user_id" in fields:
        fields["userId"] = fields.pop("user_id")
    if isinstance(data, bytes | bytearray | memoryview):
        fields["data_base64"] = base64.b64encode(data).decode()
    else:
        fields["data"] = data
    try:
        return identity, _encode(fields)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"the data is not JSON: {error}") from error
