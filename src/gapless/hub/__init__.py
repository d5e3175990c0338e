"""From the committed log to the transports of this node."""

from gapless.hub.hub import Fanout, Hub
from gapless.hub.retained import RetainedMessages

__all__ = ["Fanout", "Hub", "RetainedMessages"]
