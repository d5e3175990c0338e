"""Knowing a QoS 1 publish again that a client sends a second time (MQTT 5 §4.4).

A publish with an id of its own is recognised by the log. One without would become a second
event when its PUBACK was lost: so the edge remembers, per client, by which packet identifier
its latest publishes came. A client resends only what it sent last, in order and flagged DUP,
so few are kept; an identifier that is used again without DUP is a new message.
"""

from __future__ import annotations

from collections import OrderedDict

from gapless.event import Record
from gapless.transports.mqtt.slots import Slot

_CLIENTS = 50_000


class RecentPublishes:
    """The latest QoS 1 publishes of each client, by packet identifier.

    Args:
        per_client: how many of one client are kept: as many as it may have unacknowledged.
    """

    def __init__(self, per_client: int) -> None:
        self._per_client = per_client
        self._clients: OrderedDict[str, dict[int, tuple[int, Slot | None]]] = OrderedDict()

    def learn(self, record: Record) -> None:
        """An event of the log, at the start of the edge; call in log order."""
        origin, mqtt = record.event.origin, record.event.mqtt
        if origin.door == "mqtt" and origin.client and origin.packet_id and mqtt is not None:
            payload = record.event.mqtt_payload or b""
            self.remember(origin.client, origin.packet_id, hash((record.event.topic, payload)), None)

    def remember(self, client_id: str, packet_id: int, fingerprint: int, slot: Slot | None) -> None:
        """A publish, by the hash of its topic and payload; the slot of one that was just handed to the log. Hot."""
        recent = self._clients.get(client_id)
        if recent is None:
            recent = self._clients[client_id] = {}
            if len(self._clients) > _CLIENTS:
                self._clients.popitem(last=False)
        else:
            recent.pop(packet_id, None)
        recent[packet_id] = (fingerprint, slot)
        if len(recent) > self._per_client:
            del recent[next(iter(recent))]

    def find(self, client_id: str, packet_id: int, fingerprint: int) -> tuple[bool, Slot | None]:
        """Whether this very message came before; its slot, unless it came before the start."""
        entry = self._clients.get(client_id, {}).get(packet_id)
        if entry is None or entry[0] != fingerprint:
            return False, None
        slot = entry[1]
        if slot is not None and slot.failed:
            return False, None  # it never got into the log
        return True, slot

    def new_session(self, client_id: str) -> None:
        """The client starts anew: only what its last connection sent may come again."""
        self._clients.pop(client_id, None)
