"""Transports and doors by name."""

from __future__ import annotations

from typing import Literal, get_args

from gapless.client.model import Connection, Publisher, Target
from gapless.client.mqtt import MqttConnection, MqttPublisher
from gapless.client.polling import PollConnection
from gapless.client.rest import RestPublisher
from gapless.client.socketio import SocketIoConnection, SocketIoPublisher
from gapless.client.sse import SseConnection

TransportName = Literal["socketio", "mqtt", "sse", "poll"]
DoorName = Literal["rest", "socketio", "mqtt"]
TRANSPORTS: tuple[TransportName, ...] = get_args(TransportName)
DOORS: tuple[DoorName, ...] = get_args(DoorName)


def connection_to(target: Target, transport: TransportName) -> Connection:
    """A connection over one transport; nothing happens before it is listened to."""
    match transport:
        case "socketio":
            return SocketIoConnection(target)
        case "mqtt":
            return MqttConnection(target)
        case "sse":
            return SseConnection(target)
        case "poll":
            return PollConnection(target)


def publisher_to(url: str, door: DoorName, *, token: str | None = None, qos: int = 1) -> Publisher:
    """A publisher for one door; `qos` is for MQTT."""
    match door:
        case "rest":
            return RestPublisher(url, token)
        case "socketio":
            return SocketIoPublisher(url, token)
        case "mqtt":
            return MqttPublisher(url, token, qos=qos)
