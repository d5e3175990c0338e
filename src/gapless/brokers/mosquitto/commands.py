"""Commands of the dynamic security plug-in, and the roles that say what a list of filters says. Pure.

Measured on Mosquitto 2.0.11: `%u` and `%c` stand for nothing in its lists, so what is a user's own needs a role
of its own. The plug-in writes its whole file anew at every command, so commands and bytes are what counts:
rights that several users share are one role, and what changes nothing is not sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from gapless.auth import Acl

Command = dict[str, Any]

_SYSTEM = ("$SYS/#", "$CONTROL/#", "$share/#")
_KINDS = ("publishClientSend", "publishClientReceive", "subscribePattern")
_encode = msgspec.json.Encoder().encode


class Role(NamedTuple):
    """A role: named by what it says, so that one name always says the same."""

    name: str
    acls: tuple[Command, ...]

    def create(self) -> Command:
        """The command that makes it."""
        return {"command": "createRole", "rolename": self.name, "acls": list(self.acls)}


def last_role(prefix: str) -> Role:
    """Denies what no other role allowed, whatever the broker's defaults are for everybody else."""
    return _role(f"{prefix}-last", [_acl(kind, "#", allow=False) for kind in _KINDS])


def rights_role(prefix: str, acl: Acl) -> Role | None:
    """The role that allows what the list says; None where that is nothing.

    What may be heard is said twice: for subscribing, and for each delivery. So a session that was
    subscribed with more rights delivers nothing beyond those of today.
    """
    subscribe, publish = _safe(acl.subscribe), _safe(acl.publish)
    if not subscribe and not publish:
        return None
    acls = []
    if any(each[0] in "+#" for each in (*subscribe, *publish)):
        # A pattern that begins with a wildcard fits `$SYS`, `$CONTROL` and `$share` too, unlike in MQTT.
        acls += [_acl(kind, topic, allow=False, priority=1) for topic in _SYSTEM for kind in _KINDS]
    for topic in subscribe:
        acls += [_acl("subscribePattern", topic), _acl("publishClientReceive", topic)]
    acls += [_acl("publishClientSend", topic) for topic in publish]
    return _role(f"{prefix}-", acls)


def split(acl: Acl, shared: Acl) -> tuple[Acl, Acl]:
    """What of a list others have too, and what is its own."""

    def part(among: bool) -> Acl:
        subscribe = tuple(each for each in acl.subscribe if (each in shared.subscribe) is among)
        publish = tuple(each for each in acl.publish if (each in shared.publish) is among)
        return Acl(subscribe, publish, acl.complete)

    return part(True), part(False)


def create_client(username: str, password: str, client_id: str, roles: Sequence[Role], last: Role) -> Command:
    """A client who may come in under one client id, and no other."""
    return {
        "command": "createClient",
        "username": username,
        "password": password,
        "clientid": client_id,
        "roles": _listed(roles, last),
    }


def modify_client(username: str, password: str, roles: Sequence[Role], last: Role) -> Command:
    """Other rights, or another password. Ends the connection; the session and its subscriptions stay."""
    return {"command": "modifyClient", "username": username, "password": password, "roles": _listed(roles, last)}


def _listed(roles: Sequence[Role], last: Role) -> list[Command]:
    return [{"rolename": role.name, "priority": 0} for role in roles] + [{"rolename": last.name, "priority": -1}]


def enable_client(username: str) -> Command:
    """May come in again."""
    return {"command": "enableClient", "username": username}


def disable_client(username: str) -> Command:
    """May not come in; ends the connection. The session goes on queueing what its roles allow."""
    return {"command": "disableClient", "username": username}


def delete_client(username: str) -> Command:
    """Forgets a client, and ends its connection. Its session's subscriptions are lost (without a word)."""
    return {"command": "deleteClient", "username": username}


def delete_role(name: str) -> Command:
    """Forgets a role that no client has."""
    return {"command": "deleteRole", "rolename": name}


def _safe(filters: Iterable[str]) -> list[str]:
    """Without those that a Mosquitto which knows placeholders would read as something else."""
    return [each for each in filters if "%u" not in each and "%c" not in each and not each.startswith("$")]


def _acl(kind: str, topic: str, *, allow: bool = True, priority: int = 0) -> Command:
    return {"acltype": kind, "topic": topic, "priority": priority, "allow": allow}


def _role(name: str, acls: list[Command]) -> Role:
    digest = hashlib.blake2b(_encode(acls), digest_size=10).hexdigest()
    return Role(name + digest if name.endswith("-") else f"{name}-{digest}", tuple(acls))
