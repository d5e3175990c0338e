"""The link's own `online` and `offline`, retained on the broker; not events of the log."""

from __future__ import annotations

import time as _time
from collections.abc import Callable

import msgspec

from gapless.envelope import Envelope
from gapless.event import EventIds, format_time
from gapless.mqtt import Properties, ProtocolVersion, Publish, Will


class StatusMessages:
    """Makes them, and knows them again when they come back.

    The payload is the envelope with `data` `{"status", "clientId", "reason"?}`. The last will's
    time is that of the CONNECT, as the broker publishes what it was given then.
    """

    def __init__(self, topic: str | None, client_id: str, *, clock: Callable[[], float] = _time.time) -> None:
        self._topic = topic
        self._client_id = client_id
        self._clock = clock
        self._new_id = EventIds(clock)

    def will(self, version: ProtocolVersion) -> Will | None:
        """The last will (§3.1.2.5), or None where there is no status topic."""
        if self._topic is None:
            return None
        payload = self._payload("offline", reason="the connection was lost")
        return Will(self._topic, payload, qos=1, retain=True, properties=_properties(version))

    def publish(self, status: str, *, packet_id: int, version: ProtocolVersion) -> Publish | None:
        """`online` or `offline`, at QoS 1, or None where there is no status topic."""
        if self._topic is None:
            return None
        payload = self._payload(status)
        properties = _properties(version)
        return Publish(self._topic, payload, qos=1, retain=True, packet_id=packet_id, properties=properties)

    def is_own(self, topic: str, envelope: Envelope) -> bool:
        """Whether a message is one of this client's, also of an earlier life of it."""
        if topic != self._topic or not isinstance(envelope.decoded, dict):
            return False
        return envelope.decoded.get("clientId") == self._client_id

    def _payload(self, status: str, *, reason: str | None = None) -> bytes:
        data = {"status": status, "clientId": self._client_id}
        if reason is not None:
            data["reason"] = reason
        envelope = {"id": self._new_id(), "type": "system:status", "topic": self._topic, "data": data}
        envelope |= {"time": format_time(int(self._clock() * 1000)), "userId": None}
        return msgspec.json.encode(envelope)


def _properties(version: ProtocolVersion) -> Properties | None:
    if version is not ProtocolVersion.V5:
        return None
    return Properties(payload_format_indicator=1, content_type="application/json")
