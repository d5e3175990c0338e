"""The MQTT edge: our own MQTT 3.1.1 and 5 server, whose persistent sessions are cursors into the log."""

from gapless.transports.mqtt.edge import MqttEdge
from gapless.transports.mqtt.options import EdgeOptions, EdgeStats
from gapless.transports.mqtt.tcp import Server

__all__ = ["EdgeOptions", "EdgeStats", "MqttEdge", "Server"]
