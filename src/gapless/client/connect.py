"""Transports and doors by name; each one's libraries are imported when it is used first."""

from __future__ import annotations

import ssl
from typing import Literal, get_args

from gapless.client.model import Connection, Publisher, Target

TransportName = Literal["socketio", "mqtt", "sse", "poll"]
DoorName = Literal["rest", "socketio", "mqtt"]
TRANSPORTS: tuple[TransportName, ...] = get_args(TransportName)
DOORS: tuple[DoorName, ...] = get_args(DoorName)


def connection_to(target: Target, transport: TransportName) -> Connection:
    """A connection over one transport; nothing happens before it is listened to."""
    match transport:
        case "socketio":
            from gapless.client.socketio import SocketIoConnection

            return SocketIoConnection(target)
        case "mqtt":
            from gapless.client.mqtt import MqttConnection

            return MqttConnection(target)
        case "sse":
            from gapless.client.sse import SseConnection

            return SseConnection(target)
        case "poll":
            from gapless.client.polling import PollConnection

            return PollConnection(target)


def publisher_to(
    url: str, door: DoorName, *, token: str | None = None, qos: int = 1, tls: ssl.SSLContext | None = None
) -> Publisher:
    """A publisher for one door; `qos` is for MQTT, `tls` says how to verify the server."""
    match door:
        case "rest":
            from gapless.client.rest import RestPublisher

            return RestPublisher(url, token, tls=tls)
        case "socketio":
            from gapless.client.socketio import SocketIoPublisher

            return SocketIoPublisher(url, token, tls=tls)
        case "mqtt":
            from gapless.client.mqtt import MqttPublisher

            return MqttPublisher(url, token, qos=qos, tls=tls)
