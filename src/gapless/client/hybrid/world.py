"""The seam between the machine and what does I/O for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from gapless.client.connect import TransportName
from gapless.client.hybrid.process import Later
from gapless.client.hybrid.rooms import RoomDescription
from gapless.client.hybrid.status import Status
from gapless.client.model import ClientEvent, Published
from gapless.errors import GaplessError


class Offer(msgspec.Struct, frozen=True):
    """A transport on offer: `socketio`, `mqtt`, `mqtt-websocket`, `sse` or `poll`."""

    name: str
    url: str


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What `/api/connect` says.

    Attributes:
        position: the head of the log.
        transports: what is on offer.
        rooms: how each of the rooms is heard, or why not.
    """

    epoch: str
    position: str
    transports: tuple[Offer, ...]
    rooms: tuple[RoomDescription, ...] = ()

    @property
    def audible(self) -> tuple[RoomDescription, ...]:
        """The rooms that may be heard."""
        return tuple(room for room in self.rooms if room.error is None)


class Page(msgspec.Struct, frozen=True):
    """A page of history: everything up to `position`; not `complete` where some of it is gone."""

    events: tuple[ClientEvent, ...]
    position: str
    complete: bool


class Opened(msgspec.Struct, frozen=True):
    """A connection that is subscribed.

    Attributes:
        heartbeat: seconds after which it shows a sign of life in any case.
        is_live: it can be pinged, takes further rooms and (Socket.IO) a fresh token.
        renews: it takes a fresh token.
        tells_presence: it can be asked who is in a room, and tells of changes.
    """

    heartbeat: float = math.inf
    is_live: bool = False
    renews: bool = False
    tells_presence: bool = False


class Listener(Protocol):
    """What a connection tells, in order, from its opening on."""

    def alive(self) -> None:
        """A sign of life."""

    def event(self, event: ClientEvent) -> None:
        """An event; it is a sign of life too."""

    def moved(self, position: str) -> None:
        """Everything up to the position was told."""

    def gap(self, position: str | None) -> None:
        """Events are gone, up to the position."""

    def revoked(self, rooms: Sequence[str]) -> None:
        """These rooms may be heard no more."""

    def presence(self, event: str, document: dict[str, Any]) -> None:
        """Who is in a room: `gapless:presence` or `gapless:present`."""

    def down(self, error: GaplessError) -> None:
        """It ended."""


class Door(Protocol):
    """One connection of the machine's.

    Each `Later` fails with the error that ended it; an abandoned one is called off.
    """

    def open(self, rooms: Sequence[RoomDescription], after: str) -> Later:
        """Connect and subscribe after a position; gives `Opened`."""

    def join(self, rooms: Sequence[RoomDescription]) -> Later:
        """Hear further rooms from now on."""

    def leave(self, rooms: Sequence[RoomDescription], kept: Sequence[RoomDescription]) -> Later:
        """Hear these rooms no more; `kept` are those that stay."""

    def ping(self) -> Later:
        """Ask for a sign of life."""

    def presence(self, room: str, *, live: bool) -> Later:
        """Ask who is in a room, and to be told of changes, or no more; gives what the gateway answers."""

    def renew(self, token: str) -> Later:
        """Show a fresh token."""

    def close(self) -> None:
        """End it. It tells nothing more."""


class World(Protocol):
    """Does what the machine wants done. Nothing is called back from within a call."""

    def describe(self, rooms: Sequence[str], token: str | None) -> Later:
        """Gives `Description`."""

    def history(self, rooms: Sequence[str], after: str, limit: int, token: str | None) -> Later:
        """Gives `Page`."""

    def presence(self, room: str, token: str | None) -> Later:
        """Gives what `/api/presence` answers."""

    def publish(self, bodies: Sequence[bytes], token: str | None) -> Later:
        """Gives a list of `Published`, once they are in the log."""

    def token(self) -> Later:
        """Asks the application; gives text or None."""

    def can(self, transport: TransportName, offers: Sequence[Offer]) -> bool:
        """Whether the platform can use the transport with what is on offer."""

    def connection(
        self, transport: TransportName, offers: Sequence[Offer], token: str | None, listener: Listener
    ) -> Door:
        """A connection, not opened yet."""

    def keep_cursor(self, position: str) -> None:
        """Store it. Later ones replace earlier ones."""

    def forget(self, ids: Sequence[str]) -> None:
        """These publications have their answers."""

    def told(self, status: Status) -> None:
        """The status changed."""

    def failed(self, error: GaplessError, room: str | None) -> None:
        """An error that belongs to no call."""

    def sent(self, identity: str, outcome: Published | GaplessError) -> None:
        """A publication of an earlier life has its answer."""


Wire = dict[str, Any]
