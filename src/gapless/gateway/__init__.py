"""The gateway: the log, the hub and every door, composed."""

from gapless.gateway.app import Gateway

__all__ = ["Gateway"]
