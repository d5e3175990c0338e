"""Everything about external brokers and who may do what there, put together."""

from __future__ import annotations

from collections.abc import Callable

from gapless.auth import Gate
from gapless.brokers.asked import BrokerDoor
from gapless.brokers.judge import Judge
from gapless.brokers.logins import Logins
from gapless.brokers.options import BrokerAuthOptions
from gapless.eventlog import EventLog
from gapless.link import LinkOptions


class BrokerAccess:
    """The door that brokers ask at, and whom they speak of.

    Args:
        link: the gateway's own account at the broker, and the topics over which it serves history.
        link_client_id: the link's client id.

    Attributes:
        door: the ASGI application under `BROKER_PATH`; None without a secret.
    """

    def __init__(
        self,
        *,
        options: BrokerAuthOptions,
        gate: Gate,
        log: EventLog,
        link: LinkOptions | None,
        link_client_id: Callable[[], str | None],
    ) -> None:
        self.logins = Logins(gate=gate, log=log)
        self.judge = Judge(gate=gate, logins=self.logins, options=options, link=link, link_client_id=link_client_id)
        self.door = None if options.secret is None else BrokerDoor(judge=self.judge, options=options)

    async def start(self) -> None:
        """Read what an earlier process knew; the log must be open."""
        await self.logins.start()

    async def stop(self) -> None:
        """Mind nobody's access any more."""
        await self.logins.stop()
