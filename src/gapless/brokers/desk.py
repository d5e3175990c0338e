"""Credentials for clients of an external broker, in the way that the broker knows."""

from __future__ import annotations

import asyncio
import secrets
import time as _time
from collections.abc import Callable, Sequence

from gapless.auth import Acl, Identity
from gapless.brokers.asked.emqx import acl_claim
from gapless.brokers.judge import Judge
from gapless.brokers.mosquitto import Provision
from gapless.brokers.mosquitto.control import BrokerUnavailable, CommandRefused
from gapless.brokers.names import SEPARATOR, name_of
from gapless.brokers.offer import BrokerOffer
from gapless.brokers.options import BrokerAuthOptions
from gapless.link import LinkOptions
from gapless.mqtt.filters import covers

WAIT = 5.0
"""Seconds that a client waits for its account at Mosquitto."""


class Desk:
    """See `BrokerDesk`.

    Args:
        provision: of Mosquitto; needed for `credentials = "mosquitto"`.
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        *,
        options: BrokerAuthOptions,
        judge: Judge,
        link: LinkOptions | None,
        provision: Provision | None,
        clock: Callable[[], float] = _time.time,
    ) -> None:
        self._options = options
        self._judge = judge
        self._link = link
        self._provision = provision
        self._clock = clock

    @property
    def urls(self) -> tuple[str, ...]:
        """See `BrokerDesk.urls`."""
        return self._options.urls

    async def offer(
        self, identity: Identity, *, token: str | None, device: str | None, filters: Sequence[str]
    ) -> BrokerOffer | None:
        """See `BrokerDesk.offer`."""
        name = name_of(identity)
        if not name:
            return None
        client_id = f"{name}{SEPARATOR}{device or secrets.token_hex(6)}"
        match self._options.credentials:
            case "token":
                if token is None:
                    return None
                username = f"{name}{SEPARATOR}{secrets.token_hex(4)}"
                return self._offer(identity, username, token, client_id, identity.expires, filters)
            case "jwt":
                return self._with_jwt(identity, name, client_id, filters)
            case "mosquitto":
                return await self._with_account(identity, client_id, filters)

    def _with_jwt(self, identity: Identity, name: str, client_id: str, filters: Sequence[str]) -> BrokerOffer:
        """A token for EMQX. What it names as user and client must be what the client connects as."""
        import jwt  # only where it is needed: it loads the whole of cryptography

        acl = self._judge.rights(identity)
        acl = Acl((), (), acl.complete).with_more(subscribe=[*filters, *acl.subscribe], publish=acl.publish)
        lines = acl_claim(acl, limit=self._options.jwt_lines)
        now = int(self._clock())
        expires = int(self._end(identity))
        claims = {"sub": name, "username": name, "clientid": client_id, "iat": now, "exp": expires, "acl": lines}
        password = jwt.encode(claims, self._options.jwt_secret or "", "HS256")
        allowed = [line["topic"] for line in lines if (line["permission"], line["action"]) == ("allow", "subscribe")]
        heard = [each for each in filters if any(covers(wide, each) for wide in allowed)]
        return self._offer(identity, name, password, client_id, expires, heard)

    async def _with_account(self, identity: Identity, client_id: str, filters: Sequence[str]) -> BrokerOffer:
        assert self._provision is not None
        try:
            async with asyncio.timeout(WAIT):
                account = await self._provision.account(identity, client_id, filters, lifetime=self._options.lifetime)
        except TimeoutError as error:
            raise BrokerUnavailable(f"the broker did not take the account within {WAIT:g} s") from error
        except CommandRefused as error:
            raise BrokerUnavailable(f"the broker refused the account: {error.message}") from error
        password = self._provision.accounts.password(account)
        heard = [each for each in filters if any(covers(wide, each) for wide in account.acl.subscribe)]
        return self._offer(identity, account.username, password, client_id, account.identity.expires, heard)

    def _end(self, identity: Identity) -> float:
        end = self._clock() + self._options.lifetime
        return end if identity.expires is None else min(end, identity.expires)

    def _offer(
        self,
        identity: Identity,
        username: str,
        password: str,
        client_id: str,
        expires: float | None,
        filters: Sequence[str],
    ) -> BrokerOffer:
        link = self._link
        history = None if link is None else link.history_topic
        own = [each for each in self._judge.own_subscribe(identity) if each.endswith("/#")]
        return BrokerOffer(
            username=username,
            password=password,
            client_id=client_id,
            expires=expires,
            filters=tuple(filters),
            history_topic=history,
            replies=own[0][:-2] if own else None,
            heartbeat_topic=link.heartbeat_topic if link is not None and self._options.heartbeat else None,
        )
