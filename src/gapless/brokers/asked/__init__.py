"""HTTP endpoints that brokers ask, each in the broker's own language."""

from gapless.brokers.asked.door import BROKER_PATH, BrokerDoor

__all__ = ["BROKER_PATH", "BrokerDoor"]
