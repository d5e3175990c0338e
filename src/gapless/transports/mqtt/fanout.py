"""Live events to all connected clients: matched once per topic and rooms, encoded once per form."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

from gapless.event import Record
from gapless.hub import Hub
from gapless.mqtt import FilterTree, ProtocolVersion, PublishTemplate, room_of
from gapless.mqtt.session import Grant, Sent, Subscription, combine
from gapless.transports.broadcast import FEW, Broadcast, Group, Lane
from gapless.transports.mqtt.forms import template_of
from gapless.transports.mqtt.groups import ShareGroup
from gapless.transports.mqtt.options import EdgeStats
from gapless.transports.mqtt.reader import Reader

logger = logging.getLogger("gapless.mqtt")

_PLAN_ENTRIES = 200_000
"""Readers in all cached plans together, some 40 bytes each; past it the cache is emptied."""
_NAMED = 5
"""What a topic counts as, beside the readers of its plan: some 200 bytes."""

_Signature = tuple[tuple[int, ...], tuple[int, ...]]
"""The identities of the dictionaries that match a topic and rooms: of clients, and of shared subscriptions."""

_is_live = attrgetter("live")
_is_waiting = attrgetter("waiting")


class _Alike:
    """Readers that get the events of a plan in the same way.

    Attributes:
        group: the ways to all of them, where they are more than a few.
        takes: bytes of a packet that all of them take.
        persistent: whether the session of any is kept.
    """

    __slots__ = ("_outputs", "grant", "group", "persistent", "readers", "takes", "version")

    def __init__(self, grant: Grant, version: ProtocolVersion, readers: list[Reader]) -> None:
        self.grant = grant
        self.version = version
        self.readers = readers
        self.takes = min(reader.max_packet for reader in readers)
        self.persistent = any(reader.persistent for reader in readers)
        self._outputs = [reader.output for reader in readers]
        self.group = Group([output.lane for output in self._outputs]) if len(readers) > FEW else None

    @property
    def ready(self) -> bool:
        """Whether all are live, and nothing waits for the end of the step before any of them."""
        return all(map(_is_live, self.readers)) and not any(map(_is_waiting, self._outputs))


class _Plan(NamedTuple):
    """Who gets the events whose topics match the same filters, in the same of the rooms that somebody subscribes to.

    Attributes:
        alike: readers by how they get them.
        special: readers with a No Local subscription.
        groups: shared subscriptions.
    """

    alike: list[_Alike]
    special: list[Reader]
    groups: list[ShareGroup]


class MqttFanout:
    """The edge's `Fanout`.

    Args:
        now_ms: milliseconds since the Unix epoch.
        broadcast: writes to all.
    """

    def __init__(
        self, hub: Hub, stats: EdgeStats, now_ms: Callable[[], int], broadcast: Broadcast | None = None
    ) -> None:
        self._broadcast = broadcast or Broadcast()
        self._hub = hub
        self._stats = stats
        self._now_ms = now_ms
        self._tree: FilterTree[Reader, Subscription] = FilterTree()
        self._groups: FilterTree[str, ShareGroup] = FilterTree()
        self._rooms: dict[str, dict[Reader, Subscription]] = {}
        self._plans: dict[str | tuple[str, ...], _Plan] = {}  # by topic, or topic and rooms
        self._plans_by_filters: dict[_Signature, _Plan] = {}
        self._entries = 0
        self._packet_id = 0

    @property
    def rooms(self) -> int:
        """Rooms that connected clients subscribe to."""
        return len(self._rooms)

    def add(self, reader: Reader, subscription: Subscription) -> None:
        """A connected client has this subscription, new or replaced; not for shared ones."""
        room = subscription.room
        if room is None:
            self._tree.add(subscription.filter, reader, subscription)
        else:
            self._rooms.setdefault(room, {})[reader] = subscription
        self._forget_plans()

    def remove(self, reader: Reader, filter_: str) -> None:
        """It has it no more, or is no longer connected."""
        room = room_of(filter_)
        if room is None:
            self._tree.remove(filter_, reader)
        elif (readers := self._rooms.get(room)) is not None:
            readers.pop(reader, None)
            if not readers:
                del self._rooms[room]
        self._forget_plans()

    def add_group(self, group: ShareGroup) -> None:
        """A shared subscription has its first member."""
        self._groups.add(group.filter, group.key, group)
        self._forget_plans()

    def remove_group(self, group: ShareGroup) -> None:
        """A shared subscription has lost its last member."""
        self._groups.remove(group.filter, group.key)
        self._forget_plans()

    def deliver(self, record: Record) -> None:
        """See `gapless.hub.Fanout`."""
        event = record.event
        rooms = self._rooms
        key: str | tuple[str, ...] = event.topic
        if rooms and not rooms.keys().isdisjoint(event.rooms):  # the rooms may come from the payload
            key = (event.topic, *filter(rooms.__contains__, event.rooms))
        plan = self._plans.get(key)
        if plan is None:
            if not (rooms or self._tree or self._groups):
                return
            plan = self._plan(key)
        if not (plan.alike or plan.special or plan.groups):
            return
        now = self._now_ms()
        if event.expires is not None and event.expires <= now:
            return
        offset = record.offset
        self._packet_id = self._packet_id % 65535 + 1
        for alike in plan.alike:
            grant = alike.grant
            retain = grant.retain_as_published and event.retain
            qos = min(event.qos, grant.qos) if offset else 0
            template = template_of(record, grant, alike.version, retain=retain, now=now)
            if qos:
                self._write(alike, template, Sent(offset, qos, retain, grant.identifiers, grant.bare))
            else:
                self._write_qos0(alike, template, offset, keep_place=offset > 0 and grant.qos > 0)
        if plan.special:
            sender = event.origin.client if event.origin.door == "mqtt" else None
            for reader in plan.special:
                try:
                    reader.live_record(record, own=reader.client_id == sender)
                except Exception as error:  # a defect with one client must not cost the others the event
                    self._broken(reader, error)
        for group in plan.groups:
            # Last: a group may make a reader fall behind, which must have had its own by then.
            group.live_record(record)

    def _write(self, alike: _Alike, template: PublishTemplate, sent: Sent) -> None:
        """To all at QoS 1 or 2, the same bytes: any packet identifier will do that is free in a session
        [MQTT-2.2.1-3]. Hot: what a client needs that most do not need is `Reader.live_qos`.
        """
        qos = sent.qos
        packet_id = self._packet_id
        data = template.with_packet_id(qos, packet_id)
        size = len(data)
        alone = self._hub.alone
        lanes: list[Lane] = []
        written = 0
        for reader in alike.readers:
            if not reader.live:
                continue
            try:
                quota = reader.quota
                inflight = reader.inflight
                persistent = reader.persistent
                if not quota or packet_id in inflight or size > reader.max_packet or (persistent and qos == 2):
                    reader.live_qos(template, sent)
                    continue
                inflight[packet_id] = sent
                reader.quota = quota - 1
                written += 1
                if persistent:
                    reader.keeper.touch(reader)
                output = reader.output
                if alone and not output.waiting:
                    lanes.append(output.lane)
                else:
                    output.send(data)
            except Exception as error:  # a defect with one client must not cost the others the event
                self._broken(reader, error)
        if alike.group is not None and len(lanes) == len(alike.readers):
            self._broadcast.write_to_group(data, alike.group)
        else:
            self._broadcast.write(data, lanes)
        self._stats.sent[qos] += written

    def _write_qos0(self, alike: _Alike, template: PublishTemplate, offset: int, *, keep_place: bool) -> None:
        """To all at QoS 0; `keep_place`: through subscriptions that are kept for the absent. Hot, too."""
        data = template.qos0()
        size = len(data)
        alone = self._hub.alone
        group = alike.group
        keep_place = keep_place and alike.persistent
        if group is not None and alone and not keep_place and size <= alike.takes and alike.ready:
            self._broadcast.write_to_group(data, group)
            self._stats.sent[0] += len(alike.readers)
            return
        lanes: list[Lane] = []
        written = 0
        for reader in alike.readers:
            if not reader.live:
                self._stats.dropped_ephemeral += not offset
                continue
            try:
                if size > reader.max_packet:
                    self._stats.too_large += 1
                else:
                    written += 1
                    output = reader.output
                    if alone and not output.waiting:
                        lanes.append(output.lane)
                    else:
                        output.send(data)
                if keep_place and reader.persistent and reader.live:
                    reader.keeper.touch(reader)
            except Exception as error:  # as above
                self._broken(reader, error)
        self._broadcast.write(data, lanes)
        self._stats.sent[0] += written

    @staticmethod
    def _broken(reader: Reader, error: Exception) -> None:
        logger.error("delivery to client %r failed", reader.client_id, exc_info=error)
        asyncio.get_running_loop().call_soon(reader.on_broken, error)  # plans must not change here

    def _plan(self, key: str | tuple[str, ...]) -> _Plan:
        topic, *rooms = (key,) if isinstance(key, str) else key
        found = self._tree.match_filters(topic)
        found += [self._rooms[room] for room in rooms]
        groups = self._groups.match_filters(topic)
        signature = (tuple(map(id, found)), tuple(map(id, groups)))
        plan = self._plans_by_filters.get(signature)
        if plan is None:
            plan = _plan_of(found, groups)
            self._entries += sum(map(len, found))
        self._entries += _NAMED
        if self._entries > _PLAN_ENTRIES:
            self._forget_plans()
        self._plans_by_filters[signature] = self._plans[key] = plan
        return plan

    def _forget_plans(self) -> None:
        self._plans.clear()
        self._plans_by_filters.clear()
        self._entries = 0


def _plan_of(found: list[dict[Reader, Subscription]], groups: list[dict[str, ShareGroup]]) -> _Plan:
    by_reader: dict[Reader, list[Subscription]] = {}
    for entries in found:
        for reader, subscription in entries.items():
            by_reader.setdefault(reader, []).append(subscription)
    alike: dict[tuple[Grant, ProtocolVersion], list[Reader]] = {}
    special: list[Reader] = []
    for reader, subscriptions in by_reader.items():
        if any(sub.no_local for sub in subscriptions):
            special.append(reader)
            continue
        grant = combine(subscriptions)
        assert grant is not None
        alike.setdefault((grant, reader.version), []).append(reader)
    return _Plan(
        [_Alike(grant, version, readers) for (grant, version), readers in alike.items()],
        special,
        [group for entries in groups for group in entries.values()],
    )
