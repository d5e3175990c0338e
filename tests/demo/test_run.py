"""The verdict is worth something: a client that loses or doubles an event fails the demonstration."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gapless.client import ClientEvent
from gapless.client.single import Connection, Heard
from gapless.demo import Demo


class Spoiled:
    """A connection on whose way one kind of event is repeated, or lost."""

    def __init__(self, inner: Connection, event_type: str, copies: int) -> None:
        self._inner = inner
        self._type = event_type
        self._copies = copies

    async def listen(self, after: str | None) -> AsyncGenerator[Heard, None]:
        async with aclosing(self._inner.listen(after)) as signals:
            async for signal in signals:
                spoiled = isinstance(signal, ClientEvent) and signal.type == self._type
                for _ in range(self._copies if spoiled else 1):
                    yield signal


class SpoiledDemo(Demo):
    def __init__(self, client: str, event_type: str, copies: int) -> None:
        super().__init__()
        self._spoiled = (client, event_type, copies)

    def _connections(self) -> dict[str, Connection]:
        client, event_type, copies = self._spoiled
        connections = super()._connections()
        return {**connections, client: Spoiled(connections[client], event_type, copies)}


async def test_all_is_well_where_nothing_is_spoiled() -> None:
    async with Demo() as demo:
        assert await demo.run() == []
        assert (demo.reconnects, demo.holes) == (0, 0)


async def test_a_copy_too_many_is_found_also_of_the_last_event() -> None:
    async with SpoiledDemo("poll", "notification", 2) as demo:
        faults = await demo.run()
    assert [str(fault) for fault in faults] == ["poll received 'Notification: New Lead Assignment' 2 times"]


async def test_an_event_that_is_lost_is_found_when_the_time_is_over() -> None:
    async with SpoiledDemo("mqtt", "notification", 0) as demo:
        faults = await demo.run(timeout=2)
    assert [str(fault) for fault in faults] == ["mqtt did not receive 'Notification: New Lead Assignment'"]
