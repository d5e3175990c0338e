"""Helpers for tests: the real gateway, a real Mosquitto, JavaScript clients, and a link that fails on demand.

Nothing here is a stand-in: gateway and broker are processes that a test kills with SIGKILL and starts again
on the same ports and data, and the link is a TCP proxy between real sockets. POSIX only (Linux, macOS).
Certificates need the extra `gapless[testing]`; the rest needs nothing more than the gateway.
"""

from gapless.testing.broker import Broker, BrokerConfig, BrokerUnavailable, run_broker
from gapless.testing.child import ProcessFailed
from gapless.testing.gateway import SERVE_COMMAND, Gateway, run_gateway
from gapless.testing.js import NodeScript, run_node
from gapless.testing.link import Link, Way
from gapless.testing.ports import free_port
from gapless.testing.processes import Server
from gapless.testing.relay import Ending
from gapless.testing.tls import Certificates, KeyPair, make_certificates
from gapless.testing.tools import (
    ToolUnavailable,
    find_chromium,
    find_curl,
    find_dynamic_security,
    find_mosquitto,
    find_mosquitto_client,
    find_node,
)

__all__ = [
    "SERVE_COMMAND",
    "Broker",
    "BrokerConfig",
    "BrokerUnavailable",
    "Certificates",
    "Ending",
    "Gateway",
    "KeyPair",
    "Link",
    "NodeScript",
    "ProcessFailed",
    "Server",
    "ToolUnavailable",
    "Way",
    "find_chromium",
    "find_curl",
    "find_dynamic_security",
    "find_mosquitto",
    "find_mosquitto_client",
    "find_node",
    "free_port",
    "make_certificates",
    "run_broker",
    "run_gateway",
    "run_node",
]
