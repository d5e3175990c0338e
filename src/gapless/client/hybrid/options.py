"""What a client, and an event to publish, may be told beside what they cannot be without."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

from gapless.client.connect import TransportName
from gapless.client.hybrid.bounds import Bounds
from gapless.client.hybrid.outbox import OutboxBounds
from gapless.client.hybrid.shell import Token
from gapless.client.hybrid.store import Store
from gapless.client.model import Published
from gapless.errors import GaplessError

OnError = Callable[[GaplessError, str | None], None]
OnSent = Callable[[str, Published | GaplessError], None]


class ClientOptions(TypedDict, total=False):
    """See `Client`."""

    token: Token
    store: Store | Path | str | None
    user: str | None
    after: str
    transports: Sequence[TransportName]
    outbox: OutboxBounds | None
    bounds: Bounds | None
    mqtt_url: str | None
    tls: ssl.SSLContext | None
    on_error: OnError | None
    on_sent: OnSent | None


class EventOptions(TypedDict, total=False):
    """Of an event that is published. None, everywhere, is as if it were not given.

    Attributes:
        topic: MQTT topic, in place of the type or besides it.
        id: up to 128 characters; default: a new one. The same id again is no second event.
        qos, retain: default: what the topic map says.
        expires_in: seconds after which it is not delivered any more.
        user_id: who caused it; believed of a service alone.
    """

    topic: str | None
    id: str | None
    qos: int | None
    retain: bool | None
    expires_in: float | None
    user_id: str | None
