"""The last value of each topic that has one, for new MQTT subscribers (MQTT 5 §3.3.1.3)."""

from __future__ import annotations

from gapless.event import Event, Record
from gapless.mqtt.topic_tree import TopicTree


class RetainedMessages:
    """Retained messages by topic. The log's database keeps them; this is its mirror in memory.

    Times are in milliseconds since the Unix epoch. One that has expired is dropped where a filter
    comes upon it, and by `drop_expired`.
    """

    def __init__(self) -> None:
        self._by_topic: dict[str, Record] = {}
        self._tree: TopicTree[Record] = TopicTree()
        self._by_room: dict[str, dict[str, Record]] = {}  # by topic, too
        self.size = 0
        """Bytes of all, by `Event.size`."""

    def __len__(self) -> int:
        return len(self._by_topic)

    def set(self, record: Record) -> None:
        """Keep the topic's last value; an empty MQTT payload clears it."""
        event = record.event
        self._forget(event.topic)
        if event.mqtt_payload != b"":
            self._by_topic[event.topic] = record
            self.size += event.size
            self._tree.put(event.topic, record)
            for room in event.rooms:
                self._by_room.setdefault(room, {})[event.topic] = record

    def size_with(self, event: Event) -> int:
        """What `size` will be once this event is its topic's last value."""
        old = self._by_topic.get(event.topic)
        kept = self.size if old is None else self.size - old.event.size
        return kept if event.mqtt_payload == b"" else kept + event.size

    def get(self, topic: str) -> Record | None:
        """The topic's last value."""
        return self._by_topic.get(topic)

    def matching(self, pattern: str, *, now: int) -> list[Record]:
        """The last values of all topics that a filter matches, without those that have expired."""
        if "+" not in pattern and "#" not in pattern:
            record = self._by_topic.get(pattern)
            found = [] if record is None else [record]
        else:
            found = self._tree.matching(pattern)
        return [record for record in found if not self._drop_if_expired(record, now)]

    def in_room(self, room: str, *, now: int) -> list[Record]:
        """The last values that are in a room, without those that have expired."""
        found = self._by_room.get(room, {})
        return [record for record in list(found.values()) if not self._drop_if_expired(record, now)]

    def drop_expired(self, now: int) -> None:
        """Forget all that have expired, as `EventLog.trim` does on disk."""
        for record in list(self._by_topic.values()):
            self._drop_if_expired(record, now)

    def _drop_if_expired(self, record: Record, now: int) -> bool:
        expires = record.event.expires
        if expires is None or expires > now:
            return False
        self._forget(record.event.topic)
        return True

    def _forget(self, topic: str) -> None:
        record = self._by_topic.pop(topic, None)
        if record is None:
            return
        self.size -= record.event.size
        self._tree.remove(topic)
        for room in record.event.rooms:
            topics = self._by_room[room]
            del topics[topic]
            if not topics:
                del self._by_room[room]
