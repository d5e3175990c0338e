"""The link to an external MQTT broker, and the engine of `gapless check`.

link = BrokerLink(options=LinkOptions(url="mqtts://user:password@broker.example"), ...)
await link.start()
...
await link.stop()
"""

from gapless.link.address import BrokerAddress, parse_address
from gapless.link.errors import LinkError
from gapless.link.link import BrokerLink
from gapless.link.options import LinkOptions
from gapless.link.stats import LinkState, LinkStats

__all__ = ["BrokerAddress", "BrokerLink", "LinkError", "LinkOptions", "LinkState", "LinkStats", "parse_address"]
