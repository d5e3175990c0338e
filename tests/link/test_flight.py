"""The outgoing window against a model broker: any interleaving of answers, cuts, kills and forgetting."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.event import Event, Origin, Record
from gapless.link.flight import PUBLISH_IDS, Flight, Phase, PumpState, packet_id_of

WINDOW = 4


def record(offset: int, qos: int = 1) -> Record:
    event = Event(id=str(offset), type="t", topic="t", rooms=(), data=b"1", time=0, origin=Origin("rest"), qos=qos)
    return Record(event, offset, f"e:{offset}")


def qos_of(offset: int) -> int:
    return 1 + offset % 3 % 2  # 2, 1, 1, 2, 1, 1, …


@dataclass
class ModelBroker:
    """What the standard asks of a broker: QoS 1 handed on at once, QoS 2 at PUBREL, once."""

    handed_on: list[int] = field(default_factory=list)
    received: dict[int, int] = field(default_factory=dict)  # packet id → offset, QoS 2 without PUBREL
    answers: list[tuple[str, int]] = field(default_factory=list)
    session: bool = False
    on_the_way: list[tuple[int | None, int, int]] = field(default_factory=list)  # to the broker; a cut loses them

    def publish(self, offset: int, packet_id: int, qos: int) -> None:
        self.on_the_way.append((offset, packet_id, qos))

    def pubrel(self, packet_id: int) -> None:
        self.on_the_way.append((None, packet_id, 2))

    def take(self) -> None:
        if not self.on_the_way:
            return
        offset, packet_id, qos = self.on_the_way.pop(0)
        if offset is None:
            self._release(packet_id)
        else:
            self._publish(offset, packet_id, qos)

    def _publish(self, offset: int, packet_id: int, qos: int) -> None:
        if qos == 1:
            self.handed_on.append(offset)
            self.answers.append(("puback", packet_id))
            return
        if packet_id not in self.received:
            self.received[packet_id] = offset
        self.answers.append(("pubrec", packet_id))

    def _release(self, packet_id: int) -> None:
        offset = self.received.pop(packet_id, None)
        if offset is not None:
            self.handed_on.append(offset)
        self.answers.append(("pubcomp", packet_id))

    def forget(self) -> None:
        self.received.clear()
        self.session = False


class Model:
    """The pump's use of a flight, without I/O."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.broker = ModelBroker()
        self.flight = Flight(0)
        self.stored = PumpState(epoch="e", position=0)
        self.connected = False
        self.again: list[int] = []

    def connect(self, *, killed: bool = False) -> None:
        state = self.flight.state("e", connecting=True)
        if state.received:
            self.stored = state
        present, self.broker.session = self.broker.session, True
        if killed:  # after the broker has made the session, before its CONNACK is taken in
            self.kill()
            return
        self.again = [sent.offset for sent in self.flight.reconnected(session_present=present)]
        if self.stored.connecting:
            self.stored = self.flight.state("e")
        self.broker.answers.clear()
        self.connected = True
        self.resend()

    def resend(self) -> None:
        while self.again:
            sent = next(s for s in self.flight._entries if s.offset == self.again[0])
            if self.flight.holds_back(sent.offset, qos=sent.qos):
                return
            self.again.pop(0)
            self.flight.reopen(sent)
            if sent.phase is Phase.STORED:
                self.broker.pubrel(sent.packet_id)
            else:
                self.broker.publish(sent.offset, sent.packet_id, sent.qos)

    def send(self) -> None:
        self.resend()
        offset = self.flight.scanned + 1
        if not self.connected or self.again or offset > self.total:
            return
        if not self.flight.takes(offset, window=WINDOW, size=1 << 20):
            return
        if self.flight.holds_back(offset, qos=qos_of(offset)):
            return
        if self.flight.was_taken_over(offset):
            sent = self.flight.add_taken_over(record(offset, 2))
            self.broker.pubrel(sent.packet_id)
            return
        sent = self.flight.add(record(offset), qos=qos_of(offset), size=10)
        self.broker.publish(offset, sent.packet_id, sent.qos)

    def answer(self) -> None:
        if not self.connected or not self.broker.answers:
            return
        kind, packet_id = self.broker.answers.pop(0)
        match kind:
            case "puback":
                self.flight.acknowledged(packet_id)
            case "pubrec":
                sent = self.flight.received(packet_id)
                if sent is not None and sent.phase is Phase.STORED:
                    self.broker.pubrel(packet_id)
            case "pubcomp":
                self.flight.completed(packet_id)

    def store(self) -> None:
        to_store = self.flight.to_store()
        self.stored = self.flight.state("e")
        for sent in to_store:
            if self.flight.stored(sent) and self.connected:
                self.broker.pubrel(sent.packet_id)

    def cut(self) -> None:
        self.connected = False
        self.broker.on_the_way.clear()
        self.again = []

    def kill(self) -> None:
        self.cut()
        state = self.stored
        self.flight = Flight(state.position, () if state.connecting else state.received)

    def run(self, step: str) -> None:
        match step:
            case "connect" if not self.connected:
                self.connect()
            case "killed connecting":
                self.cut()
                self.connect(killed=True)
            case "send":
                self.send()
            case "take":
                self.broker.take()
            case "answer":
                self.answer()
            case "store":
                self.store()
            case "cut":
                self.cut()
            case "kill":
                self.kill()
            case "forget":
                self.cut()
                self.broker.forget()
            case _:
                assert step == "connect"

    def finish(self) -> None:
        for _ in range(20 * self.total + 100):
            if not self.connected:
                self.connect()
            self.send()
            self.broker.take()
            self.answer()
            self.store()


