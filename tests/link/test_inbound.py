"""Messages from the broker: into the log, then acknowledged; once, whatever is sent again."""

from __future__ import annotations

import asyncio
import json
from asyncio import Future
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gapless.errors import LogUnavailable, Overloaded
from gapless.event import Event
from gapless.eventlog import Answer, EventLog, StateKind, StateWrite
from gapless.eventlog.memory import MemoryLog
from gapless.eventlog.sqlite import SqliteLog
from gapless.eventlog.sqlite.jobs import Outcome
from gapless.ingress import Publication
from gapless.limits import Limits
from gapless.link import inbound as inbound_module
from gapless.link import link as link_module
from gapless.mqtt import (
    Connect,
    Disconnect,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
    Subscribe,
    Unsubscribe,
    encode,
)
from gapless.topicmap import Row, TopicMap
from tests.eventlog.faults import FailsOnce
from tests.link.scripted import ScriptedBroker, Session, scripted
from tests.link.support import Side, options, side

TOPIC = "crm/leads/1/updated"


class GatedLog(MemoryLog):
    """A log whose appends wait while `gate` is closed, and fail while `error` is set: those of `only`, or all."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Event] = []
        self._later: list[tuple[Event, Answer, Sequence[StateWrite]]] = []
        self.closed_gate = False
        self.error: Exception | None = None
        self.only: bytes | None = None
        self.state_error: Exception | None = None
        self.state_answer: Future[None] | None = None  # for packet identifiers
        self.state_writes: list[StateWrite] = []

    def append_one(self, event: Event, answer: Answer, *, state: Sequence[StateWrite] = ()) -> None:
        if self.error is not None and self.only in (None, event.data):
            raise self.error
        if not self.closed_gate:
            super().append_one(event, answer, state=state)
            return
        self.held.append(event)
        self._later.append((event, answer, state))

    def write_state(self, writes: Sequence[StateWrite], *, durable: bool) -> Future[None]:
        if writes[0].kind is StateKind.LINK_RECEIVED:
            self.state_writes += writes
            if self.state_answer is not None:
                return self.state_answer
        if self.state_error is not None:
            failed: Future[None] = asyncio.get_running_loop().create_future()
            failed.set_exception(self.state_error)
            return failed
        return super().write_state(writes, durable=durable)

    def refuse(self, error: Exception) -> None:
        """Refuse the appends that wait."""
        waiting, self._later = self._later, []
        for _, answer, _ in waiting:
            answer.refused(error)

    def open_gate(self, index: int = 0) -> None:
        """Let the append with this number through, of those that wait."""
        event, answer, state = self._later.pop(index)
        super().append_one(event, answer, state=state)


@asynccontextmanager
async def pair(log: EventLog | None = None, **changes: Any) -> AsyncIterator[tuple[ScriptedBroker, Side, Session]]:
    topics = changes.pop("topics", None)
    async with scripted() as broker:
        async with side(options(broker.url, **changes), log=log, topics=topics) as gateway:
            yield broker, gateway, broker.sessions[-1]


def message(n: int, *, qos: int = 1, packet_id: int = 0, dup: bool = False, topic: str = TOPIC) -> Publish:
    return Publish(topic, json.dumps({"n": n}).encode(), qos=qos, packet_id=(packet_id or n) if qos else 0, dup=dup)


async def back(broker: ScriptedBroker, gateway: Side) -> Session:
    """The next connection, once one was lost."""
    await gateway.link.wait_disconnected()
    await gateway.connected()
    return broker.sessions[-1]


async def send_again(session: Session, numbers: Sequence[int], qos: int) -> None:
    """Messages that were not acknowledged, in their order, each until it is."""
    for n in numbers:
        session.send(message(n, qos=qos, dup=True))
        await session.get(Puback if qos == 1 else Pubrec)


@pytest.mark.parametrize(("qos", "kind"), [(1, Puback), (2, Pubrec)])
async def test_acknowledged_only_once_it_is_in_the_log_and_in_order(qos: int, kind: type[Puback | Pubrec]) -> None:
    log = GatedLog()
    async with pair(log) as (_, gateway, session):
        log.closed_gate = True
        for n in (1, 2, 3):
            session.send(message(n, qos=qos))
        while len(log.held) < 3:
            await asyncio.sleep(0)
        log.open_gate(2)  # the third is stored first
        await gateway.heard.wait(1)
        assert not [p for p in session.packets if isinstance(p, Puback | Pubrec)]
        log.open_gate(0)
        assert (await session.get(kind)).packet_id == 1
        log.open_gate(0)
        assert [(await session.get(kind)).packet_id for _ in range(2)] == [2, 3]


@pytest.mark.parametrize("error", [LogUnavailable("the disk is full"), Overloaded("too much")])
@pytest.mark.parametrize("qos", [1, 2])
async def test_not_acknowledged_where_the_log_cannot_take_it(error: Exception, qos: int) -> None:
    """The connection is closed, and the broker sends it again on the next."""
    log = GatedLog()
    async with pair(log) as (broker, gateway, session):
        broker.session_present = True
        log.error = error
        session.send(message(1, qos=qos))
        state = await gateway.link.wait_disconnected()
        assert "log cannot take messages" in state.error
        assert not [p for p in session.packets if isinstance(p, Puback | Pubrec)]
        log.error = None
        await gateway.connected()
        broker.sessions[-1].send(message(1, qos=qos, dup=True))
        await broker.sessions[-1].get(Puback if qos == 1 else Pubrec)
        assert gateway.heard.data == [{"n": 1}]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("qos", [1, 2])
async def test_nothing_comes_before_what_the_disk_could_not_take(
    qos: int, own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker's publishers heard long ago that all are there, of each before they sent the next.

    Args:
        own: whether the transaction that fails is the link's, or somebody else's before it.
    """
    log = SqliteLog(tmp_path / "log.db")
    async with pair(log) as (broker, gateway, session):
        broker.session_present = True
        disk = FailsOnce(monkeypatch)
        others: list[Future[None]] = []
        if not own:
            others.append(log.write_state([StateWrite(StateKind.PUMP, "other", b"1")], durable=True))
            await disk.began()
        session.send(message(1, qos=qos))
        if own:
            await disk.began()
        session.send(message(2, qos=qos))
        while gateway.link.stats.received < 2:
            await asyncio.sleep(0)
        finish = log._finish

        def finish_and_receive(outcome: Outcome) -> None:
            finish(outcome)
            if outcome.failed is not None:
                gateway.link.on_packet(message(3, qos=qos))

        monkeypatch.setattr(log, "_finish", finish_and_receive)
        disk.fail()
        await send_again(await back(broker, gateway), (1, 2, 3), qos)
        assert gateway.heard.data == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert all(isinstance(other.exception(), LogUnavailable) for other in others)


