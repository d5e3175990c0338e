"""Clients. `Client` is the one for applications: it hears over whichever transport is alive, and publishes.

    async with Client("http://127.0.0.1:8080", token=…, store="app.sqlite") as rt:
        async for event in rt.subscribe("lead:123"):
            ...

`SyncClient` is the same without asyncio. `gapless.client.single` has the pieces for one transport each.
"""

from __future__ import annotations

from gapless.client.connect import TransportName
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
from gapless.client.hybrid.subscription import Subscription
from gapless.client.hybrid.sync import SyncClient, SyncPresence, SyncSubscription
from gapless.client.model import ClientEvent, Published

__all__ = [
    "Bounds",
    "Client",
    "ClientEvent",
    "ClientOptions",
    "Closed",
    "ConnectionState",
    "EventOptions",
    "Failover",
    "Gap",
    "Member",
    "MemoryStore",
    "NetworkError",
    "NoAnswer",
    "NoTransport",
    "NotAGateway",
    "Offline",
    "OutboxBounds",
    "OutboxFull",
    "Presence",
    "Present",
    "Publication",
    "Published",
    "SqliteStore",
    "Status",
    "StorageFailed",
    "Store",
    "StoreInUse",
    "Subscription",
    "SyncClient",
    "SyncPresence",
    "SyncSubscription",
    "TokenFailed",
    "TransportName",
]
