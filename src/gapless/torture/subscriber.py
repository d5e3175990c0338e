"""One Python client under torture: it journals what it hears, and resumes from its journal.

    python -m gapless.torture.subscriber CONFIG.json

A line on standard input names the transport to change to; its end ends the process.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gapless.client import (
    ClientEvent,
)
from gapless.client.connect import TransportName
from gapless.client.single import (
    Backoff,
    Hole,
    Reconnecting,
    Refused,
    Subscribed,
    Subscription,
    Target,
    connection_to,
    follow,
)
from gapless.mqtt import room_filter
from gapless.torture.content import EVERYTHING, filter_of
from gapless.torture.hybrid import HybridSubscriber
from gapless.torture.journal import Journal

_KEEPALIVE = 5
_decode = msgspec.json.Decoder().decode


class SubscriberConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a client process is told.

    Attributes:
        url: the server, as its own link shows it: `http://…`, or `mqtt://…` for MQTT kinds.
        start: the position at which all clients begin.
        modules: folder of `node_modules`, for JavaScript kinds.
        sdk: folder of the TypeScript client, for its kind.
    """

    name: str
    kind: str
    url: str
    rooms: tuple[str, ...]
    journal: str
    start: str
    filters: tuple[str, ...] = ()
    modules: str = ""
    sdk: str = ""


# --- clients that keep their own cursor


class OwnCursor:
    """A client whose journal is its cursor, on one transport after the other."""

    def __init__(self, config: SubscriberConfig, journal: Journal) -> None:
        self._config = config
        self._journal = journal
        self._cursor = config.start
        self._transport: str = "sse" if config.kind == "roaming" else config.kind
        for line in journal.earlier:
            if line["is"] == "event" and line.get("pos"):
                self._cursor = line["pos"]
            elif line["is"] == "transport":
                self._transport = line["to"]

    async def run(self) -> None:
        """Follow, and change transport on demand, until standard input ends."""
        commands = await _standard_input()
        while True:
            listening = asyncio.create_task(self._listen(), name="listen")
            reading = asyncio.create_task(commands.readline(), name="commands")
            await asyncio.wait({listening, reading}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                reading.cancel()
                listening.result()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            command = (await reading).decode().strip()
            if not command:
                return
            self._transport = command
            self._journal.write("transport", to=command)

    async def _listen(self) -> None:
        target = self._target()
        transport: TransportName = self._transport  # type: ignore[assignment]
        while True:
            state = Subscription(self._cursor, drop_repeats=False)
            backoff = Backoff(first=0.1, limit=1.0)
            signals = follow(connection_to(target, transport), subscription=state, backoff=backoff)
            try:
                async with aclosing(signals):
                    async for signal in signals:
                        self._take(signal)
            except Refused as error:
                self._journal.write("refused", why=str(error))
                await asyncio.sleep(0.5)

    def _target(self) -> Target:
        config = self._config
        if config.filters:
            return Target(url=config.url, filters=config.filters)
        return Target(url=config.url, rooms=config.rooms)

    def _take(self, signal: Subscribed | Hole | Reconnecting | ClientEvent) -> None:
        journal = self._journal
        match signal:
            case Subscribed():
                journal.write("connected", transport=self._transport, after=signal.position)
            case Reconnecting():
                journal.write("lost", why=signal.reason)
            case Hole():
                journal.write("hole", pos=signal.position)
            case ClientEvent():
                journal.event(signal.data, id=signal.id, pos=signal.position)
                if signal.position is not None:
                    self._cursor = signal.position


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


# --- stock MQTT clients with a session


class PahoSession:
    """A stock paho client with a persistent session, which knows nothing of positions."""

    def __init__(self, config: SubscriberConfig, journal: Journal) -> None:
        self._config = config
        self._journal = journal
        self._qos = 2 if config.kind.endswith("2") else 1
        self._five = self._qos == 2
        self._is_new = not any(line["is"] == "connected" for line in journal.earlier)
        host, _, port = config.url.removeprefix("mqtt://").partition(":")
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            f"torture-{config.name}",
            protocol=MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311,
            clean_session=None if self._five else False,
        )
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = lambda *arguments: journal.write("lost", why=str(arguments[3]))
        client.reconnect_delay_set(1, 1)
        client.connect_timeout = 5.0
        client.connect_async(host, int(port), _KEEPALIVE, **self._session())
        self._client = client

    def _session(self) -> dict[str, Any]:
        if not self._five:
            return {}
        properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 86400
        return {"clean_start": False, "properties": properties}

    def run(self) -> None:
        """Until standard input ends."""
        threading.Thread(target=_end_with_standard_input, daemon=True).start()
        self._client.loop_forever(retry_first_connection=True)

    def _on_connect(
        self, client: paho.Client, userdata: object, flags: paho.ConnectFlags, code: ReasonCode, *_: object
    ) -> None:
        if code.is_failure:
            self._journal.write("lost", why=f"refused for now: {code}")
            return
        fields = {} if self._is_new else {"session": flags.session_present}
        self._journal.write("connection", transport="mqtt", **fields)
        # A session may be that of a CONNECT whose answer came too late: nothing was subscribed in it.
        if self._is_new or not flags.session_present:
            client.subscribe([(each, self._qos) for each in self._config.filters])
        else:
            self._journal.write("connected", transport="mqtt")

    def _on_subscribe(self, *_: object) -> None:
        self._is_new = False
        self._journal.write("connected", transport="mqtt")

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        document = _decode(message.payload)
        user = dict(getattr(message.properties, "UserProperty", None) or [])
        # Published over MQTT: the very bytes; by another door: the envelope.
        data = document["data"] if isinstance(document, dict) and "data" in document else document
        self._journal.event(data, id=user.get("id"), pos=user.get("position"), qos=message.qos, dup=message.dup)


def _end_with_standard_input() -> None:
    while sys.stdin.readline():
        pass
    os._exit(0)


def main(arguments: list[str]) -> None:
    """Run one client until standard input ends."""
    config = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=SubscriberConfig)
    journal = Journal(Path(config.journal))
    journal.write("started", pid=os.getpid())
    if config.kind.startswith(("paho", "broker")):
        PahoSession(config, journal).run()
    elif config.kind == "py-hybrid":
        threading.Thread(target=_end_with_standard_input, daemon=True).start()
        asyncio.run(HybridSubscriber(config.name, config.url, config.rooms, config.start, journal).run())
    else:
        asyncio.run(OwnCursor(config, journal).run())


def filters_of(rooms: tuple[str, ...], *, number: int, broker: bool) -> tuple[str, ...]:
    """The MQTT filters of a client's rooms.

    At the gateway, by turns of the rooms and of the client's `number`, those of rooms (`$room/…`) and of topics. A
    broker knows no rooms, and may send a message once for each filter that it matches (MQTT 5 §3.3.4), where
    ours sends it once: there, the one that holds all others goes alone.
    """
    if not broker:
        return tuple(filter_of(room) if (index + number) % 2 else room_filter(room) for index, room in enumerate(rooms))
    return (filter_of(EVERYTHING),) if EVERYTHING in rooms else tuple(filter_of(room) for room in rooms)


if __name__ == "__main__":
    main(sys.argv[1:])
