"""Accounts at Mosquitto: which there should be, kept in the log's database before the broker is told.

So after a kill of the gateway, a restart of the broker, or the loss of its file, the one is brought into line
with the other. Passwords are not stored: each is made of the account and a key that the database keeps.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

import msgspec

from gapless.auth import Acl, Identity
from gapless.eventlog import EventLog, StateKind, StateWrite

_KEY = "key"
_ACCOUNT = "account/"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The account of one client of one user.

    Attributes:
        username, client_id: at the broker; it may come in under no other client id.
        identity: whose it is; `expires` is the account's end.
        acl: what it may.
        granted: filters of `acl` that rest on what the application said: looked at again now and then.
        made: seconds since the Unix epoch at which its password was made.
        salt: makes the password another one than before.
        ended: seconds since the Unix epoch at which it ended; it is then kept, for its session at the broker, but
            nobody comes in with it.
    """

    username: str
    client_id: str
    identity: Identity
    acl: Acl
    granted: tuple[str, ...] = ()
    made: float = 0.0
    salt: str = ""
    ended: float | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Account).decode


class Accounts:
    """All accounts of this gateway, by user name."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._key = b""
        self._all: dict[str, Account] = {}

    async def load(self) -> None:
        """Read those of an earlier process.

        Raises:
            LogUnavailable: the database cannot be read.
        """
        stored = await self._log.all_state(StateKind.BROKER_ACCOUNT)
        self._key = stored.pop(_KEY, b"")
        if not self._key:
            self._key = secrets.token_bytes(32)
            await self._log.write_state([StateWrite(StateKind.BROKER_ACCOUNT, _KEY, self._key)], durable=True)
        for raw in stored.values():
            account = _decode(raw)
            self._all[account.username] = account

    def __len__(self) -> int:
        return len(self._all)

    def get(self, username: str) -> Account | None:
        """The account of that name."""
        return self._all.get(username)

    def list(self) -> list[Account]:
        """All of them, those that ended too."""
        return list(self._all.values())

    def password(self, account: Account) -> str:
        """The account's password: 32 characters."""
        text = f"{account.username}\0{account.salt}"
        return base64.urlsafe_b64encode(hmac.digest(self._key, text.encode(), hashlib.sha256)[:24]).decode()

    async def put(self, account: Account) -> None:
        """Keep an account: at once in this process, over a kill of it once this returns.

        Raises:
            LogUnavailable: a restart of the gateway would not know it.
        """
        self._all[account.username] = account
        await self._write(account.username, _encode(account))

    async def drop(self, account: Account) -> None:
        """Forget an account: at once in this process, for good once this returns.

        Raises:
            LogUnavailable: a restart of the gateway would know it again; its end is checked then.
        """
        self._all.pop(account.username, None)
        await self._write(account.username, None)

    async def _write(self, username: str, value: bytes | None) -> None:
        state = StateWrite(StateKind.BROKER_ACCOUNT, _ACCOUNT + username, value)
        await self._log.write_state([state], durable=False)
