"""Clients. `Client` is the one for applications: it hears over whichever transport is alive, and publishes.

    async with Client("http://127.0.0.1:8080", token=…, store="app.sqlite") as rt:
        async for event in rt.subscribe("lead:123"):
            ...

`SyncClient` is the same without asyncio. Beside them are the pieces for one transport each, which the command
line and the demo use: a `Connection` is one life of one connection; `follow` makes a subscription of it that comes
back for ever and resumes from its cursor; a `Publisher` hands events to one door.
"""

from __future__ import annotations

from gapless.client.backoff import Backoff
from gapless.client.connect import TransportName, connection_to, publisher_to
from gapless.client.hybrid.bounds import Bounds
from gapless.client.hybrid.client import Client
from gapless.client.hybrid.errors import (
    Closed,
    NetworkError,
    NoAnswer,
    NotAGateway,
    NoTransport,
    Offline,
    OutboxFull,
    StorageFailed,
    StoreInUse,
    TokenFailed,
)
from gapless.client.hybrid.inbox import Gap
from gapless.client.hybrid.members import Presence
from gapless.client.hybrid.options import ClientOptions, EventOptions
from gapless.client.hybrid.outbox import OutboxBounds
from gapless.client.hybrid.presence import Member, Present
from gapless.client.hybrid.publication import Publication
from gapless.client.hybrid.status import ConnectionState, Failover, Status
from gapless.client.hybrid.store import MemoryStore, SqliteStore, Store
from gapless.client.hybrid.subscription import Subscription as EventStream
from gapless.client.hybrid.sync import SyncClient, SyncPresence, SyncSubscription
from gapless.client.model import (
    Alive,
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
    "Bounds",
    "Client",
    "ClientEvent",
    "ClientOptions",
    "Closed",
    "Connection",
    "ConnectionLost",
    "ConnectionState",
    "EventOptions",
    "EventStream",
    "Failover",
    "Gap",
    "Heard",
    "Hole",
    "Member",
    "MemoryStore",
    "Moved",
    "NetworkError",
    "NoAnswer",
    "NoTransport",
    "NotAGateway",
    "Offline",
    "OutboxBounds",
    "OutboxFull",
    "Outgoing",
    "Presence",
    "Present",
    "Publication",
    "Published",
    "Publisher",
    "Reconnecting",
    "Refused",
    "RetryingPublisher",
    "Revoked",
    "Signal",
    "SqliteStore",
    "Status",
    "StorageFailed",
    "Store",
    "StoreInUse",
    "Subscribed",
    "Subscription",
    "SyncClient",
    "SyncPresence",
    "SyncSubscription",
    "Target",
    "TokenFailed",
    "TransportName",
    "connection_to",
    "follow",
    "publisher_to",
]
