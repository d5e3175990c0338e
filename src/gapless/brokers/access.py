"""Everything about external brokers and who may do what there, put together."""

from __future__ import annotations

from collections.abc import Callable

from gapless.auth import Gate
from gapless.brokers.asked import BrokerDoor
from gapless.brokers.desk import Desk
from gapless.brokers.judge import Judge
from gapless.brokers.logins import Logins
from gapless.brokers.mosquitto import Provision
from gapless.brokers.options import BrokerAuthOptions
from gapless.eventlog import EventLog
from gapless.link import LinkOptions


class BrokerAccess:
    """The door that brokers ask at, the accounts made at Mosquitto, and credentials for clients.

    Args:
        link: the gateway's own account at the broker, and the topics over which it serves history.
        link_client_id: the link's client id.

    Attributes:
        door: the ASGI application under `BROKER_PATH`; None without a secret.
        provision: what is told to Mosquitto; None where nothing is.
        desk: hands out credentials.

    Raises:
        ConfigError: a setting cannot work.
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
        self.provision: Provision | None = None
        if options.mosquitto is not None:
            self.provision = Provision(
                options=options.mosquitto.connection(link),
                gate=gate,
                log=log,
                rights=self.judge.rights,
                prefix=options.mosquitto.prefix,
                limit=options.mosquitto.max_accounts,
                keep_seconds=options.mosquitto.keep_seconds,
            )
        self.desk = Desk(options=options, judge=self.judge, link=link, provision=self.provision)

    @property
    def problem(self) -> str:
        """What is wrong, for `/readyz`; empty where nothing is."""
        return "" if self.provision is None else self.provision.problem

    async def start(self) -> None:
        """Read what an earlier process knew, and begin to tell Mosquitto; the log must be open."""
        await self.logins.start()
        if self.provision is not None:
            await self.provision.start()

    async def stop(self) -> None:
        """Mind nobody's access any more. Clients stay connected at the broker."""
        if self.provision is not None:
            await self.provision.stop()
        await self.logins.stop()
