"""The gateway and the network of wire/client/README.md, without a socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from gapless.client.connect import TransportName
from gapless.client.hybrid.errors import NetworkError, error_of_code
from gapless.client.hybrid.process import Later
from gapless.client.hybrid.rooms import RoomDescription, Source
from gapless.client.hybrid.world import Description, Listener, Offer, Opened, Page
from gapless.client.model import ClientEvent, Published
from gapless.errors import GaplessError, Unauthorized

TRANSPORTS: tuple[TransportName, ...] = ("socketio", "mqtt", "sse", "poll")
_HEARTBEATS = {"socketio": 25.0, "mqtt": 30.0, "sse": 15.0, "poll": 30.0}


class FakeGateway:
    """Log, doors and conditions; `FakeWorld` is what a client sees of it."""

    def __init__(
        self,
        *,
        epoch: str = "e",
        log: Sequence[Any] = (),
        incomplete_over_mqtt: Sequence[str] = (),
        room_filters: bool = False,
    ) -> None:
        self.epoch = epoch
        self.oldest = 1
        self.log: list[ClientEvent] = []
        self.conditions = dict.fromkeys([*TRANSPORTS, "http"], "up")
        self.denied: set[str] = set()
        self.rejected: dict[str, str] = {}
        self.token: str | None = None
        self.published: list[str] = []
        self.attempts: dict[str, int] = {}
        self.connections: list[FakeConnection] = []
        self._not_over_mqtt = set(incomplete_over_mqtt)
        self._room_filters = room_filters
        self._waiting: list[tuple[str, Callable[[], None]]] = []
        for entry in log:
            self.append(entry)

    @property
    def head(self) -> str:
        return f"{self.epoch}:{len(self.log)}"

    def append(self, entry: Any) -> ClientEvent:
        event = event_of(entry, f"{self.epoch}:{len(self.log) + 1}")
        self.log.append(event)
        self.deliver(event)
        return event

    def deliver(self, event: ClientEvent) -> None:
        for connection in list(self.connections):
            if room_of(event) in connection.rooms:
                connection.tell(lambda listener: listener.event(event))

    def find(self, identity: str) -> ClientEvent:
        return next((event for event in self.log if event.id == identity), event_of(identity, None))

    def set(self, door: str, condition: str) -> None:
        self.conditions[door] = condition
        if condition != "up":
            return
        for connection in list(self.connections):
            if connection.name == door:
                connection.release()
        due = [go for name, go in self._waiting if name == door]
        self._waiting = [each for each in self._waiting if each[0] != door]
        for go in due:
            go()

    def cut(self, names: Sequence[str]) -> None:
        for connection in [each for each in self.connections if each.name in names]:
            connection.close()
            connection.listener.down(NetworkError("cut"))

    def replace(self, epoch: str) -> None:
        self.epoch, self.log, self.oldest = epoch, [], 1
        self.cut(TRANSPORTS)

    def heartbeat(self) -> None:
        for connection in self.connections:
            if self.conditions[connection.name] == "up":
                connection.listener.alive()

    def passed(self, door: str, token: str | None, answer: Callable[[], Any]) -> Later:
        """What a request at a door comes to under its condition."""
        later = Later()

        def go() -> None:
            if later.done:
                return
            try:
                later.resolve(answer())
            except GaplessError as error:
                later.fail(error)

        match self.conditions[door]:
            case "silent":
                self._waiting.append((door, go))
            case "refuse" | "absent":
                later.fail(NetworkError("refused"))
            case "unauthorized":
                later.fail(Unauthorized("refused"))
            case _ if self.token is not None and token != self.token:
                later.fail(Unauthorized("an old token"))
            case _:
                go()
        return later

    def after(self, rooms: Sequence[str], after: str) -> tuple[list[ClientEvent], bool]:
        epoch, offset = (self.epoch, self.oldest - 1) if after == "start" else _split(after)
        complete = epoch == self.epoch and offset >= self.oldest - 1
        found = self.log[offset if complete else self.oldest - 1 :]
        return [event for event in found if room_of(event) in rooms], complete

    def describe_room(self, room: str) -> RoomDescription:
        if room in self.denied:
            return RoomDescription(room=room, error={"code": "forbidden", "message": "denied"})
        match = (Source("crm/leads/{leadId}/updated", "lead:{leadId}"),)
        room_filter = f"$room/{room}" if self._room_filters else None
        return RoomDescription(room=room, room_filter=room_filter, mqtt=room not in self._not_over_mqtt, match=match)


class FakeConnection:
    """One connection to the fake: `Door`."""

    def __init__(self, gateway: FakeGateway, name: TransportName, token: str | None, listener: Listener) -> None:
        self.name = name
        self.listener = listener
        self.rooms: set[str] = set()
        self._gateway = gateway
        self._token = token
        self._held: list[Callable[[Listener], None]] = []
        self._pings: list[Later] = []

    def open(self, rooms: Sequence[RoomDescription], after: str) -> Later:
        gateway = self._gateway
        gateway.attempts[self.name] = gateway.attempts.get(self.name, 0) + 1

        def opened() -> Opened:
            gateway.connections.append(self)
            self.rooms = {room.room for room in rooms}
            events, complete = gateway.after(list(self.rooms), after)
            if not complete:
                self.listener.gap(None)
            for event in events:
                self.listener.event(event)
            is_live = self.name in ("socketio", "mqtt")
            return Opened(_HEARTBEATS[self.name], is_live=is_live, renews=self.name == "socketio")

        return gateway.passed(self.name, self._token, opened)

    def join(self, rooms: Sequence[RoomDescription]) -> Later:
        names = {room.room for room in rooms}
        return self._gateway.passed(self.name, self._token, lambda: self.rooms.update(names))

    def leave(self, rooms: Sequence[RoomDescription], kept: Sequence[RoomDescription]) -> Later:
        names = {room.room for room in rooms}
        return self._gateway.passed(self.name, self._token, lambda: self.rooms.difference_update(names))

    def ping(self) -> Later:
        ping = Later()
        if self._gateway.conditions[self.name] == "silent":
            self._pings.append(ping)
        else:
            ping.resolve()
        return ping

    def presence(self, room: str, *, live: bool) -> Later:
        raise AssertionError("no history asks who is there")

    def renew(self, token: str) -> Later:
        return self._gateway.passed(self.name, token, lambda: setattr(self, "_token", token))

    def close(self) -> None:
        if self in self._gateway.connections:
            self._gateway.connections.remove(self)

    def tell(self, what: Callable[[Listener], None]) -> None:
        if self._gateway.conditions[self.name] == "silent":
            self._held.append(what)
        else:
            what(self.listener)

    def release(self) -> None:
        held, self._held = self._held, []
        pings, self._pings = self._pings, []
        for what in held:
            what(self.listener)
        for ping in pings:
            ping.resolve()


class FakeWorld:
    """`World`, with a store that outlives the client."""

    def __init__(self, gateway: FakeGateway, store: dict[str, Any]) -> None:
        self._gateway = gateway
        self._store = store
        self.errors: list[str] = []
        self.answers: dict[str, str] = {}

    def describe(self, rooms: Sequence[str], token: str | None) -> Later:
        gateway = self._gateway

        def answer() -> Description:
            offers = tuple(Offer(name, f"fake://{name}") for name in TRANSPORTS if gateway.conditions[name] != "absent")
            described = tuple(map(gateway.describe_room, rooms))
            return Description(epoch=gateway.epoch, position=gateway.head, transports=offers, rooms=described)

        return gateway.passed("http", token, answer)

    def history(self, rooms: Sequence[str], after: str, limit: int, token: str | None) -> Later:
        gateway = self._gateway

        def answer() -> Page:
            events, complete = gateway.after(rooms, after)
            page = events[:limit]
            position = page[-1].position if len(events) > limit else gateway.head
            assert position is not None
            return Page(tuple(page), position, complete)

        return gateway.passed("http", token, answer)

    def presence(self, room: str, token: str | None) -> Later:
        raise AssertionError("no history asks who is there")

    def publish(self, bodies: Sequence[bytes], token: str | None) -> Later:
        return self._gateway.passed("http", token, lambda: self._accept([json.loads(body)["id"] for body in bodies]))

    def _accept(self, ids: list[str]) -> list[Published]:
        gateway = self._gateway
        for index, identity in enumerate(ids):
            if identity in gateway.rejected:
                raise error_of_code(gateway.rejected[identity], "no", index=index)
        answers = []
        for identity in ids:
            duplicate = any(event.id == identity for event in gateway.log)
            if not duplicate:
                gateway.published.append(identity)
            event = gateway.find(identity) if duplicate else gateway.append(identity)
            answers.append(Published(id=identity, topic=event.topic, type=event.type, position=event.position))
        return answers

    def token(self) -> Later:
        later = Later()
        later.resolve(self._gateway.token)
        return later

    def can(self, transport: TransportName, offers: Sequence[Offer]) -> bool:
        return any(offer.name == transport for offer in offers)

    def connection(
        self, transport: TransportName, offers: Sequence[Offer], token: str | None, listener: Listener
    ) -> FakeConnection:
        return FakeConnection(self._gateway, transport, token, listener)

    def keep_cursor(self, position: str) -> None:
        self._store["cursor"] = position

    def forget(self, ids: Sequence[str]) -> None:
        for identity in ids:
            del self._store["outbox"][identity]

    def told(self, status: object) -> None: ...

    def failed(self, error: GaplessError, room: str | None) -> None:
        self.errors.append(error.code if room is None else f"{error.code} {room}")

    def sent(self, identity: str, outcome: Published | GaplessError) -> None:
        self.answers[identity] = outcome.code if isinstance(outcome, GaplessError) else "ok"


def event_of(entry: Any, position: str | None) -> ClientEvent:
    """An event as the histories write it."""
    identity, rooms = (entry, ["lead:1"]) if isinstance(entry, str) else (entry["id"], entry["rooms"])
    topic = f"crm/leads/{rooms[0].removeprefix('lead:')}/updated"
    return ClientEvent(id=identity, type="lead:updated", topic=topic, data={}, position=position)


def room_of(event: ClientEvent) -> str:
    return f"lead:{event.topic.split('/')[2]}"


def _split(position: str) -> tuple[str, int]:
    epoch, _, offset = position.partition(":")
    return epoch, int(offset)
