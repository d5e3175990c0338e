"""Shared subscriptions (MQTT 5 §4.8.2): a cursor of its own, whose members take turns.

A group is live while some connected member can take what comes. When none can, it falls
behind, and is fed from the log once one can. What a member had not acknowledged when its
session ended goes to another at QoS 1, and to nobody at QoS 2 [MQTT-4.8.2-5].
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from gapless.event import Record
from gapless.eventlog import Selector
from gapless.mqtt.session import Session, Subscription
from gapless.transports.mqtt.feed import Feed, Feeder
from gapless.transports.mqtt.options import EdgeStats
from gapless.transports.mqtt.reader import TURN, Reader

logger = logging.getLogger("gapless.mqtt")

VERSION = 1


class StoredGroup(msgspec.Struct, frozen=True, array_like=True):
    """A group as it is stored, while a persistent session is in it.

    Attributes:
        returned: offsets up to `position` that are to be delivered again.
    """

    version: int
    epoch: str
    position: int
    returned: list[int] = []


class _Member:
    __slots__ = ("assigned", "persistent", "reader", "subscription")

    def __init__(self, subscription: Subscription, *, persistent: bool) -> None:
        self.subscription = subscription
        self.persistent = persistent
        self.reader: Reader | None = None
        self.assigned: dict[int, int] = {}  # offset → QoS, not acknowledged


class ShareGroup(Feed):
    """One shared subscription: `$share/{name}/{filter}`.

    Attributes:
        key: `{name}/{filter}`.
        filter: the filter alone.
        returned: offsets to be delivered before anything else.
        dirty: changed since it was last stored.
    """

    __slots__ = ("_members", "_now_ms", "_on_change", "_order", "_stats", "dirty", "filter", "key", "returned")

    def __init__(
        self,
        key: str,
        *,
        position: int,
        feeder: Feeder,
        stats: EdgeStats,
        now_ms: Callable[[], int],
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(position, feeder)
        self._on_change = on_change
        self.key = key
        self.filter = key.partition("/")[2]
        self.returned: deque[int] = deque()
        self.dirty = False
        self._members: dict[str, _Member] = {}
        self._order: deque[_Member] = deque()  # connected ones, who is next first
        self._stats = stats
        self._now_ms = now_ms

    # Members

    @property
    def empty(self) -> bool:
        """Whether no session has the subscription."""
        return not self._members

    @property
    def persistent(self) -> bool:
        """Whether the group's state is to be stored."""
        return any(member.persistent for member in self._members.values())

    def enter(self, client_id: str, subscription: Subscription, *, persistent: bool) -> None:
        """A session has the subscription, new or replaced."""
        member = self._members.get(client_id)
        if member is None:
            self._members[client_id] = _Member(subscription, persistent=persistent)
        else:
            member.subscription = subscription
            member.persistent = persistent
        self._changed()

    def connect(self, reader: Reader) -> None:
        """A member's client is there."""
        member = self._members[reader.client_id]
        if member.reader is None:
            self._order.append(member)
        member.reader = reader
        self.feeder.schedule(self)

    def disconnect(self, client_id: str) -> None:
        """A member's client is gone; its session may stay."""
        member = self._members.get(client_id)
        if member is not None and member.reader is not None:
            member.reader = None
            self._order.remove(member)

    def leave(self, client_id: str, *, ended: bool) -> None:
        """A session has the subscription no more; `ended`: because the session is over."""
        self.disconnect(client_id)
        member = self._members.pop(client_id, None)
        if member is None:
            return
        self._changed()
        if ended:
            self.give_back(offset for offset, qos in member.assigned.items() if qos == 1)

    def give_back(self, offsets: Iterator[int]) -> None:
        """These go to another member."""
        self.returned.extend(sorted(offsets))
        if self.returned:
            self._changed()
            self.feeder.schedule(self)

    def restore_assigned(self, session: Session) -> None:
        """What a member had in flight when its state was stored."""
        member = self._members[session.client_id]
        for sent in session.inflight.values():
            if sent is not None and sent.share == self.key:
                member.assigned[sent.offset] = sent.qos

    def completed(self, client_id: str, offset: int) -> None:
        """A member acknowledged."""
        member = self._members.get(client_id)
        if member is not None:
            member.assigned.pop(offset, None)
            self._changed()

    def _changed(self) -> None:
        if not self.dirty:
            self.dirty = True
            self._on_change()

    def encode(self, epoch: str) -> bytes:
        """The group as bytes. What members have whose sessions are not stored counts as returned."""
        unsure = [
            offset
            for member in self._members.values()
            if not member.persistent
            for offset, qos in member.assigned.items()
            if qos == 1
        ]
        returned = sorted([*self.returned, *unsure])
        return msgspec.msgpack.encode(StoredGroup(VERSION, epoch, self.position, returned))

    # Delivery

    def make_selector(self) -> Selector:
        """What the group wants from the log."""
        return Selector(filters=(self.filter,))

    def on_hole(self, position: int) -> None:
        """Events that the group should have had are gone."""
        self._stats.incomplete += 1
        logger.warning("shared subscription %r missed events after %s", self.key, self.hub.position(position))

    def on_broken(self, error: Exception) -> None:
        """A turn failed: the group stays where it is until a member wakes it."""

    def advance(self) -> None:
        """Note the head as the position of a live group; not from within a delivery."""
        if self.live:
            self.position = self.hub.head

    def live_record(self, record: Record) -> None:
        """A live event."""
        if not self.live:
            self._stats.dropped_ephemeral += not record.offset
            return
        given = self._give(record)
        if not record.offset:
            self._stats.dropped_ephemeral += not given
        elif given:
            self.position = record.offset
            self._changed()
        else:
            self._stats.slow += 1
            self.fall_behind(record.offset - 1)

    def turn(self) -> bool:
        """Feed members from the log, up to a bound."""
        for _ in range(TURN):
            if not self._order:
                return False
            if self.returned:
                if not self._give_returned():
                    return False
                continue
            if self.live:
                return False
            record = self.peek()
            if record is not None:
                if not self._give(record):
                    return False
                self.position = record.offset
                self._changed()
            elif self.reading or self.join(self.hub.head):
                return False
        return True

    def _give_returned(self) -> bool:
        offset = self.returned[0]
        found, record = self.find_record(offset)
        if not found:
            return False
        if record is None:
            self.on_hole(offset - 1)
        elif not self._give(record):
            return False
        self.returned.popleft()
        self._changed()
        return True

    def _give(self, record: Record) -> bool:
        """Give an event to the next member that can take it."""
        event = record.event
        if event.expires is not None and event.expires <= self._now_ms():
            return True
        for _ in range(len(self._order)):
            member = self._order[0]
            self._order.rotate(-1)
            qos = min(event.qos, member.subscription.qos) if record.offset else 0
            reader = member.reader
            assert reader is not None
            if reader.can_take(qos):
                if reader.take_shared(record, member.subscription, self.key):
                    member.assigned[record.offset] = qos
                return True
        return False


