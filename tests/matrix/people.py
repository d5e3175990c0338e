"""Who comes in the matrix, and what the reference map's rules, read by a person, say that they may."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from gapless.auth.api_keys import create_key
from gapless.auth.policy import Policy
from gapless.topicmap import TopicMap

SECRET = "of-thirty-two-bytes-and-a-few-more"


@dataclass(frozen=True)
class Person:
    """One identity. `roles` and `rooms` are what its token says; `user` None is an API key."""

    name: str
    token: str
    user: str | None
    roles: frozenset[str] = frozenset()
    rooms: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_boss(self) -> bool:
        return self.user is None or "ADMIN" in self.roles

    def hears_room(self, room: str) -> bool:
        if self.is_boss or room == "org:announcements":
            return True
        kind, _, number = room.partition(":")
        if kind == "user":
            return number == self.user
        if kind == "topic":  # topics outside the map are nobody's but a boss's
            return False
        return "MANAGER" in self.roles or ("SALES" in self.roles and room in self.rooms)

    def hears_topic(self, topic_map: TopicMap, topic: str) -> bool:
        """By the rooms that the topic alone decides; topics outside the map are nobody's but a boss's."""
        row = topic_map.route(topic).row
        if self.is_boss or row is None:
            return self.is_boss
        captures = topic_map.route(topic).captures
        rooms = [room for room in row.rooms if "{data." not in room]
        return any(self.hears_room(re.sub(r"\{(\w+)\}", lambda m: captures[m[1]], room)) for room in rooms)

    def publishes(self, topic: str) -> bool:
        if self.is_boss:
            return True
        parts = topic.split("/")
        match parts[1:]:
            case ["leads" | "activities" | "notifications", *_]:
                return "MANAGER" in self.roles
            case ["users", number, "presence"]:
                return number == self.user
            case ["notes", number, _]:
                return self.hears_room(f"note:{number}")
            case _:
                return False


def token(*, user: str = "1", expires: float = 600.0, secret: str = SECRET, **claims: Any) -> str:
    now = time.time()
    return jwt.encode({"sub": user, "iat": int(now) - 60, "exp": int(now + expires), **claims}, secret)


def person(name: str, user: str, *roles: str, rooms: tuple[str, ...] = ()) -> Person:
    shown = token(user=user, roles=list(roles), rooms=list(rooms))
    return Person(name, shown, user, frozenset(roles), frozenset(rooms))


def people(keys: Path) -> list[Person]:
    """Everybody who is let in."""
    return [
        person("admin", "10", "ADMIN"),
        person("manager", "11", "MANAGER"),
        person("sales with rooms", "1", "SALES", rooms=("lead:1", "note:1")),
        person("sales without", "2", "SALES"),
        person("nobody in particular", "3", rooms=("lead:1", "org:global")),
        Person("service", create_key(keys, "backend"), None),
    ]


def strangers() -> dict[str, str | None]:
    """What is shown by those who are not let in."""
    return {
        "anonymous": None,
        "expired": token(roles=["ADMIN"], expires=-1),
        "of another key": token(roles=["ADMIN"], secret="another-secret-of-thirty-two-bytes!"),
        "no token": "ADMIN",
    }


def rooms_of(topic_map: TopicMap) -> list[str]:
    """Two rooms of each pattern of the map, and that of a topic outside it."""
    patterns = [grant.pattern for grant in Policy(topic_map).grants() if grant.kind == "room"]
    found = [re.sub(r"\{[^}]*\}", number, pattern) for pattern in patterns for number in "12"]
    return [*dict.fromkeys(found), "topic:other/1"]


def topics_of(topic_map: TopicMap) -> list[str]:
    """Two topics of each row, and one outside the map."""
    found = [re.sub(r"\{[^}]*\}", number, row.pattern) for row in topic_map.rows for number in "12"]
    return [*dict.fromkeys(found), "other/1"]
