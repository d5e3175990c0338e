"""Tells retained messages that the broker repeats from news (MQTT 5 §3.3.1.3, §3.8.3.1)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

from gapless.event import Record
from gapless.hub import Hub
from gapless.mqtt import ProtocolVersion, Publish

_MOST = 10_000


def digest_of(packet: Publish) -> bytes:
    """16 bytes that tell a message from others: of its topic and payload."""
    return hashlib.blake2b(packet.topic.encode() + b"\0" + packet.payload, digest_size=16).digest()


class Replays:
    """A broker sends what it has retained at each SUBSCRIBE in 3.1.1, and for a new session in MQTT 5.

    A message with an id is known again by the log. One without would become a new event each
    time: it is compared with what we hold for its topic.

    Args:
        owed: whether a record is still on its way to this broker.
    """

    def __init__(self, hub: Hub, owed: Callable[[Record], bool]) -> None:
        self._hub = hub
        self._owed = owed
        self._expected = False
        self._once = False
        self._seen: set[str] = set()
        self._last: OrderedDict[str, bytes] = OrderedDict()

    def connected(self, version: ProtocolVersion, *, fresh: bool) -> None:
        """A connection begins; `fresh`: the broker has no session, or other subscriptions, of ours."""
        # In MQTT 5 we ask for the publisher's own retain flag, so it does not tell a replay;
        # but a topic is replayed once, and only to a new subscription.
        self._once = version is ProtocolVersion.V5
        self._expected = fresh or not self._once
        self._seen.clear()

    def is_replay(self, packet: Publish, event_id: str | None) -> bool:
        """Whether the message is one that we had before, or that we are about to overwrite."""
        if not (packet.retain and self._expected):
            return False
        topic = packet.topic
        if self._once:
            if topic in self._seen or len(self._seen) >= _MOST:
                return False
            self._seen.add(topic)
        held = self._hub.retained.get(topic)
        if held is not None and (
            held.event.id == event_id or held.event.mqtt_payload == packet.payload or self._owed(held)
        ):
            return True
        return event_id is None and self._last.get(topic) == digest_of(packet)

    def forget(self, packet: Publish) -> None:
        """A message is not in the log: it is to come again."""
        if packet.topic in self._last and self._last[packet.topic] == digest_of(packet):
            del self._last[packet.topic]

    def note(self, packet: Publish) -> None:
        """Remember a message without an id, live or not: 3.1.1 does not tell that it is retained."""
        if self._once:
            return
        self._last[packet.topic] = digest_of(packet)
        self._last.move_to_end(packet.topic)
        while len(self._last) > _MOST:
            self._last.popitem(last=False)