class ShareGroups:
    """All shared subscriptions of the edge.

    Args:
        on_added, on_removed: tell the fan-out.

    Attributes:
        on_change: called when a group has something to be stored.
    """

    def __init__(
        self,
        feeder: Feeder,
        stats: EdgeStats,
        *,
        now_ms: Callable[[], int],
        on_added: Callable[[ShareGroup], None],
        on_removed: Callable[[ShareGroup], None],
    ) -> None:
        self._feeder = feeder
        self._stats = stats
        self._now_ms = now_ms
        self._on_added = on_added
        self._on_removed = on_removed
        self.on_change: Callable[[], None] = lambda: None
        self._groups: dict[str, ShareGroup] = {}
        self._gone: set[str] = set()

    def add(self, key: str, *, position: int) -> ShareGroup:
        """The group of a key, made where there is none yet, at this position."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = ShareGroup(
                key,
                position=position,
                feeder=self._feeder,
                stats=self._stats,
                now_ms=self._now_ms,
                on_change=lambda: self.on_change(),
            )
            self._gone.discard(key)
            self._on_added(group)
        return group

    def get(self, key: str) -> ShareGroup | None:
        """The group of a key."""
        return self._groups.get(key)

    def leave(self, key: str, client_id: str, *, ended: bool) -> None:
        """A session leaves; a group without members is forgotten."""
        group = self._groups.get(key)
        if group is None:
            return
        group.leave(client_id, ended=ended)
        if group.empty:
            group.closed = True
            del self._groups[key]
            self._gone.add(key)
            self._on_removed(group)

    def take_writes(self, epoch: str) -> list[tuple[str, bytes | None]]:
        """What changed since the last call: key and bytes, or None where it is to be deleted."""
        writes: list[tuple[str, bytes | None]] = [(key, None) for key in self._gone]
        self._gone.clear()
        for group in self._groups.values():
            if group.dirty:
                group.advance()
                group.dirty = False
                writes.append((group.key, group.encode(epoch) if group.persistent else None))
        return writes

    def mark_all_dirty(self) -> None:
        """Nothing that `take_writes` gave was stored."""
        for group in self._groups.values():
            group.dirty = True


def share_key(filter_: str) -> str:
    """`{name}/{filter}` of `$share/{name}/{filter}`."""
    return filter_.partition("/")[2]


def decode_group(data: bytes) -> StoredGroup:
    """Read a stored group.

    Raises:
        msgspec.DecodeError: not one.
    """
    return msgspec.msgpack.decode(data, type=StoredGroup)
