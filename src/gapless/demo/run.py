"""Running the demonstration: a gateway, one real client of each kind, five events, a verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self, assert_never

from gapless.client import (
    ClientEvent,
)
from gapless.client.mqtt import MqttConnection, MqttPublisher
from gapless.client.single import (
    Connection,
    Hole,
    Outgoing,
    Publisher,
    Reconnecting,
    Subscribed,
    Subscription,
    Target,
    connection_to,
    follow,
    publisher_to,
)
from gapless.config import Settings
from gapless.demo.board import Board, Fault, Row
from gapless.demo.scenario import CLIENTS, ROOMS, Step, scenario
from gapless.event import EventIds, parse_time
from gapless.gateway import Gateway
from gapless.topicmap import crm_map

_FENCES = 2


class Demo:
    """A gateway with one client of each kind; an asynchronous context manager.

    Everything runs in this process, over real loopback connections, with stock clients:
    python-socketio, paho-mqtt (TCP at QoS 1, WebSocket at QoS 2) and httpx.

    Args:
        port, mqtt_port: 0 takes a free one.
        data: folder of the log; None takes one that is removed at the end.
        on_change: called whenever the board changed.

    Attributes:
        board: who received what.
        reconnects: connections that were made anew.
        holes: holes that were reported to clients.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        mqtt_port: int = 0,
        data: Path | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._ports = (port, mqtt_port)
        self._data = data
        self._on_change = on_change
        self._new_id = EventIds()
        self.steps = scenario(self._new_id)
        self.board = Board(self.steps, CLIENTS)
        self.reconnects = 0
        self.holes = 0
        self._end_topic = f"gapless/demo/{self._new_id()}"
        self._fences: dict[str, set[str]] = {}
        self._changed = asyncio.Event()
        self._subscribed: set[str] = set()
        self._trouble: dict[str, str] = {}
        self._stack = AsyncExitStack()
        self._listeners: list[asyncio.Task[None]] = []
        self.gateway: Gateway

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            data = self._data
            if data is None:
                data = Path(stack.enter_context(TemporaryDirectory(prefix="gapless-demo-")))
            port, mqtt_port = self._ports
            self.gateway = Gateway(Settings(port=port, mqtt_port=mqtt_port, data=data), topic_map=crm_map())
            await stack.enter_async_context(self.gateway)
            await stack.enter_async_context(self._listening())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    # --- the clients

    @asynccontextmanager
    async def _listening(self) -> AsyncGenerator[None, None]:
        self._listeners = [
            asyncio.create_task(self._listen(name, connection), name=f"demo-{name}")
            for name, connection in self._connections().items()
        ]
        try:
            yield
        finally:
            for task in self._listeners:
                task.cancel()
            await asyncio.gather(*self._listeners, return_exceptions=True)

    def _connections(self) -> dict[str, Connection]:
        rooms = (*ROOMS, f"topic:{self._end_topic}")
        http = Target(url=self.gateway.http_url, rooms=rooms)
        filters = tuple(dict.fromkeys(each for room in rooms for each in self.gateway.topic_map.filters_for(room)))
        assert self.gateway.mqtt_url is not None
        websocket = "ws" + self.gateway.http_url.removeprefix("http") + "/mqtt"
        return {
            "socketio": connection_to(http, "socketio"),
            "mqtt": MqttConnection(Target(url=self.gateway.mqtt_url, filters=filters, qos=1)),
            "mqtt-ws": MqttConnection(Target(url=websocket, filters=filters, qos=2)),
            "sse": connection_to(http, "sse"),
            "poll": connection_to(http, "poll"),
        }

    async def _listen(self, name: str, connection: Connection) -> None:
        subscription = Subscription(drop_repeats=False)  # every copy is to be seen
        async with aclosing(follow(connection, subscription=subscription)) as signals:
            async for signal in signals:
                match signal:
                    case Subscribed():
                        self._subscribed.add(name)
                    case Hole():
                        self.holes += 1
                    case Reconnecting():
                        self.reconnects += 1
                        self._trouble[name] = signal.reason
                    case ClientEvent():
                        self._heard(name, signal)
                    case _:
                        assert_never(signal)
                self._changed.set()

    def _heard(self, client: str, event: ClientEvent) -> None:
        if event.topic == self._end_topic:
            self._fences.setdefault(event.id or "", set()).add(client)
        elif not self.board.received(client, event.id, time.perf_counter(), position=event.position):
            sent = parse_time(event.time)
            if event.retained or event.id is None or sent is None:
                return
            row = Row(title=event.type, door="", id=event.id, type=event.type, topic=event.topic, received={})
            self.board.other(client, row, max(0.0, time.time() - sent / 1000))
        self._on_change()

    # --- the events

    async def run(self, *, timeout: float = 30.0) -> list[Fault]:
        """Publish the five events, one after the other, and wait until no copy of them can come any more.

        Each client's connection is in order. When every client has received a first event
        that was published after the five, nothing of the five is on its way to it as a live
        event; when it has received a second one, published after the first was everywhere,
        then also whatever the first round trip set off (a poll that began at a wrong
        position, a message that was sent again) would have arrived before it.

        Args:
            timeout: seconds for all of it; what has not come then counts as not received.

        Returns:
            What was not exactly once and in order; empty where all was well.

        Raises:
            GaplessError: a client was refused, or an event could not be published.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._until(lambda: len(self._subscribed) == len(CLIENTS))
                for row, step in zip(self.board.rows, self.steps, strict=True):
                    await self._publish(step)
                    await self._until(partial(_everywhere, row))
                for number in range(_FENCES):
                    await self._fence(number)
        except TimeoutError:
            silent = [name for name in CLIENTS if name not in self._subscribed]
            faults = [Fault(name, f"could not subscribe: {self._trouble.get(name)}") for name in silent]
            faults = faults or self.board.faults()
            return faults or [Fault("every client", f"received all, but the end was not reached in {timeout:g} s")]
        return self.board.faults()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            for task in self._listeners:
                if task.done():
                    task.result()  # a refusal ends the demonstration with its reason
            self._changed.clear()
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait({changed, *self._listeners}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()

    async def _fence(self, number: int) -> None:
        event_id = self._new_id()
        await self.gateway.publish(topic=self._end_topic, id=event_id, data={"fence": number})
        await self._until(lambda: len(self._fences.get(event_id, ())) == len(CLIENTS))

    async def _publish(self, step: Step) -> None:
        named = Outgoing(id=step.id, type=step.type, data=step.data)
        on_topic = Outgoing(id=step.id, topic=step.topic, data=step.data, retain=step.type == "user:presence")
        match step.door:
            case "REST":
                await self._publish_by(publisher_to(self.gateway.http_url, "rest"), named)
            case "Socket.IO":
                await self._publish_by(publisher_to(self.gateway.http_url, "socketio"), named)
            case "MQTT QoS 1":
                await self._publish_by(MqttPublisher(self.gateway.mqtt_url or "", qos=1), on_topic)
            case "MQTT QoS 2":
                await self._publish_by(MqttPublisher(self.gateway.mqtt_url or "", qos=2), on_topic)
            case "Python":
                self.board.published(step.id, time.perf_counter())
                await self.gateway.publish(type=step.type, id=step.id, data=step.data)
            case _:
                assert_never(step.door)

    async def _publish_by(self, publisher: Publisher, event: Outgoing) -> None:
        async with publisher as connected:
            self.board.published(event.id, time.perf_counter())
            await connected.publish([event])


def _everywhere(row: Row) -> bool:
    return all(row.received.values())
