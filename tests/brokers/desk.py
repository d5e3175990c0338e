"""The door for brokers over a log in memory, and tokens of the application."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import httpx
import jwt

from gapless.auth import AuthOptions, Gate, PolicyGate
from gapless.brokers import BrokerAuthOptions, BrokerDoor, Judge, Logins
from gapless.eventlog import EventLog, MemoryLog
from gapless.link import LinkOptions
from gapless.topicmap import crm_map

KEY = "a-secret-of-the-application-for-tests"
SECRET = "0123456789abcdef0123456789abcdef"
LINK = LinkOptions(url="mqtt://link-user:link-password@127.0.0.1:1883")
LINK_ID = "gapless-k3x9"


def token(user: str, *roles: str, expires_in: float = 3600, **claims: object) -> str:
    """A token of the application."""
    now = int(time.time())
    return jwt.encode({"sub": user, "roles": list(roles), "iat": now, "exp": now + expires_in, **claims}, KEY, "HS256")


class Desk:
    """The door, what is behind it, and a broker that asks."""

    def __init__(
        self, *, log: EventLog | None = None, gate: Gate | None = None, link: LinkOptions | None = LINK, **options: Any
    ) -> None:
        self.log = log or MemoryLog()
        self.gate = gate or PolicyGate(crm_map(), AuthOptions(secret=KEY))
        self.options = BrokerAuthOptions(secret=SECRET, **options)
        self.logins = Logins(gate=self.gate, log=self.log)
        self.judge = Judge(
            gate=self.gate, logins=self.logins, options=self.options, link=link, link_client_id=lambda: LINK_ID
        )
        self.door = BrokerDoor(judge=self.judge, options=self.options)
        transport = httpx.ASGITransport(app=self.door)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://gateway/broker-auth")

    async def __aenter__(self) -> Self:
        await self.log.open(lambda records: None)
        await self.logins.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.logins.stop()
        await self.log.close()
        await self.http.aclose()

    async def ask(self, path: str, body: bytes, content_type: str, **headers: str) -> httpx.Response:
        """A request with the secret as Bearer token."""
        sent = {"authorization": f"Bearer {SECRET}", "content-type": content_type, **headers}
        return await self.http.post(path, content=body, headers=sent)

    async def form(self, path: str, **fields: str) -> httpx.Response:
        """A form; underscores of names that have dots are doubled."""
        sent = {name.replace("__", "."): value for name, value in fields.items()}
        return await self.http.post(path, data=sent, headers={"authorization": f"Bearer {SECRET}"})

    async def json(self, path: str, body: object, **headers: str) -> httpx.Response:
        """A JSON body."""
        return await self.http.post(path, json=body, headers={"authorization": f"Bearer {SECRET}", **headers})