@pytest.mark.parametrize("qos", [1, 2])
async def test_nothing_comes_before_what_there_was_no_room_for(qos: int) -> None:
    """All three come by one read, and only the first is too large for what waits already."""
    log = GatedLog()
    async with pair(log) as (broker, gateway, session):
        broker.session_present = True
        log.error = Overloaded("too much")
        log.only = b'{"n": 1}'
        session.send_bytes(b"".join(encode(message(n, qos=qos), session.version) for n in (1, 2, 3)))
        await gateway.link.wait_disconnected()
        log.error = None
        await gateway.connected()
        second = broker.sessions[-1]
        for n in (1, 2, 3):
            second.send(message(n, qos=qos, dup=True))
            await second.get(Puback if qos == 1 else Pubrec)
        assert gateway.heard.data == [{"n": 1}, {"n": 2}, {"n": 3}]


@pytest.mark.parametrize("busy", [False, True])
async def test_broker_is_heard_out_before_the_connection_ends(busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: what it has got of us, and not acknowledged yet, would be heard twice there.

    Args:
        busy: whether so much of the broker waits for the log that nothing is read.
    """
    monkeypatch.setattr(inbound_module, "_MOST_WAITING", 2 if busy else 1000)
    log = GatedLog()
    async with pair(log) as (broker, gateway, session):
        broker.session_present = True
        broker.acknowledges = False
        await gateway.publish(2)
        packet_ids = [(await session.get(Publish)).packet_id for _ in range(2)]
        log.closed_gate = True
        session.send_bytes(b"".join(encode(message(n), session.version) for n in (1, 2)))
        while len(log.held) < 2:
            await asyncio.sleep(0)
        log.closed_gate = False
        log.refuse(LogUnavailable("the disk is full"))
        session.send(message(3))  # not taken: it comes after what was refused
        for packet_id in packet_ids:
            session.send(Puback(packet_id))
        broker.acknowledges = True
        second = await back(broker, gateway)
        await gateway.settled()
        assert not [p for p in second.packets if isinstance(p, Publish)]
        await send_again(second, (1, 2, 3), 1)
        assert [data["n"] for data in gateway.heard.data[2:]] == [1, 2, 3]


async def owing(broker: ScriptedBroker, gateway: Side, session: Session, log: GatedLog, *, qos: int = 1) -> int:
    """The disk is full for a message of the broker, which has not acknowledged one of ours: that one's identifier.

    At QoS 2 it is PUBCOMP that it owes, and it forgets us.
    """
    broker.session_present = qos == 1
    broker.acknowledges = False
    await gateway.publish(1, qos=qos)
    packet_id = (await session.get(Publish, lambda packet: packet.topic.startswith("crm"))).packet_id
    if qos == 2:
        session.send(Pubrec(packet_id))
        await session.get(Pubrel)
    log.error = LogUnavailable("the disk is full")
    session.send(message(1))
    await gateway.link.wait_disconnected()
    log.error = None
    for _ in range(20):  # time enough to end the connection
        await asyncio.sleep(0)
    return packet_id


async def test_broker_that_never_answers_is_left_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link_module, "_LAST_ANSWERS", 0.01)
    log = GatedLog()
    async with pair(log, stable_after=0.01) as (broker, gateway, session):
        await asyncio.sleep(0)
        await owing(broker, gateway, session, log)
        broker.acknowledges = True
        await gateway.connected()
        assert (await broker.sessions[-1].get(Publish)).dup
    assert "did not acknowledge in time" in caplog.text


async def test_broker_that_forgets_us_is_heard_out_at_qos_2_too() -> None:
    log = GatedLog()
    async with pair(log, session_expiry=0) as (broker, gateway, session):
        packet_id = await owing(broker, gateway, session, log, qos=2)
        broker.acknowledges = True
        session.send(Pubcomp(packet_id))
        await gateway.connected()
        await gateway.settled()
        assert not [p for p in broker.sessions[-1].packets if isinstance(p, Publish)]


async def test_goodbye_is_said_while_the_broker_is_heard_out() -> None:
    log = GatedLog()
    async with pair(log, status_topic="status") as (broker, gateway, session):
        packet_id = await owing(broker, gateway, session, log)
        stopping = asyncio.create_task(gateway.link.stop())
        await asyncio.sleep(0)
        broker.acknowledges = True
        session.send(Puback(packet_id))
        await stopping
        assert b"offline" in (await session.get(Publish)).payload
        await session.get(Disconnect)
        assert len(broker.sessions) == 1


@pytest.mark.parametrize("qos", [1, 2])
async def test_stop_while_the_broker_that_is_heard_out_goes_away(qos: int, caplog: pytest.LogCaptureFixture) -> None:
    """At QoS 2 before PUBREC, which is not waited for: the connection is left to the stop."""
    log = GatedLog()
    async with pair(log, status_topic="status") as (broker, gateway, session):
        if qos == 1:
            await owing(broker, gateway, session, log)
            stopping = asyncio.create_task(gateway.link.stop())
        else:
            broker.acknowledges = False
            await gateway.publish(1, qos=2)
            await session.get(Publish, lambda packet: packet.topic.startswith("crm"))
            stopping = asyncio.create_task(gateway.link.stop())
            log.error = LogUnavailable("the disk is full")
            session.send(message(1))
            await gateway.link.wait_disconnected()
        for _ in range(20):
            await asyncio.sleep(0)
        session.close()
        await stopping
        assert len(broker.sessions) == 1
    assert "in time" not in caplog.text


async def test_broker_is_heard_out_whatever_else_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log cannot be read, and then takes nothing either."""
    log = GatedLog()
    async with pair(log) as (broker, gateway, session):
        broker.session_present = True
        broker.acknowledges = False
        await gateway.publish(1)
        packet_id = (await session.get(Publish)).packet_id

        async def unreadable() -> None:
            raise LogUnavailable("the log cannot be read")

        with monkeypatch.context() as patch:
            patch.setattr(gateway.link.pump, "_load_page", unreadable)
            await gateway.publish(1, start=1)
            await gateway.link.wait_disconnected()
        log.error = LogUnavailable("the disk is full")
        session.send(message(1))
        while gateway.link.stats.received < 1:
            await asyncio.sleep(0)
        log.error = None
        broker.acknowledges = True
        session.send(Puback(packet_id))
        await gateway.connected()
        await gateway.settled()
        published = [p for p in broker.sessions[-1].packets if isinstance(p, Publish)]
        assert [(json.loads(p.payload)["data"], p.dup) for p in published] == [({"n": 1}, False)]


async def test_what_fails_by_a_defect_comes_again_and_nothing_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair() as (broker, gateway, session):
        broker.session_present = True
        make_event, failures = gateway.ingress.make_event, 0

        def fail_once(publication: Publication) -> tuple[Event, bool]:
            nonlocal failures
            failures += 1
            if failures == 1:
                raise RuntimeError("a defect")
            return make_event(publication)

        monkeypatch.setattr(gateway.ingress, "make_event", fail_once)
        session.send(message(1))
        second = await back(broker, gateway)
        for n in (1, 2):
            second.send(message(n, dup=n == 1))
        assert [(await second.get(Puback)).packet_id for _ in range(2)] == [1, 2]
        assert gateway.heard.data == [{"n": 1}, {"n": 2}]
        assert gateway.link._inbound._waiting == 0


@pytest.mark.parametrize("qos", [1, 2])
async def test_retained_message_that_the_log_refused_is_no_repetition(qos: int) -> None:
    """In 3.1.1, where only its content tells whether a retained message was there before."""
    log = GatedLog()
    async with pair(log, protocol="3.1.1") as (broker, gateway, session):
        broker.session_present = True
        log.error = LogUnavailable("the disk is full")
        retained = Publish(TOPIC, b'{"n": 1}', qos=qos, packet_id=1, retain=True)
        session.send(retained)
        await gateway.link.wait_disconnected()
        log.error = None
        await gateway.connected()
        second = broker.sessions[-1]
        second.send(msgspec.structs.replace(retained, dup=True))
        await second.get(Puback if qos == 1 else Pubrec)
        assert gateway.heard.data == [{"n": 1}]


async def test_retained_message_that_does_not_fit_is_heard_and_not_retained(caplog: pytest.LogCaptureFixture) -> None:
    """Sent again it would not fit either: the connection would end for ever."""
    async with pair() as (_, gateway, session):
        gateway.ingress.limits = Limits(retained_bytes=500)
        large = Publish(TOPIC, b'{"n": 1, "pad": "%b"}' % (b"x" * 2000), qos=1, packet_id=1, retain=True)
        session.send(large)
        session.send(message(2))
        assert [(await session.get(Puback)).packet_id for _ in range(2)] == [1, 2]
        assert [data["n"] for data in gateway.heard.data] == [1, 2]
        assert gateway.hub.retained.get(TOPIC) is None
    assert "message not retained" in caplog.text


@pytest.mark.parametrize("qos", [1, 2])
async def test_sent_again_before_it_was_acknowledged(qos: int) -> None:
    """The connection is lost while the log is at it: known again by its packet identifier."""
    log = GatedLog()
    async with pair(log) as (broker, gateway, session):
        broker.session_present = True
        log.closed_gate = True
        session.send(message(1, qos=qos))
        while not log.held:
            await asyncio.sleep(0)
        session.close()
        second = await back(broker, gateway)
        second.send(message(1, qos=qos, dup=True))
        second.send(message(2, qos=0))
        while len(log.held) < 2:
            await asyncio.sleep(0)
        log.closed_gate = False
        log.open_gate(0)
        log.open_gate(0)
        kind: type[Puback | Pubrec] = Puback if qos == 1 else Pubrec
        assert (await second.get(kind)).packet_id == 1
        await gateway.heard.wait(2)
        assert gateway.heard.data == [{"n": 1}, {"n": 2}]
        assert gateway.link.stats.duplicates == 1


async def test_same_identifier_in_a_new_session_is_another_message() -> None:
    log = GatedLog()
    async with pair(log) as (broker, gateway, session):
        log.closed_gate = True
        session.send(message(1))
        while not log.held:
            await asyncio.sleep(0)
        session.close()
        await gateway.link.wait_disconnected()
        await gateway.connected()
        log.closed_gate = False
        broker.sessions[-1].send(message(1, dup=True))
        log.open_gate(0)
        await gateway.heard.wait(2)


async def test_qos_1_identifier_used_again_after_puback_is_another_message() -> None:
    """Even an identical one, marked DUP, as its first copy was lost on the way: losing it would be worse."""
    async with pair() as (broker, gateway, session):
        broker.session_present = True
        session.send(message(1, packet_id=5))
        await session.get(Puback)
        session.close()
        await gateway.link.wait_disconnected()
        await gateway.connected()
        broker.sessions[-1].send(message(1, packet_id=5, dup=True))
        await gateway.heard.wait(2)
        assert gateway.heard.data == [{"n": 1}, {"n": 1}]


class TestQos2ExactlyOnce:
    async def test_the_four_packets(self) -> None:
        log = MemoryLog()
        async with pair(log) as (_, gateway, session):
            session.send(message(1, qos=2, packet_id=7))
            assert (await session.get(Pubrec)).packet_id == 7
            assert len(await self.stored(log)) == 1
            session.send(Pubrel(7))
            assert await session.get(Pubcomp) == Pubcomp(7)
            assert await self.stored(log) == {}
            session.send(message(1, qos=2, packet_id=7))  # the identifier is free again
            await session.get(Pubrec)
            assert len(gateway.heard.records) == 2

    @staticmethod
    async def stored(log: MemoryLog) -> dict[str, bytes]:
        return await log.all_state(StateKind.LINK_RECEIVED)

    async def test_sent_again_after_pubrec_was_lost(self) -> None:
        async with pair() as (broker, gateway, session):
            broker.session_present = True
            session.send(message(1, qos=2, packet_id=7))
            await session.get(Pubrec)
            session.close()
            second = await back(broker, gateway)
            second.send(message(1, qos=2, packet_id=7, dup=True))
            await second.get(Pubrec)
            second.send(Pubrel(7))
            await second.get(Pubcomp)
            assert gateway.heard.data == [{"n": 1}]

    async def test_sent_again_to_a_new_process(self) -> None:
        log = MemoryLog()
        async with scripted() as broker:
            gateway = Side(options(broker.url), log=log)
            await gateway.start()
            session = broker.sessions[-1]
            session.send(message(1, qos=2, packet_id=7))
            await session.get(Pubrec)
            await gateway.kill()
            broker.session_present = True
            async with side(options(broker.url), log=log) as gateway:
                session = broker.sessions[-1]
                session.send(message(1, qos=2, packet_id=7, dup=True))
                await session.get(Pubrec)
                session.send(Pubrel(7))
                await session.get(Pubcomp)
                assert log.head == 1
                assert await self.stored(log) == {}

    async def test_broker_that_forgot_its_session_starts_anew(self) -> None:
        log = MemoryLog()
        async with scripted() as broker:
            async with side(options(broker.url), log=log):
                session = broker.sessions[-1]
                session.send(message(1, qos=2, packet_id=7))
                await session.get(Pubrec)
            async with side(options(broker.url), log=log):
                assert await self.stored(log) == {}
                broker.sessions[-1].send(message(1, qos=2, packet_id=7))
                await broker.sessions[-1].get(Pubrec)
                assert log.head == 2

    async def test_message_with_an_id_needs_no_state(self) -> None:
        log = MemoryLog()
        async with pair(log) as (_, _gateway, session):
            payload = b'{"id":"a-1","data":{"n":1}}'
            session.send(Publish(TOPIC, payload, qos=2, packet_id=7))
            await session.get(Pubrec)
            assert await self.stored(log) == {}
            session.send(Pubrel(7))
            await session.get(Pubcomp)

    async def test_pubrel_of_an_unknown_identifier_is_answered(self) -> None:
        async with pair() as (_, _gateway, session):
            session.send(Pubrel(99))
            assert await session.get(Pubcomp) == Pubcomp(99, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)

    @pytest.mark.parametrize("stored", [True, False])
    async def test_pubrel_on_another_connection_waits_for_the_first_release(self, stored: bool) -> None:
        """Otherwise the next message with this identifier could be taken for the first one, after a kill."""
        log = GatedLog()
        async with pair(log) as (broker, gateway, session):
            broker.session_present = True
            session.send(message(1, qos=2, packet_id=7))
            await session.get(Pubrec)
            release = log.state_answer = asyncio.get_running_loop().create_future()
            session.send(Pubrel(7))
            while not log.state_writes:
                await asyncio.sleep(0)
            session.close()
            second = await back(broker, gateway)
            second.send(Pubrel(7))
            second.send(message(2))
            await second.get(Puback)
            assert not [packet for packet in second.packets if isinstance(packet, Pubcomp)]
            log.state_answer = None
            if stored:
                release.set_result(None)
            else:
                release.set_exception(LogUnavailable("the disk is full"))
                second = await back(broker, gateway)
                second.send(Pubrel(7))
            assert await second.get(Pubcomp) == Pubcomp(7)
            assert len(log.state_writes) == (1 if stored else 2)

    async def test_identifiers_of_a_lost_session_are_forgotten_when_the_disk_allows(self) -> None:
        """The broker made a new session with the CONNECT that failed here, and says so at the next."""
        log = GatedLog()
        async with pair(log) as (broker, gateway, session):
            session.send(message(1, qos=2, packet_id=7))
            await session.get(Pubrec)
            log.state_error = LogUnavailable("the disk is full")
            session.close()
            while "disk is full" not in gateway.link.state.error:
                await asyncio.sleep(0)
            broker.session_present = True
            log.state_error = None
            await gateway.connected()
            broker.sessions[-1].send(message(1, qos=2, packet_id=7))
            await broker.sessions[-1].get(Pubrec)
            assert gateway.heard.data == [{"n": 1}, {"n": 1}]

    async def test_identifier_whose_release_failed_is_forgotten_with_its_session(self) -> None:
        log = GatedLog()
        async with pair(log) as (broker, gateway, session):
            session.send(message(1, qos=2, packet_id=7))
            await session.get(Pubrec)
            disk = log.state_answer = asyncio.get_running_loop().create_future()
            session.send(Pubrel(7))
            session.close()
            while len(log.state_writes) < 2:  # the release, and all of the session that the broker lost
                await asyncio.sleep(0)
            broker.session_present = True
            log.state_answer = None
            disk.set_exception(LogUnavailable("the disk is full"))
            await gateway.connected()
            assert await self.stored(log) == {}

    async def test_identifier_that_was_stored_stays_so_until_pubrel(self) -> None:
        """Also where a second message comes by it, which needs no state of its own."""
        log = MemoryLog()
        async with pair(log) as (_, _gateway, session):
            for payload in (b'{"n":1}', b'{"id":"a-1","data":{"n":1}}'):
                session.send(Publish(TOPIC, payload, qos=2, packet_id=7))
                await session.get(Pubrec)
            session.send(Pubrel(7))
            await session.get(Pubcomp)
            assert await self.stored(log) == {}

    async def test_no_pubcomp_while_the_release_is_not_stored(self) -> None:
        log = GatedLog()
        async with pair(log) as (broker, gateway, session):
            broker.session_present = True
            session.send(message(1, qos=2, packet_id=7))
            await session.get(Pubrec)
            log.state_error = LogUnavailable("the disk is full")
            session.send(Pubrel(7))
            await gateway.link.wait_disconnected()
            assert not [p for p in session.packets if isinstance(p, Pubcomp)]
            log.state_error = None
            await gateway.connected()
            broker.sessions[-1].send(Pubrel(7))
            assert await broker.sessions[-1].get(Pubcomp) == Pubcomp(7)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_bad_messages_are_counted_acknowledged_and_stall_nothing(
    qos: int, caplog: pytest.LogCaptureFixture
) -> None:
    topics = TopicMap([Row("crm/leads/{leadId}/updated", "lead:updated", ("lead:{leadId}",))], unmapped=False)
    async with pair(topics=topics) as (_, gateway, session):
        bad = [
            Publish("elsewhere/1", b"{}", qos=qos, packet_id=1 if qos else 0),
            Publish(TOPIC, b"s3cret" + b"x" * 262_144, qos=qos, packet_id=2 if qos else 0),
            Publish("crm/leads/" + "x" * 2000 + "/updated", b"{}", qos=qos, packet_id=3 if qos else 0),
            Publish("/".join("abcdefghijklmnopqrstuvwxyz0123456789abcd"), b"", qos=qos, packet_id=4 if qos else 0),
            Publish(TOPIC, b"[" * 5000, qos=qos, packet_id=5 if qos else 0),
        ]
        for packet in [*bad, *bad]:
            session.send(packet)
        session.send(message(6))
        await gateway.heard.wait(1)
        assert gateway.heard.data == [{"n": 6}]
        if qos == 1:
            assert [(await session.get(Puback)).packet_id for _ in range(11)] == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6]
        if qos == 2:
            assert [(await session.get(Pubrec)).packet_id for _ in range(5)] == [1, 2, 3, 4, 5]
        assert gateway.link.stats.rejected == (5 if qos == 2 else 10)  # at QoS 2 the second copies are known
        assert gateway.link.state.status == "connected"
    warnings = [record for record in caplog.records if "message refused" in record.getMessage()]
    assert len(warnings) == 1  # of a kind, every ten seconds
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("payload", [b"\xff\xfe", b"{not json", b"[1,2", b"", b'{"data":1,"id":7}', b"\x00"])
async def test_payloads_that_are_not_json_are_data_all_the_same(payload: bytes) -> None:
    async with pair() as (_, gateway, session):
        session.send(Publish(TOPIC, payload, qos=1, packet_id=1))
        (record,) = await gateway.heard.wait(1)
        assert record.event.mqtt_payload == payload


