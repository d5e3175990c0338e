"""The last value of each topic that has one, for new MQTT subscribers (MQTT 5 §3.3.1.3)."""

from __future__ import annotations

from collections.abc import Iterator

from gapless.event import Record
from gapless.mqtt.filters import matches


class RetainedMessages:
    """Retained messages by topic. The log's database keeps them; this is its mirror in memory."""

    def __init__(self) -> None:
        self._by_topic: dict[str, Record] = {}

    def __len__(self) -> int:
        return len(self._by_topic)

    def set(self, record: Record) -> None:
        """Keep the topic's last value; an empty MQTT payload clears it."""
        if record.event.mqtt_payload == b"":
            self._by_topic.pop(record.event.topic, None)
        else:
            self._by_topic[record.event.topic] = record

    def get(self, topic: str) -> Record | None:
        """The topic's last value."""
        return self._by_topic.get(topic)

    def matching(self, pattern: str) -> Iterator[Record]:
        """The last values of all topics that a filter matches."""
        if "+" not in pattern and "#" not in pattern:
            record = self._by_topic.get(pattern)
            if record is not None:
                yield record
            return
        for topic, record in self._by_topic.items():
            if matches(pattern, topic):
                yield record
