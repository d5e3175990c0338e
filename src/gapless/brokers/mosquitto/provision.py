"""Accounts with exactly a user's rights, made at Mosquitto when a client asks to connect.

One account a client id, since Mosquitto judges a session by the account it belongs to: an account that is deleted
takes the session's subscriptions with it, silently. So one whose token ended is disabled, which ends
the connection and keeps the session, until the client comes with a fresh one; only what was revoked, or was away
for long, is deleted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time as _time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec

from gapless.auth import Acl, Gate, Identity, Lease
from gapless.brokers.mosquitto.accounts import Account, Accounts
from gapless.brokers.mosquitto.commands import Command, delete_client, disable_client
from gapless.brokers.mosquitto.control import BrokerUnavailable, Control
from gapless.brokers.mosquitto.roles import Roles
from gapless.errors import Forbidden, GaplessError, NotDecided, Unauthorized
from gapless.eventlog import EventLog
from gapless.link import LinkOptions

logger = logging.getLogger("gapless.brokers")

HOUSEKEEPING = 30.0
"""Seconds between two looks at what nobody needs any more, and at what the application granted."""

PASSWORD_SECONDS = 86_400.0
"""A password that is older is replaced when its client asks again."""

_MOST_AT_ONCE = 50  # commands of one round of housekeeping


class _Holder:
    """Tells the provision when an account's access ends."""

    def __init__(self, provision: Provision, username: str) -> None:
        self._provision = provision
        self._username = username
        self.lease: Lease | None = None

    def access_ended(self, error: Unauthorized) -> None:
        self._provision.end(self._username, keep_session=error.details.get("reason") == "expired")

    def access_changed(self) -> None:
        self._provision.look_again(self._username)


