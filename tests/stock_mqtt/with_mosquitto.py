"""mosquitto_pub and mosquitto_sub, as processes; Debian's know TCP only."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence

from gapless.testing import find_mosquitto_client
from tests.stock_mqtt.stock import Message, Plan, StockClient

_FORMAT = "message|%q|%r|%t|%x|%C|%P"


class MosquittoClient:
    """See `StockClient`: it publishes by mosquitto_pub, and subscribes by one mosquitto_sub."""

    def __init__(self, plan: Plan) -> None:
        self.session_present: bool | None = None
        self._plan = plan
        self._sub: Process | None = None

    def _arguments(self, client_id: str) -> list[str]:
        version = "mqttv5" if self._plan.v5 else "mqttv311"
        return ["-h", self._plan.host, "-p", str(self._plan.tcp_port), "-V", version, "-i", client_id]

    async def connect(self) -> None:
        """Nothing yet: mosquitto_sub connects in order to subscribe. One with a will waits for its own end."""
        if self._plan.will is not None:
            await self.subscribe(self._end_topic, 0)

    @property
    def _end_topic(self) -> str:
        return f"{self._plan.client_id}/end"

    async def subscribe(self, topic: str, qos: int) -> None:
        plan = self._plan
        command = [_program("mosquitto_sub"), *self._arguments(plan.client_id), "-t", topic, "-q", str(qos)]
        command += ["-F", _FORMAT]
        if plan.stays:
            command += ["-c", *(["-x", "3600"] if plan.v5 else [])]
        if plan.will is not None:
            command += ["--will-topic", plan.will[0], "--will-payload", plan.will[1].decode(), "--will-qos", "1"]
            command += ["-C", "1"]
        self._sub = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE)
        while not plan.has_subscription(plan.client_id, topic):  # what it says of that stays in its buffer
            await asyncio.sleep(0.002)

    async def _line(self, beginning: str) -> str:
        assert self._sub is not None
        assert self._sub.stdout is not None
        while line := (await self._sub.stdout.readline()).decode().rstrip("\n"):
            if line.startswith(beginning):
                return line
        raise AssertionError(f"mosquitto_sub ended before it said {beginning!r}")

    async def publish(self, messages: Sequence[Message]) -> None:
        if len({(message.topic, message.qos, message.retain) for message in messages}) == 1:
            await self._publish_lines(messages)
            return
        for message in messages:
            await self._publish_lines([message])

    async def _publish_lines(self, messages: Sequence[Message]) -> None:
        """Publish by one mosquitto_pub, a message per line of its standard input."""
        first = messages[0]
        command = [_program("mosquitto_pub"), *self._arguments(self._plan.client_id + "p")]
        command += ["-t", first.topic, "-q", str(first.qos), "-l", *(["-r"] if first.retain else [])]
        if self._plan.v5:
            for name, value in first.properties:
                command += ["-D", "publish", "user-property", name, value]
            if first.content_type is not None:
                command += ["-D", "publish", "content-type", first.content_type]
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE)
        await process.communicate(b"".join(message.payload + b"\n" for message in messages))
        assert process.returncode == 0

    async def next(self) -> Message:
        line = await self._line("message|")
        _, qos, retain, topic, payload, content_type, users = line.split("|")
        found = tuple((name, value) for name, _, value in (pair.partition(":") for pair in users.split(" ")) if name)
        return Message(topic, bytes.fromhex(payload), int(qos), retain == "1", content_type or None, found)

    async def end(self) -> None:
        if self._plan.will is not None and self._sub is not None and self._sub.returncode is None:
            # At a signal it asks for its will; after as many messages as it was told, it leaves as others do.
            await self.publish([Message(self._end_topic, b"", 0)])
            await self._sub.wait()
        await self._stop(signal.SIGTERM)

    async def drop(self) -> None:
        await self._stop(signal.SIGKILL)

    async def _stop(self, number: signal.Signals) -> None:
        if self._sub is not None and self._sub.returncode is None:
            self._sub.send_signal(number)
            assert self._sub.stdout is not None
            await self._sub.stdout.read()
            await self._sub.wait()


def _program(name: str) -> str:
    found = find_mosquitto_client(name)
    assert found is not None
    return found


async def connect(plan: Plan) -> StockClient:
    """A mosquitto_pub and a mosquitto_sub."""
    client = MosquittoClient(plan)
    await client.connect()
    return client