async def test_qos_0_flood_stops_reading_instead_of_filling_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound_module, "_MOST_WAITING", 10)
    log = GatedLog()
    async with pair(log) as (_, gateway, session):
        log.closed_gate = True
        payload = b"x" * 50_000
        for _ in range(400):
            session.send(Publish(TOPIC, payload))
        while not gateway.link._inbound._paused:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        held = len(log.held)
        assert held < 100  # what one read brought beyond the bound
        log.closed_gate = False
        for _ in range(held):
            log.open_gate()
        await gateway.heard.wait(400)


async def test_flood_right_behind_connack_stops_reading_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound_module, "_MOST_WAITING", 10)
    log = GatedLog()
    log.closed_gate = True
    async with scripted(first=[Publish(TOPIC, b"{}")] * 30) as broker:
        gateway = Side(options(broker.url), log=log)
        await gateway.start(connected=False)
        while len(log.held) < 30:
            await asyncio.sleep(0)
        connection = gateway.link._connection
        assert connection is not None
        was_paused = connection._paused
        log.closed_gate = False
        for _ in range(30):
            log.open_gate()
        await gateway.heard.wait(30)
        await gateway.connected()
        assert (was_paused, connection._paused) == (True, False)
        await gateway.stop()


async def test_properties_of_the_publisher_are_kept_and_expiry_becomes_a_time() -> None:
    async with pair() as (_, gateway, session):
        properties = Properties(
            payload_format_indicator=1,
            content_type="text/plain",
            response_topic="answers",
            correlation_data=b"c",
            message_expiry_interval=60,
            user_properties=[("unit", "C"), ("unit", "F")],
        )
        session.send(Publish("crm/leads/9/created", b"warm", qos=1, packet_id=1, retain=True, properties=properties))
        (record,) = await gateway.heard.wait(1)
        kept = record.event.mqtt
        assert kept is not None
        assert (kept.payload_format, kept.content_type, kept.response_topic) == (1, "text/plain", "answers")
        assert (kept.correlation_data, kept.user_properties) == (b"c", (("unit", "C"), ("unit", "F")))
        assert record.event.retain
        assert record.event.expires is not None
        assert record.event.expires == pytest.approx(record.event.time + 60_000, abs=5_000)


