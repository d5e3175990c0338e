"""Fan-out to Socket.IO clients: encoded once, the same bytes written to every socket.

What was committed together is written together: one write for each client, however many events
of its rooms are in the batch. Everything happens in the step of the event loop in which the
hub hands the batch out, so nothing can come between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from gapless.event import Record
from gapless.presence import Presence
from gapless.transports.broadcast import FEW, Broadcast, Group
from gapless.transports.socketio.client import Client, encode_record
from gapless.transports.socketio.outgoing import EncodedMessage

PLANNED = 250_000
"""Clients that the plans kept may name, a client once in each plan that it is in: some 30 bytes each."""
_NAMED = 8
"""What the rooms that events name together count as, beside the clients of their plan: some 200 bytes."""


class _Plan(NamedTuple):
    """The live clients of some rooms, each once.

    Attributes:
        group: those whose sockets are written to.
        queued: those whose connection's queue does.
    """

    group: Group
    queued: tuple[Client, ...]


class RoomFanout:
    """The `Fanout` of the Socket.IO door, and who is in which room.

    Args:
        clock: seconds since the Unix epoch.
        presence: told who enters and leaves which room.
        broadcast: writes to all.
    """

    def __init__(
        self, clock: Callable[[], float], presence: Presence | None = None, broadcast: Broadcast | None = None
    ) -> None:
        self._clock = clock
        self._broadcast = broadcast or Broadcast()
        self._presence = presence
        self._by_room: dict[str, dict[str, Client]] = {}
        self._batch: list[Record] = []
        self._plans: dict[tuple[str, ...], _Plan] = {}  # of the rooms that events name together
        self._planned = 0

    def changed(self) -> None:
        """A client turned live or fell behind, or is written to in another way; see `Client`."""
        self._plans.clear()
        self._planned = 0

    def join(self, client: Client, rooms: Iterable[str]) -> None:
        """The client hears these rooms from the next event on."""
        entered: list[str] = []
        for room in rooms:
            members = self._by_room.setdefault(room, {})
            if members.get(client.sid) is not client:
                members[client.sid] = client
                entered.append(room)
        self.changed()
        if entered and self._presence is not None:
            self._presence.entered(client.identity, entered)

    def leave(self, client: Client, rooms: Iterable[str]) -> None:
        """The client hears these rooms no more."""
        left: list[str] = []
        for room in rooms:
            members = self._by_room.get(room)
            if members is not None and members.get(client.sid) is client:
                del members[client.sid]
                left.append(room)
                if not members:
                    del self._by_room[room]
        self.changed()
        if left and self._presence is not None:
            self._presence.left(client.identity, left)

    def deliver(self, record: Record) -> None:
        """See `gapless.hub.Fanout`; `flush` follows in the same step."""
        expires = record.event.expires
        if expires is None or expires > self._clock() * 1000:
            self._batch.append(record)

    def flush(self) -> None:
        """Write what was delivered since the last call."""
        batch = self._batch
        if not batch:
            return
        self._batch = []
        rooms = batch[0].event.rooms
        if len(batch) > 1 and any(record.event.rooms != rooms for record in batch):
            heard = [(record, found) for record in batch if (found := self._inhabited(record.event.rooms))]
            batch = [record for record, _ in heard]
            rooms = heard[0][1] if heard else ()
            if any(found != rooms for _, found in heard):
                self._write_each_its_own(batch)
                return
        self._write(batch, rooms)

    def _inhabited(self, rooms: tuple[str, ...]) -> tuple[str, ...]:
        """Those that somebody is in: many events name a room of their own beside one that all are in."""
        return tuple(filter(self._by_room.__contains__, rooms))

    def _write(self, batch: list[Record], rooms: tuple[str, ...]) -> None:
        """Write to all in any of the rooms; the hot path of the gateway.

        Who gets it is settled before the first write: that one may be what makes others fall behind, who stand behind
        these events from then on.
        """
        plan = self._plans.get(rooms)
        if plan is None:
            inhabited = self._inhabited(rooms)
            plan = self._plans.get(inhabited)
            if plan is None:
                clients = [client for client in self._members(inhabited) if client.live]
                if len(clients) <= FEW:
                    self._write_to_few(clients, batch)
                    return
                plan = self._plan(inhabited, clients)
            self._keep(rooms, plan, size=_NAMED)
        message = _joined(batch)
        for client in plan.queued:
            client.queue.send(message)
        self._broadcast.write_to_group(message.frames, plan.group)

    def _write_to_few(self, clients: list[Client], batch: list[Record]) -> None:
        if clients:
            message = _joined(batch)
            for client in clients:
                self._write_to(client, message)

    def _plan(self, rooms: tuple[str, ...], clients: list[Client]) -> _Plan:
        group = Group([lane for client in clients if (lane := client.lane) is not None])
        plan = _Plan(group, tuple(client for client in clients if client.lane is None))
        self._keep(rooms, plan, size=len(clients))
        return plan

    def _keep(self, rooms: tuple[str, ...], plan: _Plan, *, size: int) -> None:
        if self._planned + size > PLANNED:
            self.changed()
        self._plans[rooms] = plan
        self._planned += size

    def _write_each_its_own(self, batch: list[Record]) -> None:
        wanted: dict[Client, list[Record]] = {}
        for record in batch:
            for client in self._members(record.event.rooms):
                if client.live:
                    wanted.setdefault(client, []).append(record)
        for client, records in wanted.items():
            self._write_to(client, _joined(records))

    def _write_to(self, client: Client, message: EncodedMessage) -> None:
        lane = client.lane
        if lane is None:
            client.queue.send(message)
        else:
            self._broadcast.write(message.frames, (lane,))

    def _members(self, rooms: tuple[str, ...]) -> Iterable[Client]:
        """The clients in any of the rooms, each once."""
        found = [members for room in rooms if (members := self._by_room.get(room))]
        if len(found) == 1:
            return found[0].values()
        clients: dict[str, Client] = {}
        for members in found:
            clients.update(members)
        return clients.values()


def _joined(records: list[Record]) -> EncodedMessage:
    return EncodedMessage.joined([encode_record(record) for record in records])
