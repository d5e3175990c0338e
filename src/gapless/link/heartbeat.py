"""Every so often, the last position of each room in use: a bound on how long a hole stays unnoticed."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from gapless.link.connection import Connection
from gapless.link.options import LinkOptions
from gapless.link.pump import Pump
from gapless.mqtt import Properties, ProtocolVersion, Publish

Sleep = Callable[[float], Awaitable[None]]

MOST_ROOMS = 1000
"""Most rooms of one heartbeat, the newest ones: some 25 kB."""
_SPAN = 3  # heartbeats for which a room stays in: a client may lose two and still know of each event


class Heartbeat(msgspec.Struct, frozen=True):
    """One heartbeat, as JSON.

    Attributes:
        position: everything up to it that is for the broker was taken over by the broker.
        since: rooms that are not named have had nothing between this position and `position`.
        interval: seconds until the next one.
        rooms: the offset of the last event of each room that had one after `since`.
    """

    position: str
    since: str
    interval: float
    rooms: dict[str, int]


class Heartbeats:
    """Publishes them, at QoS 0 and not retained: neither kept for clients that are away, nor for new ones.

    One is sent only when the broker has taken over what it tells of, and so comes after it.
    """

    def __init__(self, *, options: LinkOptions, pump: Pump, epoch: Callable[[], str], sleep: Sleep) -> None:
        self._options = options
        self._pump = pump
        self._epoch = epoch
        self._sleep = sleep
        self._heads: deque[int] = deque(maxlen=_SPAN)  # where the last heartbeats stood

    def next(self) -> tuple[int, Heartbeat]:
        """The heartbeat of this moment, and the offset of its position."""
        head = self._pump.scanned
        since, rooms = self._pump.chain.recent(self._heads[0] if self._heads else 0, limit=MOST_ROOMS)
        self._heads.append(head)
        epoch = self._epoch()
        return head, Heartbeat(f"{epoch}:{head}", f"{epoch}:{since}", self._options.heartbeat, rooms)

    async def run(self, connection: Connection, topic: str) -> None:
        """Send them, the first one at once, until cancelled."""
        v5 = connection.version is ProtocolVersion.V5
        properties = Properties(payload_format_indicator=1, content_type="application/json") if v5 else None
        while True:
            head, heartbeat = self.next()
            await self._pump.wait_settled(head)
            if connection.writable:  # a full socket loses this one
                connection.send(Publish(topic, msgspec.json.encode(heartbeat), properties=properties))
            await self._sleep(self._options.heartbeat)
