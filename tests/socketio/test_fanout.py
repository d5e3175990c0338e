"""Fan-out: each live member once, in order, one write a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.event import Event, Origin, Record
from gapless.eventlog import MemoryLog
from gapless.hub import Hub
from gapless.transports.broadcast import FEW, Lane
from gapless.transports.socketio import fanout as fanout_module
from gapless.transports.socketio.client import Client, Stats, encode_record
from gapless.transports.socketio.fanout import RoomFanout
from gapless.transports.socketio.outgoing import OutgoingQueue, encode_frame
from tests.gates import UNWATCHED

ROOMS = ("a", "b", "c")
HUB = Hub(MemoryLog())
NOW = 1_000.0


def record(offset: int, rooms: tuple[str, ...], *, expires: int | None = None) -> Record:
    event = Event(
        id=f"e{offset}",
        type="t",
        topic="t",
        rooms=rooms,
        data=b"{}",
        time=0,
        origin=Origin("python"),
        expires=expires,
    )
    return Record(event, offset, "x")


class Member:
    """A client, and the writes to its socket."""

    def __init__(self, fanout: RoomFanout, number: int, rooms: frozenset[str] = frozenset()) -> None:
        self.fanout = fanout
        self.rooms = rooms
        self.writes: list[bytes] = []
        self.expected: list[Record] = []
        self.queue = OutgoingQueue(max_messages=1000, max_bytes=1_000_000)
        self.client = Client(
            sid=f"s{number}",
            eio_sid=f"e{number}",
            pid=f"p{number}",
            access=UNWATCHED,
            queue=self.queue,
            hub=HUB,
            position=0,
            stats=Stats(),
            changed=fanout.changed,
        )
        self.queue.add_reader(self.client)
        self.client.live = True
        self.client.lane = self.new_lane()
        fanout.join(self.client, rooms)

    def new_lane(self) -> Lane:
        """What is written by it once it is the client's no more is marked."""
        lane = Lane(lambda data: self.writes.append(data if self.client.lane is lane else b"astray: " + data))
        return lane

    def change(self, how: str) -> None:
        """Turn what can be turned: being live, having a lane, being in the room."""
        if how == "live":
            self.client.live = not self.client.live
        elif how == "lane":
            while not self.queue.empty():  # as when a WebSocket takes over
                self.writes.append(encode_frame(self.queue.get_nowait()))
            self.client.lane = self.new_lane() if self.client.lane is None else None
        elif how in self.rooms:
            self.rooms -= {how}
            self.fanout.leave(self.client, [how])
        else:
            self.rooms |= {how}
            self.fanout.join(self.client, [how])

    def expect(self, event: Record) -> None:
        """It will be handed out as things are now."""
        if self.client.live and self.rooms.intersection(event.event.rooms):
            self.expected.append(event)

    @property
    def received(self) -> bytes:
        while not self.queue.empty():
            self.writes.append(encode_frame(self.queue.get_nowait()))
        return b"".join(self.writes)


def frames(records: list[Record]) -> bytes:
    return b"".join(encode_record(record).frames for record in records)


memberships_of_some = st.lists(st.frozensets(st.sampled_from(ROOMS)), max_size=2)
named = [("a",), ("b",), ("a", "b"), ("c", "b", "a"), ("nobody's", "a"), ("a", "nobody else's"), ("nobody's",)]
batches = st.lists(st.sampled_from(named), min_size=1, max_size=3)
changes = st.tuples(st.integers(0, FEW + 2), st.sampled_from(["live", "lane", *ROOMS]))


@given(some=memberships_of_some, steps=st.lists(st.one_of(batches, changes), min_size=3, max_size=12))
def test_each_live_member_gets_each_event_of_its_rooms_once_in_order_in_one_write_a_batch(
    some: list[frozenset[str]], steps: list[list[tuple[str, ...]] | tuple[int, str]]
) -> None:
    """Whoever comes, goes, falls behind, or is written to in another way from then on."""
    memberships = [*some, *[frozenset("ab")] * (FEW + 1)]
    fanout = RoomFanout(lambda: NOW)
    members = [Member(fanout, number, rooms) for number, rooms in enumerate(memberships)]
    offset = 0
    for step in steps:
        if isinstance(step, tuple):
            number, how = step
            if number < len(members):
                members[number].change(how)
            continue
        before = [len(member.writes) for member in members]
        for rooms in step:
            offset += 1
            event = record(offset, rooms)
            for member in members:
                member.expect(event)
            fanout.deliver(event)
        fanout.flush()
        assert all(len(member.writes) - count <= 1 for member, count in zip(members, before, strict=True))
    for member in members:
        assert member.received == frames(member.expected)


