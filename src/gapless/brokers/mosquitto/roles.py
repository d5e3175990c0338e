"""The roles that accounts have at Mosquitto: made when first needed, shared, removed when nobody has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from gapless.auth import Acl, Identity
from gapless.brokers.mosquitto.accounts import Account
from gapless.brokers.mosquitto.commands import (
    Role,
    create_client,
    delete_role,
    enable_client,
    last_role,
    modify_client,
    rights_role,
    split,
)
from gapless.brokers.mosquitto.control import CommandRefused, Control

_MOST_SHARED = 1000


class _ClientRole(msgspec.Struct):
    name: str = msgspec.field(name="rolename")


class Found(msgspec.Struct):
    """A client as the broker has it."""

    username: str
    disabled: bool = False
    roles: list[_ClientRole] = []


class Roles:
    """Knows which roles the broker has, and which an account needs.

    Args:
        prefix: names of ours begin with it and `-`.
        rights: what can be listed of what an identity may.
    """

    def __init__(self, prefix: str, rights: Callable[[Identity], Acl]) -> None:
        self._prefix = prefix
        self._rights = rights
        self._last = last_role(prefix)
        self._present: set[str] = set()
        self._shared: dict[tuple[frozenset[str], bool, bool], Acl] = {}
        self._names: dict[str, tuple[Account, frozenset[str]]] = {}

    def of(self, account: Account) -> list[Role]:
        """What it shares with everybody of the same roles, and what is its own."""
        who = account.identity
        key = (who.roles, who.service, who.user_id is None)
        shared = self._shared.get(key)
        if shared is None:
            # Somebody else with the same roles: no filter names this user, or its rooms.
            other = Identity(user_id=None if who.user_id is None else "\x7f", roles=who.roles, service=who.service)
            if len(self._shared) >= _MOST_SHARED:
                self._shared.clear()
            shared = self._shared[key] = self._rights(other)
        parts = split(account.acl, shared)
        return [role for part in parts if (role := rights_role(self._prefix, part)) is not None]

    def names_of(self, account: Account) -> frozenset[str]:
        """The names of all its roles."""
        known = self._names.get(account.username)
        if known is None or known[0] is not account:
            names = frozenset(role.name for role in (*self.of(account), self._last))
            known = self._names[account.username] = account, names
        return known[1]

    async def look(self, control: Control) -> dict[str, Found]:
        """Ask the broker what it has; its clients of ours, by user name.

        Raises:
            BrokerUnavailable, CommandRefused: see `Control.do`.
        """
        clients, roles = await control.do(
            [
                {"command": "listClients", "verbose": True, "count": -1, "offset": 0},
                {"command": "listRoles", "verbose": False, "count": -1, "offset": 0},
            ]
        )
        own = f"{self._prefix}-"
        self._present = {name for name in roles["roles"] if name.startswith(own)}
        found = msgspec.convert(clients["clients"], list[Found])
        return {each.username: each for each in found if each.username.startswith(own)}

    def are_those_of(self, account: Account, found: Found) -> bool:
        """Whether the broker has the account with its roles."""
        return {role.name for role in found.roles} == self.names_of(account)

    async def give(
        self, control: Control, account: Account, password: str, *, is_new: bool, was_disabled: bool
    ) -> None:
        """Make an account, or give it its password and roles, and the roles themselves where they are missing.

        Where somebody else removed one of them meanwhile, it is made anew.

        Raises:
            BrokerUnavailable, CommandRefused: see `Control.do`.
        """
        try:
            await self._give(control, account, password, is_new=is_new, was_disabled=was_disabled)
        except CommandRefused as error:
            if "not found" not in error.message:
                raise
            self._present -= self.names_of(account)
            await self._give(control, account, password, is_new=True, was_disabled=False)

    async def _give(
        self, control: Control, account: Account, password: str, *, is_new: bool, was_disabled: bool
    ) -> None:
        roles = self.of(account)
        commands = [role.create() for role in (*roles, self._last) if role.name not in self._present]
        if is_new:
            commands.append(create_client(account.username, password, account.client_id, roles, self._last))
        else:
            commands.append(modify_client(account.username, password, roles, self._last))
        if was_disabled:
            commands.append(enable_client(account.username))
        futures = control.enqueue(commands)
        self._present |= self.names_of(account)  # whoever comes next is behind us in the queue
        for error in await asyncio.gather(*futures, return_exceptions=True):
            # One name always says the same: what is there already is as good.
            if isinstance(error, BaseException) and "already exists" not in str(error):
                self._present -= self.names_of(account)
                raise error

    async def remove_unused(self, control: Control, accounts: Sequence[Account], *, most: int | None = None) -> None:
        """Remove roles that no account has.

        Raises:
            BrokerUnavailable: see `Control.do`.
        """
        self._names = {each.username: self._names[each.username] for each in accounts if self.names_of(each)}
        used = frozenset().union(*(names for _, names in self._names.values()))
        unused = sorted(self._present - used - {self._last.name})[:most]
        self._present -= set(unused)
        try:
            await control.do([delete_role(name) for name in unused])
        except CommandRefused:
            return  # somebody was quicker
