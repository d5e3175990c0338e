"""Our own messages that may come back and that the log cannot know again."""

from __future__ import annotations

from collections import OrderedDict

_MOST = 10_000


class Echoes:
    """Bounded memory of what was sent, for brokers without No Local (MQTT 5 §3.8.3.1).

    Durable events need none of this: they carry their id, and the log knows it. Ephemeral
    events are in no log. The empty message that clears a topic has no room for an id in 3.1.1.
    """

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._cleared: OrderedDict[str, int] = OrderedDict()

    def sent_ephemeral(self, event_id: str) -> None:
        """An ephemeral event was published."""
        self._ids[event_id] = None
        while len(self._ids) > _MOST:
            self._ids.popitem(last=False)

    def sent_clearing(self, topic: str) -> None:
        """An empty message was published to a topic that we hear, over 3.1.1."""
        self._cleared[topic] = self._cleared.get(topic, 0) + 1
        while len(self._cleared) > _MOST:
            self._cleared.popitem(last=False)

    def has_id(self, event_id: str) -> bool:
        """Whether an ephemeral event with this id was published."""
        return event_id in self._ids

    def take_clearing(self, topic: str) -> bool:
        """Whether an empty message on the topic is one of ours; each counts once."""
        count = self._cleared.get(topic, 0)
        if count > 1:
            self._cleared[topic] = count - 1
        elif count:
            del self._cleared[topic]
        return count > 0

    def forget_clearing(self) -> None:
        """The broker's session is gone, and what it held for us with it."""
        self._cleared.clear()
