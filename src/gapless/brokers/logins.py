"""Whom a broker speaks of: the clients that it asked about when they connected.

A broker that asks whether a client may subscribe names the user and the client, not the token. What the
token said is kept from the connect on, in the log's database too: a gateway that starts again knows the
clients that are connected at the broker. It is forgotten when the token ends or is revoked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from urllib.parse import quote

import msgspec

from gapless.auth import Gate, Identity, Lease
from gapless.errors import Unauthorized
from gapless.eventlog import EventLog, StateKind, StateWrite

logger = logging.getLogger("gapless.brokers")

MAX_LOGINS = 100_000
"""Clients remembered; past it, the one that connected longest ago is forgotten, and denied from then on."""

_encode = msgspec.msgpack.Encoder().encode
_Key = tuple[str, str]


class _Stored(msgspec.Struct, array_like=True):
    username: str
    client_id: str
    identity: Identity


_decode = msgspec.msgpack.Decoder(_Stored).decode


class _Login:
    """One client's, and the holder of its access."""

    __slots__ = ("_logins", "identity", "key", "lease")

    def __init__(self, logins: Logins, key: _Key, identity: Identity) -> None:
        self._logins = logins
        self.key = key
        self.identity = identity
        self.lease: Lease | None = None

    def access_ended(self, error: Unauthorized) -> None:
        self._logins.forget(self)

    def access_changed(self) -> None:
        """Nothing to do: every question is answered by the rights of that moment."""


class Logins:
    """All clients that connected to a broker and whose access lasts."""

    def __init__(self, *, gate: Gate, log: EventLog, limit: int = MAX_LOGINS) -> None:
        self._gate = gate
        self._log = log
        self._limit = limit
        self._all: OrderedDict[_Key, _Login] = OrderedDict()
        self._by_user: dict[str, dict[str, _Login]] = {}
        self._open = False
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._all)

    async def start(self) -> None:
        """Read what an earlier process knew."""
        self._open = True
        for raw in (await self._log.all_state(StateKind.BROKER_LOGIN)).values():
            stored = _decode(raw)
            self._add((stored.username, stored.client_id), stored.identity)

    async def stop(self) -> None:
        """Mind their access no more; what is stored stays."""
        self._open = False
        for login in self._all.values():
            if login.lease is not None:
                login.lease.release()
        self._all.clear()
        self._by_user.clear()

    async def remember(self, username: str, client_id: str, identity: Identity) -> None:
        """A client connects. Returns once a kill of the gateway does not make it forget.

        Raises:
            LogUnavailable: it could not be stored: the client is not to be let in.
        """
        key = (username, client_id)
        stored = _encode(_Stored(username, client_id, identity))
        await self._log.write_state([StateWrite(StateKind.BROKER_LOGIN, _state_key(key), stored)], durable=False)
        self._add(key, identity)

    def find(self, username: str, client_id: str | None) -> list[Identity]:
        """Whom the broker means; of a user whose client it does not name, all clients'."""
        logins = self._by_user.get(username, {})
        if client_id is None:
            return [login.identity for login in logins.values()]
        return [logins[client_id].identity] if client_id in logins else []

    def _add(self, key: _Key, identity: Identity) -> None:
        earlier = self._all.pop(key, None)
        if earlier is not None and earlier.lease is not None:
            earlier.lease.release()
        login = _Login(self, key, identity)
        self._all[key] = login
        self._by_user.setdefault(key[0], {})[key[1]] = login
        login.lease = self._gate.hold(identity, login)
        if len(self._all) > self._limit:
            self.forgotten += 1
            if self.forgotten & (self.forgotten - 1) == 0:
                logger.warning("more than %d clients at brokers: the oldest are forgotten", self._limit)
            self.forget(next(iter(self._all.values())))

    def forget(self, login: _Login) -> None:
        """From now on the client is denied."""
        if self._all.get(login.key) is not login:
            return
        del self._all[login.key]
        logins = self._by_user[login.key[0]]
        del logins[login.key[1]]
        if not logins:
            del self._by_user[login.key[0]]
        if login.lease is not None:
            login.lease.release()
        if self._open:
            write = StateWrite(StateKind.BROKER_LOGIN, _state_key(login.key), None)
            self._log.write_state([write], durable=False).add_done_callback(_note_failure)


def _note_failure(done: asyncio.Future[None]) -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:  # its access is over all the same, and checked again when it is read
        logger.warning("a client of a broker could not be taken out of the database: %s", error)


def _state_key(key: _Key) -> str:
    return f"{quote(key[0], safe='')}/{quote(key[1], safe='')}"
