"""Connections as tasks that are cancelled at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any
from unittest.mock import create_autospec

import pytest

from gapless.client.hybrid.doors import ListeningDoor
from gapless.client.hybrid.process import Later, nothing
from gapless.client.hybrid.world import Listener
from gapless.client.model import Heard, Subscribed


class Handshake:
    """A connection whose answer is awaited as the libraries do it, and which hears nothing."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()

    async def listen(self, after: str | None) -> AsyncGenerator[Heard, None]:
        await asyncio.wait_for(self.answered.wait(), 30)
        yield Subscribed(after)
        await asyncio.Event().wait()


@pytest.mark.parametrize("turns", range(6))
async def test_one_that_is_closed_while_it_opens_ends(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    handshake = Handshake()
    tasks: list[asyncio.Task[Any]] = []

    def start(work: Coroutine[Any, Any, Any], name: str) -> Later:
        tasks.append(task := asyncio.create_task(work, name=name))
        return Later(on_abandon=lambda: nothing(task.cancel()))

    door = ListeningDoor(
        "socketio",
        url="http://127.0.0.1",
        mqtt_url="",
        token=None,
        tls=None,
        listener=create_autospec(Listener),
        start=start,
        settled=lambda: None,
    )
    monkeypatch.setattr(door, "_connect", lambda rooms: handshake)
    monkeypatch.setattr(door, "_opened", lambda: None)
    door.open([], "now")
    await asyncio.sleep(0)
    handshake.answered.set()
    for _ in range(turns):  # of the event loop, between the answer and the end
        await asyncio.sleep(0)
    door.close()
    async with asyncio.timeout(5):
        await asyncio.wait(tasks)
