"""One client of each transport, each over a link of its own that is cut below it, and a publisher."""

from __future__ import annotations

import asyncio
import itertools
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

import httpx

from gapless.client.broker import BrokerConnection
from gapless.client.model import ClientEvent, Moved, Subscribed, Target
from gapless.client.model import Heard as Signal
from gapless.testing import Broker, Gateway, Link
from tests.stock_mqtt.with_mqttjs import Node

WAIT = 15.0
"""Seconds after which a client that does not go on has failed."""

_names = itertools.count(1)


@dataclass(frozen=True)
class Site:
    """What the clients connect to, and the processes in which the JavaScript ones live."""

    gateway: Gateway
    broker: Broker
    web: Node
    mqttjs: Node


class Heard(NamedTuple):
    """An event: the publisher's number, and the position by which to resume."""

    number: int
    position: str


class Publishing:
    """Publishes 0, 1, 2, … to a lead over REST until told to stop, each again until it is acknowledged."""

    def __init__(self, gateway: Gateway, lead: str) -> None:
        self._gateway = gateway
        self._lead = lead
        self._published = 0
        self._stopping = False
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="publishing")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def reach(self, number: int) -> None:
        """Wait until so many are acknowledged."""
        while self._published < number:
            self._moved.clear()
            await self._moved.wait()

    async def stop(self) -> int:
        """Publish no more; how many there are."""
        self._stopping = True
        await self._task
        return self._published

    async def _run(self) -> None:
        async with httpx.AsyncClient(base_url=self._gateway.http, trust_env=False) as http:
            while not self._stopping:
                events = [self._event(self._published + step) for step in range(5)]
                try:
                    answer = await http.post("/api/events", json=events)
                except httpx.TransportError:  # the gateway was killed: what it took, it knows by its id
                    await asyncio.sleep(0.01)
                    continue
                assert answer.status_code == 201, answer.text
                self._published += len(events)
                self._moved.set()

    def _event(self, number: int) -> dict[str, Any]:
        data = {"leadId": self._lead, "n": number}
        # At QoS 2 a persistent MQTT session gets each once, too; the other transports have no QoS.
        return {"type": "lead:updated", "id": f"{self._lead}-{number}", "data": data, "qos": 2}


@dataclass
class Client(ABC):
    """A client that hears one lead.

    Attributes:
        resumed: whether the last return was the transport's own way to resume, where it tells.
    """

    site: Site
    lead: str
    name: str = field(default_factory=lambda: f"resume-{next(_names)}")
    link: Link = field(init=False)
    transport: ClassVar[str]

    def __post_init__(self) -> None:
        self.link = Link("127.0.0.1", self.port)

    @property
    def port(self) -> int:
        """Where it connects to."""
        return self.site.gateway.http_port

    async def __aenter__(self) -> Self:
        await self.link.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
        await self.link.__aexit__(kind, error, trace)

    @abstractmethod
    async def open(self, after: str | None = None) -> None:
        """Connect and subscribe: after a position, or from now on."""

    @abstractmethod
    async def next(self) -> Heard:
        """The next event."""

    async def take(self, count: int) -> list[Heard]:
        """The next events."""
        async with asyncio.timeout(WAIT):
            return [await self.next() for _ in range(count)]

    async def take_until(self, number: int, heard: list[Heard]) -> None:
        """Add the next events to those heard, up to the one of a number."""
        async with asyncio.timeout(WAIT):
            while heard[-1].number < number:
                heard.append(await self.next())

    async def drop(self) -> None:
        """Lose the connection, with what is on its way; others are refused until `come_back`."""
        self.link.refuse()
        await self.link.cut()

    async def come_back(self) -> None:
        """Let the client resume in its transport's own way."""
        self.link.restore()

    @abstractmethod
    async def close(self) -> None:
        """End it."""


class SocketIoClient(Client):
    """The stock socket.io-client, which recovers by itself."""

    transport = "socketio"

    async def open(self, after: str | None = None) -> None:
        await self.site.web.send("socketio", self.name, url=self.link.url("http"), options={})
        await self.site.web.next(self.name, "connect")
        request = {"rooms": [f"lead:{self.lead}"]} | ({} if after is None else {"after": after})
        await self.site.web.send("emit", self.name, event="subscribe", args=[request])
        answer = (await self.site.web.next(self.name, "answer"))["answer"]
        assert answer["ok"], answer
        assert answer["complete"], answer

    async def next(self) -> Heard:
        event = await self.site.web.next(self.name, "event")
        assert event["event"] == "lead:updated", event
        data, _, position = event["args"]
        return Heard(data["n"], position)

    async def come_back(self) -> None:
        await self.site.web.next(self.name, "disconnect")
        await super().come_back()
        assert (await self.site.web.next(self.name, "connect"))["recovered"] is True

    async def close(self) -> None:
        await self.site.web.send("close", self.name)


