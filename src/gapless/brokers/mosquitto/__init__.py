"""Mosquitto's dynamic security, provisioned by the gateway: https://mosquitto.org/documentation/dynamic-security/."""

from gapless.brokers.mosquitto.control import Control
from gapless.brokers.mosquitto.provision import Provision

__all__ = ["Control", "Provision"]
