"""Fan-out: each live member once, in order, one write a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.event import Event, Origin, Record
from gapless.eventlog import MemoryLog
from gapless.hub import Hub
from gapless.transports.broadcast import Lane
from gapless.transports.socketio.client import Client, Stats, encode_record
from gapless.transports.socketio.fanout import RoomFanout
from gapless.transports.socketio.outgoing import OutgoingQueue
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

    def __init__(self, fanout: RoomFanout, number: int, rooms: frozenset[str], *, direct: bool = True) -> None:
        self.rooms = rooms
        self.writes: list[bytes] = []
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
        )
        self.queue.add_reader(self.client)
        self.client.live = True
        if direct:
            self.client.lane = Lane(self.writes.append)
        fanout.join(self.client, rooms)

    @property
    def received(self) -> bytes:
        while not self.queue.empty():
            packet = self.queue.get_nowait()
            self.writes.append(packet.encode().encode())
        return b"".join(self.writes)


def frames(records: list[Record], rooms: frozenset[str]) -> bytes:
    return b"".join(encode_record(r).frames for r in records if rooms.intersection(r.event.rooms))


some_rooms = st.frozensets(st.sampled_from(ROOMS))
batches = st.lists(
    st.lists(st.lists(st.sampled_from(ROOMS), min_size=1, unique=True).map(tuple), min_size=1, max_size=5), max_size=4
)


@given(memberships=st.lists(some_rooms, max_size=6), batches=batches)
def test_each_member_gets_each_event_of_its_rooms_once_in_order_in_one_write_a_batch(
    memberships: list[frozenset[str]], batches: list[list[tuple[str, ...]]]
) -> None:
    fanout = RoomFanout(lambda: NOW)
    members = [Member(fanout, number, rooms) for number, rooms in enumerate(memberships)]
    offset = 0
    everything: list[Record] = []
    for batch in batches:
        before = [len(member.writes) for member in members]
        for rooms in batch:
            offset += 1
            everything.append(record(offset, rooms))
            fanout.deliver(everything[-1])
        fanout.flush()
        assert all(len(member.writes) - count <= 1 for member, count in zip(members, before, strict=True))
    for member in members:
        assert member.received == frames(everything, member.rooms)


def test_a_queued_client_gets_packets() -> None:
    fanout = RoomFanout(lambda: NOW)
    member = Member(fanout, 1, frozenset("a"), direct=False)
    for offset in (1, 2):
        fanout.deliver(record(offset, ("a",)))
    fanout.flush()
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
    assert there.received == frames([record(1, ("a",)), record(2, ("a",))], frozenset("a"))


def test_nothing_is_left_of_a_client_that_left() -> None:
    fanout = RoomFanout(lambda: NOW)
    member = Member(fanout, 1, frozenset("ab"))
    fanout.leave(member.client, ["a", "b", "c"])
    fanout.deliver(record(1, ("a", "b")))
    fanout.flush()
    assert member.received == b""
