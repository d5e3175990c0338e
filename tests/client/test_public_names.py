"""What applications may import."""

from __future__ import annotations

import gapless.client
from gapless.client import single


def test_the_two_lists_are_whole_and_apart() -> None:
    for module in (gapless.client, single):
        assert len(set(module.__all__)) == len(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
    both = set(gapless.client.__all__) & set(single.__all__)
    assert both == {"Subscription"}  # of the client, and of `follow`


def test_an_application_finds_what_it_needs_in_one_place() -> None:
    assert set(gapless.client.__all__) == {
        *("Client", "SyncClient", "ClientOptions", "EventOptions", "Bounds", "OutboxBounds", "TransportName"),
        *("Subscription", "SyncSubscription", "ClientEvent", "Gap", "Publication", "Published"),
        *("Presence", "SyncPresence", "Present", "Member", "Status", "ConnectionState", "Failover"),
        *("Store", "MemoryStore", "SqliteStore"),
        *("Closed", "NetworkError", "NoAnswer", "NoTransport", "NotAGateway", "Offline", "OutboxFull"),
        *("StorageFailed", "StoreInUse", "TokenFailed"),
    }
