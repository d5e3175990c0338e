"""Fan-out to Socket.IO clients: encoded once, the same bytes written to every socket.

What was committed together is written together: one write for each client, however many events
of its rooms are in the batch. Everything happens in the step of the event loop in which the
hub hands the batch out, so nothing can come between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from gapless.event import Record
from gapless.presence import Presence
from gapless.transports.broadcast import Broadcast, Lane
from gapless.transports.socketio.client import Client, encode_record
from gapless.transports.socketio.outgoing import EncodedMessage


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

    def join(self, client: Client, rooms: Iterable[str]) -> None:
        """The client hears these rooms from the next event on."""
        entered: list[str] = []
        for room in rooms:
            members = self._by_room.setdefault(room, {})
            if members.get(client.sid) is not client:
                members[client.sid] = client
                entered.append(room)
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
        if len(batch) == 1 or all(record.event.rooms == rooms for record in batch):
            groups = self._members(rooms)
            if groups:
                message = EncodedMessage.joined([encode_record(record) for record in batch])
                for group in groups:
                    self._write(message, group)
        else:
            self._write_each_its_own(batch)

    def _write_each_its_own(self, batch: list[Record]) -> None:
        wanted: dict[Client, list[EncodedMessage]] = {}
        for record in batch:
            message = encode_record(record)
            for group in self._members(record.event.rooms):
                for client in group:
                    if client.live:
                        wanted.setdefault(client, []).append(message)
        for client, messages in wanted.items():
            self._write(EncodedMessage.joined(messages), (client,))

    def _write(self, message: EncodedMessage, clients: Iterable[Client]) -> None:
        """Write to those that are live; the hot loop of the gateway."""
        lanes: list[Lane] = []
        for client in clients:
            if not client.live:
                continue
            lane = client.lane
            if lane is None:
                client.queue.send(message)
            else:
                lanes.append(lane)
        self._broadcast.write(message.frames, lanes)

    def _members(self, rooms: tuple[str, ...]) -> list[Iterable[Client]]:
        """The clients in any of the rooms, each once."""
        by_room = self._by_room
        if len(rooms) == 1:
            members = by_room.get(rooms[0])
            return [members.values()] if members else []
        found = [members for room in rooms if (members := by_room.get(room))]
        found.sort(key=len, reverse=True)
        return [
            members.values() if not number else _others(members, found[:number]) for number, members in enumerate(found)
        ]


def _others(members: Mapping[str, Client], before: list[dict[str, Client]]) -> Iterator[Client]:
    for sid, client in members.items():
        if not any(sid in earlier for earlier in before):
            yield client