class SseClient(Client):
    """A stock EventSource, which comes back with `Last-Event-ID` by itself."""

    transport = "sse"

    async def open(self, after: str | None = None) -> None:
        query = f"rooms=lead:{self.lead}" + ("" if after is None else f"&after={after}")
        await self.site.web.send("eventsource", self.name, url=self.link.url("http", f"/api/stream?{query}"))
        await self.site.web.next(self.name, "connect")

    async def next(self) -> Heard:
        event = await self.site.web.next(self.name, "event")
        assert event["event"] == "message", event
        assert event["id"] == event["data"]["position"]
        return Heard(event["data"]["data"]["n"], event["id"])

    async def come_back(self) -> None:
        await self.site.web.next(self.name, "disconnect")
        await super().come_back()
        await self.site.web.next(self.name, "connect")

    async def close(self) -> None:
        await self.site.web.send("close", self.name)


class PollClient(Client):
    """Plain HTTP: `after` is the position that the last answer told."""

    transport = "poll"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._http = httpx.AsyncClient(trust_env=False)
        self._events: deque[dict[str, Any]] = deque()
        self._after: str | None = None

    async def open(self, after: str | None = None) -> None:
        self._after = after
        if after is None:
            await self._poll(wait=0)

    async def next(self) -> Heard:
        while not self._events:
            await self._poll(wait=WAIT)
        event = self._events.popleft()
        return Heard(event["data"]["n"], event["position"])

    async def _poll(self, *, wait: float) -> None:
        query: dict[str, str | float] = {"rooms": f"lead:{self.lead}", "wait": wait}
        if self._after is not None:
            query["after"] = self._after
        answer = await self._http.get(self.link.url("http", "/api/events"), params=query, timeout=WAIT + 5)
        page = answer.raise_for_status().json()
        assert page["complete"]
        self._events.extend(page["events"])
        self._after = page["position"]

    async def drop(self) -> None:
        # In the middle of a request, whose answer, if it comes, is lost.
        asked = asyncio.create_task(self._http.get(self.link.url("http", f"/api/events?rooms=lead:{self.lead}&wait=5")))
        await self.link.wait_connections(1)
        await super().drop()
        await asyncio.wait([asked])
        asked.exception()

    async def close(self) -> None:
        await self._http.aclose()


class MqttClient(Client):
    """mqtt.js on MQTT 5 at the edge, with a persistent session."""

    transport = "mqtt"

    @property
    def port(self) -> int:
        return self.site.gateway.mqtt_port

    async def open(self, after: str | None = None) -> None:
        options = {
            "clientId": self.name,
            "protocolVersion": 5,
            "clean": False,
            "reconnectPeriod": 20,
            "properties": {"sessionExpiryInterval": 3600},
        }
        await self.site.mqttjs.send("connect", self.name, url=self.link.url("mqtt"), options=options)
        assert not (await self.site.mqttjs.next(self.name, "connect"))["sessionPresent"]
        await self._subscribe(after)

    async def _subscribe(self, after: str | None) -> None:
        options: dict[str, Any] = {"qos": 2}
        if after is not None:
            options["properties"] = {"userProperties": {"gapless-start": after}}
        topic = f"crm/leads/{self.lead}/updated"
        await self.site.mqttjs.send("subscribe", self.name, topic=topic, options=options)
        answer = await self.site.mqttjs.next(self.name, "subscribed")
        assert answer["error"] is None, answer

    async def next(self) -> Heard:
        message = await self.site.mqttjs.next(self.name, "message")
        said = message["properties"]["userProperties"]
        assert "gapless-incomplete" not in said
        return Heard(json.loads(bytes.fromhex(message["payload"]))["data"]["n"], said["position"])

    async def come_back(self) -> None:
        await self.site.mqttjs.next(self.name, "close")
        await super().come_back()
        assert (await self.site.mqttjs.next(self.name, "connect"))["sessionPresent"]

    async def close(self) -> None:
        await self.site.mqttjs.send("end", self.name)


class BrokerClient(MqttClient):
    """mqtt.js at Mosquitto, which the gateway's link publishes to."""

    transport = "broker"

    @property
    def port(self) -> int:
        return self.site.broker.port


class WholeBrokerClient(Client):
    """Our own client at Mosquitto: by its position it asks the gateway over the broker for what it lacks."""

    transport = "broker"
    _signals: AsyncGenerator[Signal, None]

    @property
    def port(self) -> int:
        return self.site.broker.port

    async def open(self, after: str | None = None) -> None:
        target = Target(
            url=self.link.url("mqtt"), rooms=(f"lead:{self.lead}",), filters=(f"crm/leads/{self.lead}/updated",)
        )
        self._signals = BrokerConnection(target).listen(after)
        assert isinstance(await anext(self._signals), Subscribed)

    async def next(self) -> Heard:
        while not isinstance(signal := await anext(self._signals), ClientEvent):
            assert isinstance(signal, Moved), signal
        assert signal.position is not None
        return Heard(signal.data["n"], signal.position)

    async def close(self) -> None:
        await self._signals.aclose()


CLIENTS: dict[str, type[Client]] = {
    each.transport: each for each in (SocketIoClient, MqttClient, BrokerClient, SseClient, PollClient)
}

"""Stock clients, each of which also comes back in its transport's own way."""

RETURNING = CLIENTS | {"broker": WholeBrokerClient}
"""Clients that begin after a position."""
