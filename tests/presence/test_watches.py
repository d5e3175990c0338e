"""Who is told what of a room."""

from __future__ import annotations

import pytest

from gapless.auth import Identity
from gapless.presence import Presence, PresenceOptions, RoomNews
from tests.gates import Clock, TableGate

ROOM = "lead:1"


class Screen:
    """A connection that watches, and keeps what it was told."""

    def __init__(self, user: str = "ana") -> None:
        self.identity = Identity(user_id=user)
        self.takes = True
        self.told: list[tuple[str | None, int]] = []
        self.wholes: list[list[str]] = []
        self.denied: list[str] = []

    def presence(self, news: RoomNews) -> bool:
        if not self.takes:
            return False
        if news.whole is not None:
            self.wholes.append([person.user_id for person in news.whole.users])
        self.told += [(change.user_id, change.connections) for change in news.changes]
        return True

    def presence_denied(self, room: str) -> None:
        self.denied.append(room)


@pytest.fixture
async def gate() -> TableGate:
    gate = TableGate()
    gate.hears["ana"].add(ROOM)
    return gate


@pytest.fixture
async def presence(gate: TableGate) -> Presence:
    options = PresenceOptions(grace=0.0, interval=3600.0, max_users=3)  # the tests say when to tell
    presence = Presence(options, gate=gate, clock=Clock(), wall=Clock())
    presence.tell()
    return presence


def user(name: str) -> Identity:
    return Identity(user_id=name)


async def test_changes_are_gathered_and_told_once(presence: Presence) -> None:
    screen = Screen()
    presence.watch(screen, [ROOM])
    for _ in range(50):
        presence.entered(user("bob"), [ROOM])
        presence.left(user("bob"), [ROOM])
    presence.entered(user("bob"), [ROOM])
    presence.entered(Identity(), [ROOM])
    presence.tell()
    assert screen.told == [("bob", 1), (None, 1)]
    presence.unwatch(screen)
    presence.entered(user("cid"), [ROOM])
    presence.tell()
    assert len(screen.told) == 2
    assert presence.watchers == 0


async def test_a_service_that_speaks_for_nobody_is_not_there(presence: Presence) -> None:
    presence.arrived(Identity(service=True))
    presence.entered(Identity(service=True), [ROOM])
    snapshot = presence.snapshot(ROOM)
    assert (snapshot.users, snapshot.anonymous, presence.users) == ([], 0, 0)


async def test_a_full_connection_is_told_all_of_it_later(presence: Presence) -> None:
    screen = Screen()
    presence.watch(screen, [ROOM])
    screen.takes = False
    presence.entered(user("bob"), [ROOM])
    presence.tell()
    presence.entered(user("cid"), [ROOM])
    presence.tell()
    screen.takes = True
    presence.tell()
    assert (screen.told, screen.wholes) == ([], [["bob", "cid"]])
    presence.entered(user("bob"), [ROOM])
    presence.tell()
    assert screen.told == [("bob", 2)]


async def test_nobody_is_told_of_a_room_that_they_may_hear_no_more(presence: Presence, gate: TableGate) -> None:
    screen = Screen()
    presence.watch(screen, [ROOM])
    gate.hears["ana"].clear()
    presence.entered(user("bob"), [ROOM])
    presence.tell()
    assert (screen.told, screen.denied) == ([], [ROOM])
    gate.hears["ana"].add(ROOM)
    presence.entered(user("cid"), [ROOM])
    presence.tell()
    assert screen.told == []


async def test_the_application_is_asked_before_anybody_is_told(presence: Presence, gate: TableGate) -> None:
    screen = Screen()
    presence.watch(screen, [ROOM])
    gate.asks[ROOM] = True
    gate.may_answer.clear()
    presence.entered(user("bob"), [ROOM])
    presence.tell()
    await gate.asking.wait()
    presence.tell()
    assert (screen.told, screen.wholes, gate.asked) == ([], [], [ROOM])
    gate.may_answer.set()
    await presence.settled()
    presence.tell()
    assert screen.wholes == [["bob"]]
    await presence.stop()


async def test_a_crowded_room_is_told_by_snapshots_alone(presence: Presence) -> None:
    screen = Screen()
    presence.watch(screen, [ROOM])
    for name in ("a", "b", "c", "d"):
        presence.entered(user(name), [ROOM])
    presence.tell()
    presence.entered(user("e"), [ROOM])
    presence.tell()
    assert (screen.told, screen.wholes) == ([], [["a", "b", "c"]])
    assert not presence.snapshot(ROOM).complete
    for name in ("d", "e"):
        presence.left(user(name), [ROOM])
    presence.roster.expire()
    presence.tell()
    assert screen.wholes[1:] == [["a", "b", "c"]]
    assert presence.snapshot(ROOM).complete
    presence.entered(user("a"), [ROOM])
    presence.tell()
    assert screen.told == [("a", 2)]
