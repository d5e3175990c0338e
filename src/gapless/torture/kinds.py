"""The kinds of clients and the doors of publishers, and what each promises its application."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

Language = Literal["python", "js", "sdk"]
Port = Literal["http", "mqtt", "broker"]


class Promise(StrEnum):
    """What a client's journal must hold.

    In all of them nothing may be lost, invented or altered.

    Attributes:
        once: each event once, in the log's order, also over kills of the client: its journal is its cursor.
        qos1: a stock MQTT session: in order, and again only what its acknowledgement may not have
            reached, or cannot have outlived (MQTT 5 §4.3.2): flagged DUP, or after a kill or a full disk of the server.
        qos2: the same for messages at QoS 1; those at QoS 2 once (§4.3.3). In order within each QoS (§4.6).
    """

    once = "once"
    qos1 = "qos1"
    qos2 = "qos2"


class Kind(msgspec.Struct, frozen=True):
    """A kind of client.

    Attributes:
        name: as the report has it.
        language: what runs it; `sdk` is the TypeScript client of this repository, by Node.
        port: which of the servers' ports it uses.
        promise: what its journal must hold.
        killable: whether it survives its own SIGKILL: one that keeps half a QoS 2 handshake in memory does not.
        title: for people.
    """

    name: str
    language: Language
    port: Port
    promise: Promise
    title: str
    killable: bool = True


_ALL = (
    Kind("socketio", "python", "http", Promise.once, "python-socketio, own cursor"),
    Kind("mqtt", "python", "mqtt", Promise.once, "paho MQTT 5, own cursor (gapless-start)"),
    Kind("sse", "python", "http", Promise.once, "SSE over httpx"),
    Kind("poll", "python", "http", Promise.once, "long poll over httpx"),
    Kind("roaming", "python", "http", Promise.once, "one cursor, changes transport"),
    Kind("paho1", "python", "mqtt", Promise.qos1, "paho 3.1.1, session, QoS 1"),
    Kind("paho2", "python", "mqtt", Promise.qos2, "paho MQTT 5, session, QoS 2", killable=False),
    Kind("js-socketio", "js", "http", Promise.once, "socket.io-client, its recovery"),
    Kind("js-polling", "js", "http", Promise.once, "socket.io-client, polling only"),
    Kind("js-eventsource", "js", "http", Promise.once, "eventsource, Last-Event-ID"),
    Kind("js-mqtt1", "js", "mqtt", Promise.qos1, "mqtt.js MQTT 5, session, QoS 1"),
    Kind("js-mqtt2", "js", "mqtt", Promise.qos2, "mqtt.js 3.1.1, session, QoS 2", killable=False),
    Kind("py-hybrid", "python", "http", Promise.once, "the Python client, all transports"),
    Kind("ts-hybrid", "sdk", "http", Promise.once, "the TypeScript client, all transports"),
    Kind("broker1", "python", "broker", Promise.qos1, "paho at the external broker, QoS 1"),
    Kind("broker2", "python", "broker", Promise.qos2, "paho at the external broker, QoS 2", killable=False),
)
KINDS = {kind.name: kind for kind in _ALL}


class Door(msgspec.Struct, frozen=True):
    """A way to publish.

    Attributes:
        name: as the report has it.
        language: what runs it.
        port: which of the servers' ports it uses.
        window: events on their way at a time.
        group: the process it shares with others, which is killed and paused as one.
        has_ids: whether it gives its events ids. One that does not is only safe at QoS 2, and keeps its
            handshakes in memory: it is not killed.
    """

    name: str
    language: Language
    port: Port
    window: int
    group: str
    has_ids: bool = True


_DOORS = (
    Door("rest", "python", "http", 1, "publishers-1"),
    Door("rest-batch", "python", "http", 7, "publishers-2"),
    Door("rest-ndjson", "python", "http", 5, "publishers-1"),
    Door("socketio", "python", "http", 8, "publishers-2"),
    Door("mqtt1", "python", "mqtt", 10, "publishers-1"),
    Door("mqtt2", "python", "mqtt", 10, "publishers-2"),
    Door("py-hybrid", "python", "http", 10, "publishers-1"),
    Door("js-socketio", "js", "http", 4, "publishers-js"),
    Door("js-mqtt1", "js", "mqtt", 8, "publishers-js"),
    Door("js-mqtt2", "js", "mqtt", 8, "publishers-js", has_ids=False),
    Door("broker1", "python", "broker", 10, "publishers-broker"),
    Door("broker2", "python", "broker", 10, "publishers-broker"),
)
DOORS = {door.name: door for door in _DOORS}


def kinds_for(*, js: bool, broker: bool, sdk: bool) -> tuple[Kind, ...]:
    """The kinds that can run here."""
    missing = {name for name, there in (("js", js), ("sdk", sdk)) if not there}
    return tuple(k for k in _ALL if k.language not in missing and (broker or k.port != "broker"))


def doors_for(*, js: bool, broker: bool) -> tuple[Door, ...]:
    """The doors that can run here."""
    return tuple(d for d in _DOORS if (js or d.language != "js") and (broker or d.port != "broker"))
