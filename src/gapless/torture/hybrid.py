"""The Python hybrid client under torture: it hears over whichever transport is alive, and publishes from its outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from gapless.client import Client, ClientEvent, Gap, Published, TransportName
from gapless.client.hybrid.machine import LADDER
from gapless.client.single import ConnectionLost, Outgoing, Refused
from gapless.errors import GaplessError
from gapless.torture.journal import Journal


def ladder_of(name: str) -> tuple[TransportName, ...]:
    """A ladder with another transport on top for each client, by its name."""
    turn = sum(map(ord, name)) % len(LADDER)
    return (*LADDER[turn:], *LADDER[:turn])


class HybridSubscriber:
    """A client whose journal is its cursor: with a store alone, what was handled last before a kill would come again.

    Args:
        start: the position at which it begins where its journal has none.
    """

    def __init__(self, name: str, url: str, rooms: tuple[str, ...], start: str, journal: Journal) -> None:
        self._journal = journal
        self._rooms = rooms
        self._over: TransportName | None = None
        heard = (line.get("pos") for line in reversed(journal.earlier) if line["is"] == "event")
        self._client = Client(
            url,
            store=journal.path.with_suffix(".sqlite"),
            after=next(filter(None, heard), start),
            transports=ladder_of(name),
            on_error=lambda error, room: journal.write("refused", why=str(error), room=room),
        )

    async def run(self) -> None:
        """Until the client is closed."""
        async with self._client as client:
            events = client.subscribe(*self._rooms)
            watching = asyncio.create_task(self._watch(), name="watch")
            try:
                async for event in events:
                    match event:
                        case ClientEvent():
                            self._journal.event(event.data, id=event.id, pos=event.position)
                        case Gap():
                            self._journal.write("hole", pos=event.position, reason=event.reason)
            finally:
                watching.cancel()

    async def _watch(self) -> None:
        async for status in self._client.changes():
            over = status.transport if status.is_whole else None
            if over == self._over:
                continue
            if over is not None:
                self._journal.write("connected", transport=over)
            elif self._over is not None:
                self._journal.write("lost", why=str(status.error or status.connection))
            self._over = over


class HybridPublisher:
    """`Publisher` by the client's outbox: what was enqueued before a kill is sent by the next process.

    Args:
        store: the file of its outbox.
    """

    def __init__(self, url: str, store: Path) -> None:
        self._client = Client(url, store=store)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.close()

    async def publish(self, events: Sequence[Outgoing]) -> list[Published]:
        """See `Publisher.publish`."""
        try:
            waiting = [await self._client.enqueue(topic=event.topic, data=event.data, id=event.id) for event in events]
            return [await each for each in waiting]
        except GaplessError as error:
            raise (ConnectionLost if error.retryable else Refused)(str(error)) from error
