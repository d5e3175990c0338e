"""What live subscriptions rest on is asked for again: bounded in time, and in questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gapless.auth import Answer, AskOptions, Identity, Question
from gapless.auth.ask import Application, one_by_one
from gapless.auth.leases import Lease, Leases
from gapless.auth.renewals import Renewals
from gapless.errors import Unauthorized
from tests.auth.support import Clock


def about(room: str) -> Question:
    return Question("subscribe", "room", room)


class World:
    """An application, and connections that hear rooms as the doors do: checked when subscribed and at each look."""

    def __init__(self, **options: float) -> None:
        self.clock = Clock()
        self.says: dict[str, bool | Answer | Exception] = {}
        self.asked: Counter[str] = Counter()
        settings = AskOptions(**options)  # type: ignore[arg-type]
        self.application = Application(settings, one_by_one(self.ask), clock=self.clock, spread=lambda: 0.0)
        self.leases = Leases()
        self.renewals = Renewals(self.application, self.leases, concurrency=4)

    async def ask(self, identity: Identity, question: Question) -> bool | Answer:
        self.asked[question.subject] += 1
        said = self.says.get(question.subject, True)
        if isinstance(said, Exception):
            raise said
        return said

    async def connect(self, user: str | None, *rooms: str, token: str = "t") -> Connection:
        connection = Connection(self, Identity(user_id=user, token_id=token), set(rooms))
        connection.lease = self.leases.hold(connection.identity, connection)
        await self.application.ask(connection.identity, [about(room) for room in rooms])
        connection.access_changed()
        return connection

    async def pass_time(self, seconds: float) -> None:
        """In steps of a second, with a look at what is due in each."""
        for _ in range(int(seconds)):
            self.clock.now += 1
            self.renewals.turn()
            await self.renewals.settled()


class Connection:
    def __init__(self, world: World, identity: Identity, rooms: set[str]) -> None:
        self.world = world
        self.identity = identity
        self.rooms = rooms
        self.looks = 0
        self.lease: Lease

    def access_ended(self, error: Unauthorized) -> None:
        raise AssertionError

    def access_changed(self) -> None:
        """A room that is not answered for any more is asked for, at the doors; here it is lost."""
        self.looks += 1
        self.rooms = {room for room in self.rooms if self.world.application.answer(self.identity, about(room))}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.renewals.stop()


async def test_a_live_subscription_ends_within_the_life_of_the_answer(world: World) -> None:
    connection = await world.connect("7", "lead:1", "lead:2")
    await world.pass_time(300)
    assert connection.rooms == {"lead:1", "lead:2"}
    world.says["lead:1"] = False
    await world.pass_time(60)
    assert connection.rooms == {"lead:2"}


async def test_one_question_for_all_connections_of_a_token_and_room_in_a_life(world: World) -> None:
    connections = [await world.connect("7", "lead:1") for _ in range(50)]
    await world.connect("7", "lead:1", token="another")
    assert world.asked["lead:1"] == 2
    await world.pass_time(360)
    assert world.asked["lead:1"] == 2 * (1 + 10)  # each 36 s, at the earliest
    assert all(connection.rooms for connection in connections)


async def test_a_long_life_is_not_asked_for_more_often(world: World) -> None:
    world.says["lead:1"] = Answer(True, ttl=600)
    connection = await world.connect("7", "lead:1", "lead:2")
    await world.pass_time(290)
    assert world.asked["lead:1"] == 1
    await world.pass_time(290)
    assert world.asked["lead:1"] == 2
    assert world.asked["lead:2"] == 1 + 580 // 36
    assert connection.rooms == {"lead:1", "lead:2"}


async def test_what_is_asked_at_one_time_is_looked_at_once(world: World) -> None:
    connection = await world.connect("7", *(f"lead:{number}" for number in range(100)))
    looks = connection.looks
    await world.pass_time(40)
    assert world.asked.total() == 200
    assert connection.looks == looks + 1


async def test_what_nobody_hears_any_more_is_let_go(world: World) -> None:
    connection = await world.connect("7", "lead:1", "lead:2")
    connection.rooms.discard("lead:1")
    await world.pass_time(200)
    assert world.asked["lead:1"] <= 2
    connection.lease.release()
    asked = world.asked["lead:2"]
    await world.pass_time(200)
    assert world.asked["lead:2"] == asked
    assert len(world.renewals) == 0


@pytest.mark.parametrize("failure", [TimeoutError(), RuntimeError("the application is being restarted")])
async def test_an_application_that_fails_for_a_moment_ends_nothing(world: World, failure: Exception) -> None:
    connection = await world.connect("7", "lead:1")
    world.says["lead:1"] = failure
    await world.pass_time(60 + 45)
    assert connection.rooms == {"lead:1"}
    assert world.asked["lead:1"] <= 2 + 5
    world.says["lead:1"] = True
    await world.pass_time(300)
    assert connection.rooms == {"lead:1"}


async def test_an_application_that_goes_on_failing_ends_it(world: World) -> None:
    connection = await world.connect("7", "lead:1")
    world.says["lead:1"] = RuntimeError("down")
    await world.pass_time(60 + 60 + 1)
    assert connection.rooms == set()


async def test_without_a_time_of_grace_it_ends_with_its_life() -> None:
    world = World(stale_seconds=0)
    connection = await world.connect("7", "lead:1")
    world.says["lead:1"] = RuntimeError("down")
    await world.pass_time(61)
    assert connection.rooms == set()
    await world.renewals.stop()


async def test_no_answer_lets_nobody_new_in(world: World) -> None:
    world.says["lead:1"] = RuntimeError("down")
    assert (await world.connect("7", "lead:1")).rooms == set()


async def test_an_answer_that_fell_out_of_the_memory_is_looked_at_all_the_same() -> None:
    world = World(max_answers=1)
    connection = await world.connect("7", "lead:1")
    await world.connect("8", "lead:2")
    await world.pass_time(61)
    assert connection.rooms == set()  # a door would have asked
    await world.renewals.stop()


async def test_what_rights_changed_in_the_middle_of_counts(world: World) -> None:
    connection = await world.connect("7", "lead:1")
    world.says["lead:1"] = False
    world.application.forget("7")
    await world.application.ask(connection.identity, [about("lead:1")])
    await world.pass_time(1)
    connection.access_changed()
    assert connection.rooms == set()
