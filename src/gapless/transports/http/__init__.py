"""The HTTP doors: REST, long poll, server-sent events, connect, health, metrics and pages."""

from gapless.transports.http.connect import Offers
from gapless.transports.http.doors import HttpDoors
from gapless.transports.http.endpoint import Paths
from gapless.transports.http.front import Front
from gapless.transports.http.metrics import Sample
from gapless.transports.http.options import HttpOptions

__all__ = ["Front", "HttpDoors", "HttpOptions", "Offers", "Paths", "Sample"]
