"""`GET /api/presence`: who is in rooms."""

from __future__ import annotations

import msgspec

from gapless.auth import Gate
from gapless.errors import InvalidRequest
from gapless.presence import Presence, Snapshot
from gapless.topicmap import TopicMap
from gapless.transports.http.endpoint import encode
from gapless.transports.http.options import HttpOptions
from gapless.transports.http.request import Request


class PresenceAnswer(msgspec.Struct, frozen=True):
    """Who is there, by room."""

    rooms: dict[str, Snapshot]


class PresenceDoor:
    """Answers `/api/presence`, to those who may hear the rooms."""

    def __init__(self, *, gate: Gate, topic_map: TopicMap, options: HttpOptions, presence: Presence) -> None:
        self._gate = gate
        self._topic_map = topic_map
        self._options = options
        self._presence = presence

    async def presence(self, request: Request) -> None:
        """Handle `GET /api/presence`."""
        identity = await request.identify(self._gate, door="presence")
        rooms = await request.rooms(self._topic_map, self._gate, identity, maximum=self._options.max_rooms)
        if not rooms:
            raise InvalidRequest("the query names no room", hint="such as ?room=lead:123,org:global")
        answer = PresenceAnswer({room: self._presence.snapshot(room) for room in sorted(rooms)})
        await request.answer(200, encode(answer))
