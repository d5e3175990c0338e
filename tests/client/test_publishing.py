from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import pytest

from gapless.client import Published
from gapless.client.single import Backoff, ConnectionLost, Outgoing, Publisher, Refused, RetryingPublisher


class Door:
    """A server's side: fails as told, and notes what came."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.came: list[list[str]] = []
        self.opened = 0
        self.closed = 0

    def publisher(self) -> Publisher:
        return Connected(self)


class Connected:
    def __init__(self, door: Door) -> None:
        self.door = door

    async def __aenter__(self) -> Self:
        self.door.opened += 1
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.door.closed += 1

    async def publish(self, events: Sequence[Outgoing]) -> list[Published]:
        self.door.came.append([event.id for event in events])
        failure = self.door.failures.pop(0) if self.door.failures else None
        if failure is not None:
            raise failure
        return [Published(id=event.id) for event in events]


EVENTS = [Outgoing(id="1", data=None), Outgoing(id="2", data=None)]
LOST = ConnectionLost("cut")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def retrying(door: Door, retry_for: float, told: list[float] | None = None) -> RetryingPublisher:
    clock = Clock()
    return RetryingPublisher(
        door.publisher,
        retry_for=retry_for,
        on_retry=None if told is None else lambda _, delay: told.append(delay),
        backoff=Backoff(first=1, limit=4, random=lambda: 1.0),
        sleep=clock.sleep,
        clock=clock,
    )


async def test_publishes_the_same_ids_again_over_a_new_connection() -> None:
    door, told = Door(LOST, LOST), list[float]()
    async with retrying(door, 60, told) as publisher:
        assert [answer.id for answer in await publisher.publish(EVENTS)] == ["1", "2"]
    assert door.came == [["1", "2"]] * 3
    assert (door.opened, door.closed) == (3, 3)
    assert told == [1, 2]


async def test_keeps_its_connection_while_it_works() -> None:
    door = Door()
    async with retrying(door, 60) as publisher:
        await publisher.publish(EVENTS)
        await publisher.publish(EVENTS)
    assert (door.opened, door.closed) == (1, 1)


async def test_gives_up_when_the_time_is_over() -> None:
    door = Door(*[LOST] * 20)
    async with retrying(door, 10) as publisher:
        with pytest.raises(ConnectionLost, match="cut"):
            await publisher.publish(EVENTS)
    assert len(door.came) == 4  # after 0, 1, 3 and 7 seconds; the next would be after 11
    assert door.opened == door.closed


async def test_tries_once_with_no_time_at_all() -> None:
    door = Door(LOST)
    async with retrying(door, 0) as publisher:
        with pytest.raises(ConnectionLost):
            await publisher.publish(EVENTS)
    assert len(door.came) == 1


async def test_a_refusal_is_not_tried_again() -> None:
    door = Door(Refused("no"))
    async with retrying(door, 60) as publisher:
        with pytest.raises(Refused):
            await publisher.publish(EVENTS)
    assert len(door.came) == 1
