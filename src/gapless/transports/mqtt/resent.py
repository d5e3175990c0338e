"""Knowing a QoS 1 publish again that a client sends a second time (MQTT 5 §4.4).

A publish with an id of its own is recognised by the log. One without would become a second
event when its PUBACK was lost: so the edge remembers, per client, by which packet identifier
its latest publishes came. A client resends only what it sent last, in order and flagged DUP,
so few are kept; an identifier that is used again without DUP is a new message.
"""

from __future__ import annotations

from asyncio import Future
from collections import OrderedDict

from gapless.event import Record
from gapless.ingress import Accepted

_CLIENTS = 50_000


class RecentPublishes:
    """The latest QoS 1 publishes of each client, by packet identifier.

    Args:
        per_client: how many of one client are kept: as many as it may have unacknowledged.
    """

    def __init__(self, per_client: int) -> None:
        self._per_client = per_client
        self._clients: OrderedDict[str, dict[int, tuple[int, Future[Accepted] | None]]] = OrderedDict()

    def learn(self, record: Record) -> None:
        """An event of the log, at the start of the edge; call in log order."""
        origin, mqtt = record.event.origin, record.event.mqtt
        if origin.door == "mqtt" and origin.client and origin.packet_id and mqtt is not None:
            payload = record.event.mqtt_payload or b""
            self._keep(origin.client, origin.packet_id, (hash((record.event.topic, payload)), None))

    def remember(self, client_id: str, packet_id: int, *, topic: str, payload: bytes, future: Future[Accepted]) -> None:
        """A publish was handed to the log; `future` tells whether it got there."""
        self._keep(client_id, packet_id, (hash((topic, payload)), future))

    def _keep(self, client_id: str, packet_id: int, entry: tuple[int, Future[Accepted] | None]) -> None:
        recent = self._clients.get(client_id)
        if recent is None:
            recent = self._clients[client_id] = {}
            if len(self._clients) > _CLIENTS:
                self._clients.popitem(last=False)
        else:
            recent.pop(packet_id, None)
        recent[packet_id] = entry
        if len(recent) > self._per_client:
            del recent[next(iter(recent))]

    def find(
        self, client_id: str, packet_id: int, *, topic: str, payload: bytes
    ) -> tuple[bool, Future[Accepted] | None]:
        """Whether this very message came before; its future where it may still be under way."""
        entry = self._clients.get(client_id, {}).get(packet_id)
        if entry is None or entry[0] != hash((topic, payload)):
            return False, None
        future = entry[1]
        if future is not None and future.done() and (future.cancelled() or future.exception() is not None):
            return False, None  # it never got into the log
        return True, future

    def new_session(self, client_id: str) -> None:
        """The client starts anew: only what its last connection sent may come again."""
        self._clients.pop(client_id, None)
