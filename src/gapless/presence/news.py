"""What is told of a room: all of it, or what changed."""

from __future__ import annotations

from typing import Any

import msgspec


class Person(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """A user in a room.

    Attributes:
        since: when the first of the connections came, RFC 3339.
        connections: connections that are in the room; 0 where the last one is just gone, and the
            user has the grace period to come back.
        last_seen: when that one went.
    """

    user_id: str
    since: str
    connections: int
    last_seen: str | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """Who is in a room.

    Attributes:
        users: those who were there first, first.
        anonymous: connections that no user is known of.
        complete: false where there are more users than are listed; their changes are not told.
    """

    users: list[Person]
    anonymous: int
    complete: bool


class Change(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What became of one user in a room; a user of None stands for all anonymous connections."""

    room: str
    user_id: str | None
    online: bool
    connections: int


class RoomNews(msgspec.Struct, eq=False):
    """What is told to those who watch a room.

    Attributes:
        changes: what changed since the last news.
        whole: who is there, in place of changes.
        forms: encodings by name, each made once for all watchers.
    """

    room: str
    changes: list[Change] = []
    whole: Snapshot | None = None
    forms: dict[str, Any] = {}

    def whole_wire(self) -> dict[str, Any]:
        """The snapshot with the room's name."""
        assert self.whole is not None
        return {"room": self.room, **msgspec.structs.asdict(self.whole)}
