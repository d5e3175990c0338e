"""One transport, one door at a time: for the command line, the demo and tests. Applications want `Client`.

A `Connection` is one life of one connection; `follow` makes a subscription of it that comes back for ever and
resumes from its cursor; a `Publisher` hands events to one door.
"""

from __future__ import annotations

from gapless.client.backoff import Backoff
from gapless.client.connect import connection_to, publisher_to
from gapless.client.model import (
    Alive,
    Connection,
    ConnectionLost,
    Heard,
    Hole,
    Moved,
    Outgoing,
    Publisher,
    Reconnecting,
    Refused,
    Revoked,
    Signal,
    Subscribed,
    Target,
)
from gapless.client.publishing import RetryingPublisher
from gapless.client.subscription import Subscription, follow

__all__ = [
    "Alive",
    "Backoff",
    "Connection",
    "ConnectionLost",
    "Heard",
    "Hole",
    "Moved",
    "Outgoing",
    "Publisher",
    "Reconnecting",
    "Refused",
    "RetryingPublisher",
    "Revoked",
    "Signal",
    "Subscribed",
    "Subscription",
    "Target",
    "connection_to",
    "follow",
    "publisher_to",
]