async def test_user_property_id_is_the_events_id() -> None:
    async with pair() as (_, gateway, session):
        pairs = [("id", "e-1"), ("time", "2026-01-31T09:30:00.125Z"), ("mine", "1")]
        for packet_id in (1, 2):
            properties = Properties(user_properties=pairs)
            session.send(Publish(TOPIC, b"\x01", qos=1, packet_id=packet_id, properties=properties))
            await session.get(Puback)
        (record,) = gateway.heard.records
        assert record.event.id == "e-1"
        assert record.event.time == 1769851800125
        assert record.event.mqtt is not None
        assert record.event.mqtt.user_properties == (("mine", "1"),)


async def test_subscribes_to_the_maps_patterns_and_ends_old_subscriptions() -> None:
    log = MemoryLog()
    async with scripted() as broker:
        async with side(options(broker.url, subscribe=("a/+", "b")), log=log):
            subscribe = await broker.sessions[-1].get(Subscribe)
            assert [(s.filter, s.qos) for s in subscribe.subscriptions] == [("a/+", 2), ("b", 2)]
            assert all(s.no_local and s.retain_as_published and s.retain_handling == 1 for s in subscribe.subscriptions)
        broker.session_present = True
        async with side(options(broker.url, subscribe=("b", "c"), subscribe_qos=1), log=log):
            subscribe = await broker.sessions[-1].get(Subscribe)
            assert [(s.filter, s.qos) for s in subscribe.subscriptions] == [("b", 1), ("c", 1)]
            assert (await broker.sessions[-1].get(Unsubscribe)).filters == ["a/+"]
        async with side(options(broker.url), log=log) as gateway:
            subscribe = await broker.sessions[-1].get(Subscribe)
            assert "crm/leads/+/updated" in {s.filter for s in subscribe.subscriptions}
            assert len(subscribe.subscriptions) == len(gateway.topics.rows)


