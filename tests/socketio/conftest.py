from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gapless.config import Settings
from gapless.gateway import Gateway
from gapless.presence import PresenceOptions
from gapless.testing import NodeScript, run_node

SETTINGS = Settings(port=0, mqtt_port=None, data=None, presence=PresenceOptions(publish=""))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(SETTINGS) as gateway:
        yield gateway


class JsClient:
    """A stock socket.io-client in a process of its own."""

    def __init__(self, script: NodeScript) -> None:
        self.script = script
        self._tag = 0
        self._kept: list[dict[str, Any]] = []

    async def next(self, kind: str) -> dict[str, Any]:
        """Its next message of a kind; others are kept for later."""
        for index, message in enumerate(self._kept):
            if message["is"] == kind:
                return self._kept.pop(index)
        while (message := await self.script.next())["is"] != kind:
            self._kept.append(message)
        result: dict[str, Any] = message
        return result

    async def connect(self, url: str, **options: Any) -> dict[str, Any]:
        await self.script.send({"do": "connect", "url": url, "options": options})
        return await self.next("connect")

    async def request(self, event: str, *args: Any) -> dict[str, Any]:
        self._tag += 1
        await self.script.send({"do": "emit", "event": event, "args": args, "tag": self._tag})
        message = await self.next("answer")
        assert message["tag"] == self._tag
        answer: dict[str, Any] = message["answer"]
        return answer

    async def event(self) -> list[Any]:
        """The next event: its name, then its arguments."""
        message = await self.next("event")
        return [message["event"], *message["args"]]

    async def numbers(self, count: int) -> list[int]:
        """The field `n` of the next events' data."""
        return [(await self.event())[1]["n"] for _ in range(count)]

    async def do(self, command: str) -> None:
        await self.script.send({"do": command})


@asynccontextmanager
async def js_client(folder: Path) -> AsyncIterator[JsClient]:
    async with run_node(folder / "socketio-client.js") as script:
        yield JsClient(script)
