"""`$room/{room}`: the filter that stands for a room, whatever topics its events have.

Topics that begin with `$` are a server's own, and no wildcard at the start of a filter reaches them
(MQTT 5 §4.7.2); nobody can publish to these. In the room's name `%`, `+` and `#` are written `%25`, `%2B` and
`%23`, for client libraries take the last two for wildcards: one room has exactly one such filter. A `/` stays.
"""

from __future__ import annotations

import re
from typing import Final

from gapless.errors import InvalidTopic

ROOM_PREFIX: Final = "$room/"
_ESCAPES: Final = {"%": "%25", "+": "%2B", "#": "%23"}
_ROOMS: Final = {text: character for character, text in _ESCAPES.items()}
_TO_ESCAPE: Final = re.compile(r"[%+#]")
_ESCAPED: Final = re.compile("|".join(_ROOMS))
_WRONG: Final = re.compile("[+#]|%(?!25|2B|23)")


def room_filter(room: str) -> str:
    """The filter under which a room's events are heard at the gateway's own MQTT server."""
    return ROOM_PREFIX + _TO_ESCAPE.sub(lambda found: _ESCAPES[found[0]], room)


def is_room_filter(filter_: str) -> bool:
    """Whether it is, or is meant to be, the filter of a room."""
    return filter_.startswith(ROOM_PREFIX) or filter_ == ROOM_PREFIX[:-1]


def room_of(filter_: str) -> str | None:
    """The room that a filter stands for; None where it is an ordinary one."""
    if not filter_.startswith(ROOM_PREFIX):
        return None
    name = filter_[len(ROOM_PREFIX) :]
    return _ESCAPED.sub(lambda found: _ROOMS[found[0]], name) if "%" in name else name


def check_room_filter(filter_: str) -> str:
    """The room that such a filter stands for; whether the topic map knows the room is not looked at.

    Raises:
        InvalidTopic: it names no room, or a character is written as it must not be.
    """
    room = room_of(filter_)
    if not room:
        raise InvalidTopic("the filter names no room", hint="write $room/ and the room's name")
    if _WRONG.search(filter_, len(ROOM_PREFIX)):
        raise InvalidTopic(
            "a room's filter holds '+', '#' or a lone '%'", hint="write %2B, %23 and %25 for them in the room's name"
        )
    return room
