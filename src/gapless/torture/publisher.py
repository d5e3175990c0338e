"""A process of Python publishers under torture: each journals what it tries and what was acknowledged.

    python -m gapless.torture.publisher CONFIG.json

What was tried and not acknowledged is published again, with the same ids, also by the next process. A line
`stop` on standard input lets each publisher finish what it tried; the end of standard input ends the process.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from paho.mqtt.subscribeoptions import SubscribeOptions

from gapless.client import Published
from gapless.client.http import decode_answer, wire_errors
from gapless.client.mqtt import MqttPublisher
from gapless.client.rest import RestPublisher
from gapless.client.single import Backoff, Outgoing, Publisher, Refused, RetryingPublisher
from gapless.client.socketio import SocketIoPublisher
from gapless.mqtt import ReasonCode
from gapless.torture.content import data_of, key_of, topic_of
from gapless.torture.hybrid import HybridPublisher
from gapless.torture.journal import Journal
from gapless.torture.kinds import DOORS

_FOREVER = 1e9
_LATER = (ReasonCode.QUOTA_EXCEEDED, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)
"""The log takes no writes now. At QoS 2 paho answers that PUBREC with PUBREL, and tells of the PUBCOMP to it alone."""
_NDJSON = {"Content-Type": "application/x-ndjson"}
_encode = msgspec.json.Encoder().encode


class DoorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One publisher of a process: its door, the URL of its own link, how much and how fast, its journal.

    Attributes:
        began: when its first event was due, seconds since the Unix epoch: one that is started again keeps pace.
    """

    door: str
    url: str
    events: int
    rate: float
    journal: str
    began: float


class PublisherConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of publishers is told. `modules`: folder of `node_modules`, for JavaScript doors."""

    doors: tuple[DoorConfig, ...]
    modules: str = ""


class NdjsonPublisher(RestPublisher):
    """`POST /api/events` with one event a line."""

    async def publish(self, events: Sequence[Outgoing]) -> list[Published]:
        """See `Publisher.publish`."""
        body = b"\n".join(_encode(event.to_wire()) for event in events)
        with wire_errors(self._url):
            response = await self._client.post("/api/events", content=body, headers=_NDJSON)
        return msgspec.convert(decode_answer(response)["events"], list[Published])


class BrokerPublisher(MqttPublisher):
    """PUBLISH at Mosquitto, which acknowledges before it saves: done once it has answered a later request."""

    async def publish(self, events: Sequence[Outgoing]) -> list[Published]:
        """See `Publisher.publish`."""
        published = await super().publish(events)
        assert self._session is not None
        await self._session.subscribe([("torture/saved", SubscribeOptions(qos=0))], None)
        return published


def _make(config: DoorConfig) -> Publisher:
    match config.door:
        case "broker1" | "broker2":
            return BrokerPublisher(config.url, qos=int(config.door[-1]))
        case "rest" | "rest-batch":
            return RestPublisher(config.url)
        case "rest-ndjson":
            return NdjsonPublisher(config.url)
        case "py-hybrid":
            return HybridPublisher(config.url, Path(config.journal).with_suffix(".sqlite"))
        case "socketio":
            return SocketIoPublisher(config.url)
        case door:
            return MqttPublisher(config.url, qos=int(door[-1]))


class Publishing:
    """One publisher: numbers from 0, in order, each until it is acknowledged."""

    def __init__(self, config: DoorConfig, stopping: asyncio.Event) -> None:
        self._config = config
        self._stopping = stopping
        self._window = DOORS[config.door].window
        self._journal = Journal(Path(config.journal))
        self._tried = self._acknowledged = 0
        for line in self._journal.earlier:
            if line["is"] == "attempt":
                self._tried = max(self._tried, line["upto"] + 1)
            elif line["is"] == "ack":
                self._acknowledged = max(self._acknowledged, line["n"] + 1)

    async def run(self) -> None:
        """Publish them all, or until told to stop; then journal `done`."""
        self._journal.write("started", pid=os.getpid())
        async with RetryingPublisher(
            lambda: _make(self._config),
            retry_for=_FOREVER,
            backoff=Backoff(first=0.1, limit=1.0),
            on_retry=lambda error, _: self._journal.write("retry", why=str(error)[:200]),
        ) as publisher:
            while (count := await self._next()) > 0:
                await self._publish(publisher, self._acknowledged, count)
        self._journal.write("done")

    async def _next(self) -> int:
        """How many to publish now; first of all what an earlier process tried. 0: it is over."""
        while True:
            first = self._acknowledged
            if self._tried > first:
                return min(self._window, self._tried - first)
            if self._stopping.is_set() or first >= self._config.events:
                return 0
            wait = self._config.began + first / self._config.rate - time.time()
            if wait <= 0:
                due = int((time.time() - self._config.began) * self._config.rate) + 1 - first
                return max(1, min(self._window, due, self._config.events - first))
            try:
                async with asyncio.timeout(wait):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def _publish(self, publisher: RetryingPublisher, first: int, count: int) -> None:
        numbers = range(first, first + count)
        self._journal.write("attempt", first=first, upto=first + count - 1)
        self._tried = max(self._tried, first + count)
        events = [self._outgoing(n) for n in numbers]
        while True:
            try:
                answers = await publisher.publish(events)
            except Refused as error:
                self._journal.write("refused", why=str(error)[:200])
                if error.details.get("reason_code") not in _LATER:
                    raise
                await asyncio.sleep(0.2)
                continue
            break
        for n, answer in zip(numbers, answers, strict=True):
            self._journal.write("ack", n=n, pos=answer.position)
        self._acknowledged = first + count

    def _outgoing(self, n: int) -> Outgoing:
        data = data_of(self._config.door, n)
        identity = key_of(self._config.door, n)
        return Outgoing(id=identity, topic=topic_of(data), data=data)


async def _run(config: PublisherConfig) -> None:
    stopping = asyncio.Event()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def all_doors() -> None:
        async with asyncio.TaskGroup() as group:
            for door in config.doors:
                group.create_task(Publishing(door, stopping).run(), name=f"publish-{door.door}")

    working = asyncio.create_task(all_doors(), name="publish")
    while True:
        reading = asyncio.create_task(reader.readline(), name="commands")
        await asyncio.wait({working, reading} if not working.done() else {reading}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        if not reading.done():
            await asyncio.wait({reading})
        if not await reading:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            return
        stopping.set()


def main(arguments: list[str]) -> None:
    """Publish until standard input ends."""
    config = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=PublisherConfig)
    asyncio.run(_run(config))


if __name__ == "__main__":
    main(sys.argv[1:])
