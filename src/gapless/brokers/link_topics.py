"""The link's topics that are for every client of the broker, beside what the map says."""

from __future__ import annotations

from gapless.auth import Identity
from gapless.brokers.names import name_of
from gapless.link import LinkOptions


def link_filters(link: LinkOptions | None, identity: Identity, *, heartbeat: bool) -> tuple[str, ...]:
    """What it may hear: the answers to its own requests for history, and the heartbeat where that is allowed."""
    if link is None or link.history_topic is None:
        return ()
    found = []
    name = name_of(identity)
    if name and link.history_replies.endswith("/#"):
        found.append(f"{link.history_replies[:-2]}/{name}/#")
    if heartbeat and link.heartbeat_topic is not None:
        found.append(link.heartbeat_topic)
    return tuple(found)


def link_topics(link: LinkOptions | None) -> tuple[str, ...]:
    """Where it may publish: requests for history, which carry its token."""
    return () if link is None or link.history_topic is None else (link.history_topic,)
