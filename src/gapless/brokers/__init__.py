"""External brokers that obey the gateway's rules: they ask it over HTTP, or are told by it."""

from gapless.brokers.access import BrokerAccess
from gapless.brokers.asked import BROKER_PATH, BrokerDoor
from gapless.brokers.judge import Judge
from gapless.brokers.logins import Logins
from gapless.brokers.options import BrokerAuthOptions

__all__ = ["BROKER_PATH", "BrokerAccess", "BrokerAuthOptions", "BrokerDoor", "Judge", "Logins"]