async def test_refused_subscription_is_told_and_events_still_go_out(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted(granted=ReasonCode.NOT_AUTHORIZED) as broker, side(options(broker.url)) as gateway:
        assert gateway.link.state.status == "connected"
        assert "refused the subscription" in gateway.link.state.error
        assert "access list" in gateway.link.state.hint
        assert "refused the subscription" in caplog.text
        await gateway.publish(1)
        await broker.sessions[-1].get(Publish)


async def test_session_settings_of_connect() -> None:
    async with pair(receive_maximum=7, session_expiry=99, keepalive=11, client_id="me") as (_, _gateway, session):
        connect = await session.get(Connect)
        properties = connect.properties
        assert properties is not None
        assert (connect.client_id, connect.clean_start, connect.keep_alive) == ("me", False, 11)
        assert (properties.receive_maximum, properties.session_expiry_interval) == (7, 99)
        assert properties.maximum_packet_size is not None
        assert properties.maximum_packet_size > 2 * 262_144


async def test_default_client_id_is_stable_for_a_log() -> None:
    log = MemoryLog()
    async with scripted() as broker:
        for _ in range(2):
            async with side(options(broker.url), log=log):
                pass
        async with side(options(broker.url, name="second"), log=log):
            pass
        names = [(await session.get(Connect)).client_id for session in broker.sessions]
    assert names[0] == names[1] == f"gapless-{log.epoch}"
    assert names[2] == f"gapless-{log.epoch}-second"