@pytest.mark.parametrize("rooms", [("a",), ("a", "b")])
@pytest.mark.parametrize("apart", [False, True])
async def test_who_falls_behind_by_the_first_write_has_had_the_event(rooms: tuple[str, ...], *, apart: bool) -> None:
    """Two sessions on one connection, which is full after the first one's: both stand behind the event then."""
    fanout = RoomFanout(lambda: NOW)
    first, second = Member(fanout, 1, frozenset("a")), Member(fanout, 2, frozenset(rooms[-1:]))
    others = [Member(fanout, number, frozenset("ab")) for number in range(3, 3 + FEW)]
    Member(fanout, 3 + FEW, frozenset("c"))
    shared = OutgoingQueue(max_messages=1, max_bytes=1_000_000)
    for member in (first, second):
        member.queue = member.client.queue = shared
        shared.add_reader(member.client)
    event = record(1, rooms)
    fanout.deliver(event)
    if apart:  # committed together with what is not for the same rooms
        fanout.deliver(record(2, ("c",)))
    fanout.flush()
    assert not first.client.live
    assert not second.client.live
    assert first.received == encode_record(event).frames * 2
    assert all(member.received == encode_record(event).frames for member in others)


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout_module, "PLANNED", 3 * FEW)
    fanout = RoomFanout(lambda: NOW)
    members = [Member(fanout, number, frozenset(ROOMS)) for number in range(FEW + 1)]
    sent = [record(offset, (room,)) for offset, room in enumerate(ROOMS * 3, 1)]
    for each in sent:
        fanout.deliver(each)
        fanout.flush()
        assert sum(len(plan.group.others) for plan in fanout._plans.values()) <= 3 * FEW
    assert all(member.received == frames(sent) for member in members)


def test_rooms_that_nobody_is_in_cost_no_plan_and_no_write() -> None:
    fanout = RoomFanout(lambda: NOW)
    members = [Member(fanout, number, frozenset("a")) for number in range(FEW + 1)]
    sent = [record(offset, (f"lead:{offset}", "a")) for offset in range(1, 9)]
    fanout.deliver(sent[0])
    fanout.flush()
    unheard = [record(9, ("lead:9",)), record(10, ("lead:10",))]
    for each in (unheard[0], *sent[1:], unheard[1]):
        fanout.deliver(each)
    fanout.flush()
    for each in unheard:
        fanout.deliver(each)
    fanout.flush()
    assert all(member.received == frames(sent) for member in members)
    assert all(len(member.writes) == 2 for member in members)
    assert len({id(plan) for plan in fanout._plans.values()}) == 1


def test_a_queued_client_gets_packets() -> None:
    fanout = RoomFanout(lambda: NOW)
    member = Member(fanout, 1, frozenset("a"))
    member.client.lane = None
    for offset in (1, 2):
        fanout.deliver(record(offset, ("a",)))
    fanout.flush()
    assert member.writes == []
    assert member.received.count(b'42["t"') == 2


def test_those_behind_and_expired_events_are_passed_over() -> None:
    fanout = RoomFanout(lambda: NOW)
    behind, live = Member(fanout, 1, frozenset("a")), Member(fanout, 2, frozenset("a"))
    behind.client.live = False
    gone, kept = record(1, ("a",), expires=int(NOW * 1000)), record(2, ("a",), expires=int(NOW * 1000) + 1)
    for each in (gone, kept):
        fanout.deliver(each)
    fanout.flush()
    assert behind.received == b""
    assert live.received == encode_record(kept).frames


def test_a_socket_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    fanout = RoomFanout(lambda: NOW)
    gone, there = Member(fanout, 1, frozenset("a")), Member(fanout, 2, frozenset("a"))

    def closed(_: bytes) -> None:
        raise RuntimeError("a defect")

    gone.client.lane = Lane(closed)
    for offset in (1, 2):
        fanout.deliver(record(offset, ("a",)))
        fanout.flush()
    assert [each.message for each in caplog.records] == [
        "writing to a connection failed: it is dropped, and its client resumes"
    ] * 2
    assert there.received == frames([record(1, ("a",)), record(2, ("a",))])


def test_nothing_is_left_of_a_client_that_left() -> None:
    fanout = RoomFanout(lambda: NOW)
    member = Member(fanout, 1, frozenset("ab"))
    fanout.leave(member.client, ["a", "b", "c"])
    fanout.deliver(record(1, ("a", "b")))
    fanout.flush()
    assert member.received == b""
