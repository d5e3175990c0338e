"""The pure session state: grants, packet identifiers, and the state machines under any interleaving."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gapless.errors import LogCorrupt
from gapless.mqtt.filters import matches
from gapless.mqtt.session import Sent, Session, Subscription, WillMessage
from gapless.mqtt.session_state import decode_session, encode_session, received_key, session_key, split_key


def session_with(*subscriptions: Subscription, position: int = 0) -> Session:
    session = Session("c", position=position, expiry=60)
    for subscription in subscriptions:
        session.subscribe(subscription, position=position)
    return session


# Grants


def test_overlapping_subscriptions_make_one_grant() -> None:
    session = session_with(
        Subscription("a/#", 0, identifier=7),
        Subscription("a/+", 2, identifier=3),
        Subscription("a/b", 1, identifier=7),
        Subscription("b", 2, identifier=1),
    )
    grant = session.grant("a/b", 1)
    assert grant is not None
    assert (grant.qos, grant.identifiers) == (2, (3, 7))
    assert session.grant("c", 1) is None


def test_no_local_takes_a_subscription_out_for_own_messages_alone() -> None:
    session = session_with(Subscription("a", 2, no_local=True), Subscription("#", 1))
    own, other = session.grant("a", 1, own=True), session.grant("a", 1)
    assert own is not None
    assert other is not None
    assert (own.qos, other.qos) == (1, 2)


def test_a_replaced_subscription_keeps_its_place() -> None:
    session = session_with(Subscription("a", 1, since=5))
    session.subscribe(Subscription("a", 2, since=9), position=20)
    assert session.grant("a", 6) is not None
    assert session.grant("a", 5) is None


def test_shared_subscriptions_grant_nothing_of_their_own() -> None:
    session = session_with(Subscription("$share/g/a", 1))
    assert session.grant("a", 1) is None
    assert session.plain_filters == ()


def test_qos_0_is_skipped_at_a_resume() -> None:
    session = session_with(Subscription("a", 0), Subscription("b", 1))
    session.skip_unkept(10)
    assert session.grant("a", 10) is None
    assert session.grant("a", 11) is not None
    assert session.grant("b", 1) is not None
    assert session.start_of_interest(0) == 0


filters = st.sampled_from(["a", "b", "a/b", "#", "+", "a/#", "+/b"])
topics = st.sampled_from(["a", "b", "a/b", "c"])


@given(
    events=st.lists(topics, min_size=1, max_size=30),
    steps=st.lists(st.tuples(st.integers(0, 30), filters, st.integers(0, 30), st.booleans()), max_size=6),
)
@settings(max_examples=150)
def test_no_event_comes_twice_whatever_history_is_asked_for(
    events: list[str], steps: list[tuple[int, str, int, bool]]
) -> None:
    """A cursor walks over the events; now and then a subscription is added, some with history."""
    session = Session("c", position=0)
    plan: dict[int, list[tuple[str, int, bool]]] = {}
    for at, filter_, start, history in steps:
        plan.setdefault(at % (len(events) + 1), []).append((filter_, start, history))
    delivered: list[int] = []
    wanted: set[int] = set()
    position, reached = 0, 0
    while True:
        for filter_, start, history in plan.pop(position, []) if position == reached else []:
            since = min(start, reached) if history else reached
            known = session.subscriptions.get(filter_)
            if known is not None and history and since > position:
                wanted -= set(range(position + 1, since + 1))  # the client asks to skip them
            position = session.subscribe(Subscription(filter_, 1, since=since), position=position, history=history)
            if known is None or history:
                wanted |= {n for n in range(since + 1, reached + 1) if matches(filter_, events[n - 1])}
        if position == len(events):
            break
        position += 1
        reached = max(reached, position)
        if session.grant(events[position - 1], position) is not None:
            delivered.append(position)
        session.passed(position)
    assert len(delivered) == len(set(delivered))
    assert wanted <= set(delivered)


# Packet identifiers and storing


def test_packet_identifiers_wrap_and_skip_those_in_use() -> None:
    session = Session("c", position=0)
    session.last_packet_id = 65533
    assert [session.assign(Sent(1, 1)) for _ in range(4)] == [65534, 65535, 1, 2]
    session.last_packet_id = 65533
    assert session.assign(Sent(1, 1)) == 3


def test_acknowledgements_of_the_wrong_kind_change_nothing() -> None:
    session = Session("c", position=0)
    one, two = session.assign(Sent(1, 1)), session.assign(Sent(2, 2))
    assert not session.pubrec(one)
    assert session.puback(two) is None
    assert not session.pubcomp(two)
    assert session.pubrec(two)
    assert session.pubrec(two)  # again: PUBREL is sent again
    assert session.refused(two) is None
    assert session.pubcomp(two)
    assert not session.pubcomp(two)
    assert session.puback(one) == Sent(1, 1)
    assert session.inflight == {}


sent = st.builds(
    Sent,
    offset=st.integers(1, 2**62),
    qos=st.integers(1, 2),
    retain=st.booleans(),
    identifiers=st.lists(st.integers(1, 2**28), max_size=3).map(tuple),
    bare=st.booleans(),
    topic=st.none() | st.text(max_size=5),
    share=st.none() | st.just("g/a"),
)


@given(
    inflight=st.lists(st.none() | sent, max_size=10),
    subscriptions=st.lists(st.builds(Subscription, filter=filters, qos=st.integers(0, 2), since=st.integers(0, 99))),
    position=st.integers(0, 2**62),
    expiry=st.integers(1, 0xFFFFFFFF),
    will=st.none() | st.builds(WillMessage, topic=st.just("w"), payload=st.binary(max_size=9)),
)
def test_a_stored_session_comes_back_as_it_was(
    inflight: list[Sent | None],
    subscriptions: list[Subscription],
    position: int,
    expiry: int,
    will: WillMessage | None,
) -> None:
    session = Session("phone/1", position=position, expiry=expiry)
    for subscription in subscriptions:
        session.subscribe(subscription, position=position)
    session.inflight = dict(enumerate(inflight, 1))
    session.will = will
    session.hole = "epoch:1"
    session.last_packet_id = 77
    stored = decode_session(encode_session(session, epoch="epoch", connected=True, ended_at=1.5))
    again = stored.restore()
    for name in ("client_id", "position", "expiry", "subscriptions", "will", "hole", "last_packet_id", "windows"):
        assert getattr(again, name) == getattr(session, name), name
    assert list(again.inflight.items()) == list(session.inflight.items())
    assert (stored.epoch, stored.connected, stored.ended_at) == ("epoch", True, 1.5)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x01", b"\x91\xcd\x03\xe7"])
def test_what_is_no_stored_session_is_refused(data: bytes) -> None:
    with pytest.raises(LogCorrupt):
        decode_session(data)


@given(st.text(max_size=20), st.integers(1, 65535))
def test_keys_tell_sessions_and_received_identifiers_apart(client_id: str, packet_id: int) -> None:
    assert split_key(session_key(client_id)) == (client_id, None)
    assert split_key(received_key(client_id, packet_id)) == (client_id, packet_id)


# Client and server under every interleaving of acknowledgements, lost connections and kills


class Delivery(RuleBasedStateMachine):
    """A model of both ends: packets in flight are lost with the connection, memory with a kill.

    What the server does follows the edge's rule: QoS 2 steps are stored before their packet is
    sent, QoS 1 progress is stored at any time. The log is the list of messages so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []  # the QoS of each message
        self.session = Session("c", position=0, expiry=60)
        self.stored = self._encode()
        self.to_client: list[tuple[str, int, int, int]] = []  # kind, packet id, offset, qos
        self.to_server: list[tuple[str, int]] = []
        self.client_holds: dict[int, int] = {}  # QoS 2 identifiers received, not released
        self.got: list[tuple[int, int]] = []  # offset, qos: what the application saw

    def _encode(self) -> bytes:
        return encode_session(self.session, epoch="e", connected=True)

    @rule(qos=st.sampled_from([1, 2]))
    def publish(self, qos: int) -> None:
        self.log.append(qos)

    @rule(new=st.sampled_from([1, 2]))
    def feed(self, new: int = 0) -> None:
        """The server sends the next message of the log, or a new one of this QoS."""
        if len(self.session.inflight) >= 4:
            return
        if self.session.position == len(self.log):
            if not new:
                return
            self.log.append(new)
        offset = self.session.position + 1
        qos = self.log[offset - 1]
        packet_id = self.session.assign(Sent(offset, qos))
        self.session.position = offset
        if qos == 2:
            self.stored = self._encode()
        self.to_client.append(("publish", packet_id, offset, qos))

    @rule()
    def send_retained(self) -> None:
        """A message beside the log's order, which makes packet identifiers differ after a kill."""
        if len(self.session.inflight) < 4:
            packet_id = self.session.assign(Sent(0, 1, topic="r"))
            self.to_client.append(("publish", packet_id, 0, 1))

    @rule()
    def store_progress(self) -> None:
        self.stored = self._encode()

    @rule()
    def client_reads(self) -> None:
        if not self.to_client:
            return
        kind, packet_id, offset, qos = self.to_client.pop(0)
        if kind == "pubrel":
            self.client_holds.pop(packet_id, None)
            self.to_server.append(("pubcomp", packet_id))
        elif qos == 1:
            if offset:
                self.got.append((offset, 1))
            self.to_server.append(("puback", packet_id))
        else:
            if packet_id not in self.client_holds:
                self.client_holds[packet_id] = offset
                self.got.append((offset, 2))
            self.to_server.append(("pubrec", packet_id))

    @rule()
    def server_reads(self) -> None:
        if not self.to_server:
            return
        kind, packet_id = self.to_server.pop(0)
        if kind == "puback":
            self.session.puback(packet_id)
        elif kind == "pubcomp":
            self.session.pubcomp(packet_id)
        elif self.session.pubrec(packet_id):
            self.stored = self._encode()
            self.to_client.append(("pubrel", packet_id, 0, 2))

    @rule(killed=st.booleans())
    def connection_is_lost(self, killed: bool) -> None:
        self.to_client.clear()
        self.to_server.clear()
        if killed:
            self.session = decode_session(self.stored).restore()
        else:
            self.stored = self._encode()
        for packet_id, unacknowledged in self.session.inflight.items():
            if unacknowledged is None:
                self.to_client.append(("pubrel", packet_id, 0, 2))
            else:
                self.to_client.append(("publish", packet_id, unacknowledged.offset, unacknowledged.qos))

    @invariant()
    def nothing_is_skipped_and_qos_2_is_exactly_once(self) -> None:
        exactly_once = [offset for offset, qos in self.got if qos == 2]
        assert len(exactly_once) == len(set(exactly_once)), "a QoS 2 message came twice"
        seen: set[int] = set()
        for offset, _ in self.got:
            assert not set(range(1, offset)) - seen, f"{offset} came before one that is older"
            seen.add(offset)

    def teardown(self) -> None:
        """In the end, with a network that holds, everything arrives."""
        self.connection_is_lost(killed=False)
        for _ in range(6 * len(self.log) + 20):
            self.client_reads()
            self.server_reads()
            self.feed()
        assert {offset for offset, _ in self.got} == set(range(1, len(self.log) + 1))
        assert self.session.inflight == {}


Delivery.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDelivery: Any = Delivery.TestCase
