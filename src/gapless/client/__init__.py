"""Minimal clients: one transport each, for the command line and the demo.

A `Connection` is one life of one connection; `follow` makes a subscription of it that comes
back for ever and resumes from its cursor. A `Publisher` hands events to one door.
"""

from __future__ import annotations

from gapless.client.backoff import Backoff
from gapless.client.connect import connection_to, publisher_to
from gapless.client.model import (
    ClientEvent,
    Connection,
    ConnectionLost,
    Heard,
    Hole,
    Moved,
    Outgoing,
    Published,
    Publisher,
    Reconnecting,
    Refused,
    Signal,
    Subscribed,
    Target,
)
from gapless.client.publishing import RetryingPublisher
from gapless.client.subscription import Subscription, follow

__all__ = [
    "Backoff",
    "ClientEvent",
    "Connection",
    "ConnectionLost",
    "Heard",
    "Hole",
    "Moved",
    "Outgoing",
    "Published",
    "Publisher",
    "Reconnecting",
    "Refused",
    "RetryingPublisher",
    "Signal",
    "Subscribed",
    "Subscription",
    "Target",
    "connection_to",
    "follow",
    "publisher_to",
]