STEPS = ["connect", "send", "send", "take", "take", "answer", "answer", "store", "cut", "kill"]


@given(
    st.lists(st.sampled_from([*STEPS, "forget", "killed connecting"]), min_size=40, max_size=150), st.integers(1, 12)
)
@settings(max_examples=150)
def test_every_event_is_handed_on_and_each_first_time_in_order(steps: list[str], total: int) -> None:
    model = Model(total)
    for step in steps:
        model.run(step)
        assert len(model.flight) <= WINDOW
        assert model.flight.position <= model.flight.scanned
        assert model.flight.open <= len(model.flight)
    model.finish()
    first_times = list(dict.fromkeys(model.broker.handed_on))
    assert first_times == list(range(1, total + 1))
    assert model.flight.position == model.stored.position == total
    assert model.flight.bytes == 0


@given(st.lists(st.sampled_from(STEPS), min_size=40, max_size=150), st.integers(1, 12))
@settings(max_examples=150)
def test_qos_2_is_handed_on_exactly_once_while_the_broker_keeps_the_session(steps: list[str], total: int) -> None:
    model = Model(total)
    for step in ["connect", *steps]:
        model.run(step)
    model.finish()
    twos = [offset for offset in model.broker.handed_on if qos_of(offset) == 2]
    assert len(twos) == len(set(twos))


def test_packet_identifiers_are_of_the_offset_and_leave_room_for_others() -> None:
    assert packet_id_of(1) == 1
    assert packet_id_of(PUBLISH_IDS) == PUBLISH_IDS
    assert packet_id_of(PUBLISH_IDS + 1) == 1


def test_no_identifier_is_in_use_twice() -> None:
    flight = Flight(0)
    flight.add(record(1), qos=1, size=1)
    assert flight.takes(PUBLISH_IDS, window=WINDOW, size=1 << 20)
    assert not flight.takes(PUBLISH_IDS + 1, window=WINDOW, size=1 << 20)


def test_window_is_bounded_in_bytes_but_takes_one_of_any_size() -> None:
    flight = Flight(0)
    assert flight.takes(1, window=WINDOW, size=100)
    flight.add(record(1), qos=1, size=1000)
    assert not flight.takes(2, window=WINDOW, size=100)
    flight.acknowledged(1)
    assert flight.takes(2, window=WINDOW, size=100)


def test_stale_answers_are_ignored() -> None:
    flight = Flight(0)
    flight.add(record(1), qos=1, size=1)
    flight.add(record(2), qos=2, size=1)
    assert flight.acknowledged(2) is None
    assert flight.received(1) is None
    assert flight.completed(2) is None
    assert flight.acknowledged(77) is None
    assert flight.position == 0


def test_killed_while_connecting_to_a_broker_that_forgot_the_session() -> None:
    """Whether the broker still has what it took over is not known then: it is published again."""
    model = Model(1)
    for step in ["connect", "send", "take", "answer", "store", "cut", "forget", "killed connecting"]:
        model.run(step)
    assert model.stored.connecting
    model.finish()
    assert model.broker.handed_on == [1]


def test_pubrel_lost_with_the_brokers_session() -> None:
    model = Model(1)
    for step in ["connect", "send", "take", "answer", "store", "forget"]:
        model.run(step)
    model.finish()
    assert model.broker.handed_on == [1]
