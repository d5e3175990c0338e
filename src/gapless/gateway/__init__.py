"""The gateway: the log, the hub and every door, composed."""

from gapless.gateway.app import Gateway
from gapless.gateway.process import tune_process

__all__ = ["Gateway", "tune_process"]