class Provision:
    """Keeps Mosquitto's clients and roles as they should be.

    Args:
        options: the broker, and the account that may administer dynamic security.
        rights: what can be listed of what an identity may.
        prefix: names of ours begin with it and `-`; two gateways on one broker need two.
        limit: most accounts; each command costs the broker time in proportion to them.
        keep_seconds: for which an account is kept after its end, with its session.
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        *,
        options: LinkOptions,
        gate: Gate,
        log: EventLog,
        rights: Callable[[Identity], Acl],
        prefix: str,
        limit: int,
        keep_seconds: float,
        clock: Callable[[], float] = _time.time,
    ) -> None:
        self._gate = gate
        self._rights = rights
        self._prefix = prefix
        self._limit = limit
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._roles = Roles(prefix, rights)
        self._holders: dict[str, _Holder] = {}
        self._making: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeping: asyncio.Task[None] | None = None
        self.accounts = Accounts(log)
        self.control = Control(options, self.reconcile)

    @property
    def problem(self) -> str:
        """What is wrong, for `/readyz`; empty where nothing is."""
        return self.control.problem

    async def start(self) -> None:
        """Read which accounts there are, and begin to connect. The broker may be away.

        Raises:
            LogUnavailable: the database cannot be read.
        """
        await self.accounts.load()
        for account in self.accounts.list():
            if account.ended is None:
                self._hold(account)
                self.look_again(account.username)  # rights, or the map, may have changed meanwhile
        self.control.start()
        self._keeping = asyncio.create_task(self._keep_house(), name="dynamic-security-housekeeping")

    async def stop(self) -> None:
        """Tell the broker nothing more. The accounts stay, and those who are connected stay connected."""
        tasks = [*self._tasks, *([] if self._keeping is None else [self._keeping])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for username in list(self._holders):
            self._let_go(username)
        await self.control.stop()

    # --- making

    async def account(self, identity: Identity, client_id: str, granted: Iterable[str], *, lifetime: float) -> Account:
        """The account of a client: the one that it has, brought up to date, or a new one.

        It can connect once this returns. Where nothing changed but the end, the broker is told nothing.

        Args:
            client_id: under which it comes in; `names.is_own_client_id`.
            granted: filters that the identity may hear beyond what can be listed of its rights.
            lifetime: seconds.

        Raises:
            BrokerUnavailable: the broker is away, or there are too many accounts.
            CommandRefused: the broker does not take it.
            LogUnavailable: it cannot be kept.
        """
        username = f"{self._prefix}-{client_id}"
        while (other := self._making.get(username)) is not None:
            await asyncio.wait([other])
        made = self._making[username] = asyncio.get_running_loop().create_future()
        try:
            return await self._account(identity, username, client_id, tuple(granted), lifetime)
        finally:
            del self._making[username]
            made.set_result(None)

    async def _account(
        self, identity: Identity, username: str, client_id: str, granted: tuple[str, ...], lifetime: float
    ) -> Account:
        listed, now = self._rights(identity), self._clock()
        present = self.accounts.get(username)
        if present is None and len(self.accounts) >= self._limit:
            raise BrokerUnavailable("there are too many accounts at the broker", limit=self._limit)
        same_password = present is not None and present.ended is None and now - present.made < PASSWORD_SECONDS
        account = Account(
            username=username,
            client_id=client_id,
            identity=msgspec.structs.replace(identity, expires=_earlier(now + lifetime, identity.expires)),
            acl=listed.with_more(subscribe=granted),
            granted=tuple(each for each in granted if each not in listed.subscribe),
            made=present.made if present is not None and same_password else now,
            salt=present.salt if present is not None and same_password else secrets.token_hex(8),
        )
        if not self.control.connected:
            raise BrokerUnavailable("the broker cannot be told what its clients may do", hint=self.problem)
        await self.control.wait_ready()
        self._let_go(username)
        await self.accounts.put(account)
        try:
            if present is None or not same_password or present.acl != account.acl:
                await self._tell(account, present)
        except (GaplessError, asyncio.CancelledError):
            self.end(username, keep_session=True)  # it may be there all the same
            raise
        self._hold(account)
        return account

    async def _tell(self, account: Account, present: Account | None) -> None:
        """Have the broker make the account, or change the one that is there."""
        await self._roles.give(
            self.control,
            account,
            self.accounts.password(account),
            is_new=present is None,
            was_disabled=present is not None and present.ended is not None,
        )

    def _hold(self, account: Account) -> None:
        holder = self._holders[account.username] = _Holder(self, account.username)
        holder.lease = self._gate.hold(account.identity, holder)

    def _let_go(self, username: str) -> None:
        holder = self._holders.pop(username, None)
        if holder is not None and holder.lease is not None:
            holder.lease.release()

    # --- ending

    def end(self, username: str, *, keep_session: bool) -> None:
        """End an account and the connection made with it.

        Args:
            keep_session: its session at the broker goes on queueing, for when the client comes again.
        """
        self._let_go(username)
        account = self.accounts.get(username)
        if account is None or account.ended is not None:
            return
        if keep_session:
            self._send([disable_client(username)])
            self._start(self.accounts.put(msgspec.structs.replace(account, ended=self._clock())), "end")
        else:
            self._send([delete_client(username)])
            self._start(self.accounts.drop(account), "end")

    def _send(self, commands: list[Command]) -> None:
        """Have commands sent; where the broker is away, it is brought into line when it is back."""
        try:
            self.control.enqueue(commands)
        except BrokerUnavailable as error:
            logger.debug("dynamic security: not told now: %s", error.message)

    def look_again(self, username: str) -> None:
        """Rights may have changed: then the broker is told, and ends the connection; the session goes on."""
        self._start(self._look_again(username), "review")

    async def _look_again(self, username: str) -> None:
        account = self.accounts.get(username)
        if account is None or account.ended is not None:
            return
        identity = account.identity
        await self._gate.prepare(identity, filters=account.granted)
        granted = tuple(each for each in account.granted if self._may_hear(identity, each))
        acl = self._rights(identity).with_more(subscribe=granted)
        if acl == account.acl or self.accounts.get(username) is not account:
            return
        changed = msgspec.structs.replace(account, acl=acl, granted=granted)
        await self.accounts.put(changed)
        if self.control.connected:
            await self._tell(changed, account)

    def _may_hear(self, identity: Identity, topic_filter: str) -> bool:
        try:
            self._gate.check_subscribe_filter(identity, topic_filter)
        except (Forbidden, NotDecided):
            return False
        return True

    def _start(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.create_task(work, name=f"dynamic-security-{what}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, GaplessError):  # the next start, or the next connection, mends it
            logger.warning("%s: %s", task.get_name(), error.message)
        elif error is not None:
            logger.error("%s failed", task.get_name(), exc_info=error)

    # --- bringing into line

    async def reconcile(self) -> None:
        """Make the broker have our accounts and roles, and no others of ours. Names of others are left alone.

        Raises:
            BrokerUnavailable, CommandRefused: see `Control.do`.
        """
        clients = await self._roles.look(self.control)
        stale = [name for name in clients if self.accounts.get(name) is None]
        self._send([delete_client(name) for name in stale])
        made = 0
        for account in self.accounts.list():
            found = clients.get(account.username)
            if self.accounts.get(account.username) is not account:
                continue  # it changed meanwhile, and the broker was told
            if account.ended is not None:
                if found is None:
                    await self.accounts.drop(account)
                elif not found.disabled:
                    self._send([disable_client(account.username)])
            elif found is None or found.disabled or not self._roles.are_those_of(account, found):
                made += 1
                password = self.accounts.password(account)
                await self._roles.give(
                    self.control, account, password, is_new=found is None, was_disabled=bool(found and found.disabled)
                )
        await self._roles.remove_unused(self.control, self.accounts.list())
        if stale or made:
            logger.info("dynamic security: %d accounts removed, %d made or changed", len(stale), made)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING)
            try:
                await self.keep_house()
            except GaplessError as error:
                logger.warning("dynamic security: %s; trying again", error.message)
            except Exception:
                logger.exception("dynamic security: housekeeping failed; trying again")

    async def keep_house(self) -> None:
        """Ask again what the application granted; remove accounts that ended long ago, and roles that nobody has.

        Raises:
            LogUnavailable, BrokerUnavailable, CommandRefused: it stays for the next time.
        """
        for account in self.accounts.list():
            if account.granted:
                await self._look_again(account.username)
        if not self.control.ready:
            return
        now = self._clock()
        over = [
            each for each in self.accounts.list() if each.ended is not None and now - each.ended > self._keep_seconds
        ]
        for account in over[:_MOST_AT_ONCE]:
            self._send([delete_client(account.username)])
            await self.accounts.drop(account)
        await self._roles.remove_unused(self.control, self.accounts.list(), most=_MOST_AT_ONCE)


def _earlier(one: float, other: float | None) -> float:
    return one if other is None else min(one, other)
