"""Rights at the MQTT door: whose session is whose, rights that shrink, access that ends, tokens that are renewed."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from gapless.auth import Identity, Leases
from gapless.errors import LogUnavailable
from gapless.eventlog import MemoryLog
from gapless.mqtt import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Publish,
    ReasonCode,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
)
from gapless.transports.mqtt.access import METHOD, REVOKED
from tests.gates import TableGate
from tests.mqtt_edge.support import V5, V311, Client, Node, running_edge, until

TOPIC, OTHER = "crm/leads/1/updated", "crm/leads/2/updated"
VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


def gate_of(*users: str) -> TableGate:
    gate = TableGate()
    for user in users:
        gate.hears[user] |= {TOPIC, OTHER}
        gate.says[user] |= {TOPIC, OTHER}
    return gate


async def connect(node: Node, user: str, client_id: str = "phone", **options: Any) -> tuple[Client, Connack]:
    return await Client.connect(node.port, client_id, username="", password=user.encode(), **options)


async def test_each_user_has_client_ids_of_its_own() -> None:
    async with running_edge(gate=gate_of("ann", "bob")) as node:
        ann, _ = await connect(node, "ann", clean=False, expiry=100)
        await ann.subscribe(TOPIC)
        bob, connack = await connect(node, "bob", clean=False, expiry=100)
        assert not connack.session_present
        await node.publish(TOPIC, "for ann")
        assert b"for ann" in (await ann.receive()).payload
        await bob.nothing_more()
        await ann.drop()
        await until(lambda: node.edge.stats.sessions_away == 1)
        await node.publish(TOPIC, "while away")
        again, connack = await connect(node, "ann", clean=False, expiry=100)
        assert connack.session_present
        assert b"while away" in (await again.receive()).payload
        assert node.edge.stats.taken_over == 0


async def test_an_anonymous_client_cannot_name_a_users_session() -> None:
    gate = gate_of("ann")
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann", clean=False, expiry=100)
        await ann.subscribe(TOPIC)
        mimic, connack = await connect(node, "bob", client_id="@uann/phone", clean=False, expiry=100)
        assert not connack.session_present
        await mimic.nothing_more()
        await ann.nothing_more()  # nobody took its place


@VERSIONS
async def test_a_revoked_token_ends_the_connection_and_keeps_the_session(version: Any) -> None:
    gate = gate_of("ann")
    async with running_edge(gate=gate) as node:
        options: dict[str, Any] = {"version": version, "clean": False}
        if version is V5:
            options["expiry"] = 100
        ann, _ = await connect(node, "ann", will=Will(OTHER, b"gone", qos=1), **options)
        await ann.subscribe(TOPIC)
        assert gate.revoke("ann") == 1
        await ann.expect_closed(ReasonCode.NOT_AUTHORIZED if version is V5 else None)
        assert len(gate.leases) == 0
        await node.publish(TOPIC, "meanwhile")
        again, connack = await connect(node, "ann", **options)
        assert connack.session_present
        assert b"meanwhile" in (await again.receive()).payload
        assert node.edge.stats.wills == 0  # who was shut out does not speak once more


async def test_an_expired_token_ends_the_connection_with_its_will() -> None:
    gate = gate_of("ann", "bob")
    async with running_edge(gate=gate) as node:
        bob, _ = await connect(node, "bob")
        await bob.subscribe(OTHER)
        ann, _ = await connect(node, "ann@0", will=Will(OTHER, b"gone", qos=1))  # expired at once
        await ann.expect_closed(ReasonCode.MAXIMUM_CONNECT_TIME)
        assert (await bob.receive()).payload == b"gone"


async def test_a_connection_that_ends_releases_its_lease() -> None:
    gate = gate_of("ann")
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann")
        assert len(gate.leases) == 1
        await ann.disconnect()
        await until(lambda: len(gate.leases) == 0)


async def test_a_right_that_is_taken_ends_the_subscription_and_names_it() -> None:
    gate = gate_of("ann", "bob")
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann", clean=False, expiry=100)
        bob, _ = await connect(node, "bob")
        await ann.subscribe(TOPIC, OTHER)
        await bob.subscribe(TOPIC)
        gate.take("ann", TOPIC)
        told = await ann.expect(Disconnect)
        assert told.reason_code is ReasonCode.NOT_AUTHORIZED
        assert told.properties is not None
        assert told.properties.user_properties == [(REVOKED, TOPIC)]
        await node.publish(TOPIC, "secret")
        await node.publish(OTHER, "still hers")
        assert b"secret" in (await bob.receive()).payload
        again, connack = await connect(node, "ann", clean=False, expiry=100)
        assert connack.session_present
        assert b"still hers" in (await again.receive()).payload
        await again.nothing_more()


async def test_rights_that_shrank_while_it_was_away_hold_for_what_was_in_flight_too() -> None:
    gate = gate_of("ann")
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann", clean=False, expiry=100)
        await ann.subscribe(TOPIC, OTHER)
        await node.publish(TOPIC, "in flight")
        await ann.receive(acknowledge=False)
        await ann.drop()
        await until(lambda: node.edge.stats.sessions_away == 1)
        await node.publish(TOPIC, "secret")
        await node.publish(OTHER, "hers")
        gate.hears["ann"] -= {TOPIC}
        again, connack = await connect(node, "ann", clean=False, expiry=100)
        assert connack.session_present
        assert connack.properties is not None
        assert connack.properties.user_properties == [(REVOKED, TOPIC)]
        assert b"hers" in (await again.receive()).payload
        await again.nothing_more()


@VERSIONS
async def test_the_application_is_asked_and_packets_wait_in_order(version: Any) -> None:
    gate = gate_of("ann", "bob")
    gate.asks |= {TOPIC: True}
    gate.may_answer.clear()
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann", version=version)
        ann.send(
            Publish(OTHER, b"1", qos=1, packet_id=1),
            Publish(TOPIC, b"2", qos=1, packet_id=2),
            Subscribe(3, [SubscriptionRequest(TOPIC, 1)]),
            Publish(TOPIC, b"4", qos=1, packet_id=4),
            Pingreq(),
        )
        assert (await ann.expect(Puback)).packet_id == 1
        await gate.asking.wait()
        ann.send(Publish(OTHER, b"5", qos=1, packet_id=5))
        assert node.hub.head == 1
        gate.may_answer.set()
        got: list[Packet | None] = []
        while not any(isinstance(packet, Puback) and packet.packet_id == 5 for packet in got):
            got.append(await ann.next())
        assert [packet.packet_id for packet in got if isinstance(packet, Puback)] == [2, 4, 5]
        assert [type(packet) for packet in got if isinstance(packet, Suback | Pingresp)] == [Suback, Pingresp]
        heard = [packet.payload for packet in got if isinstance(packet, Publish)]
        assert heard in ([], [b"4"], [b"2"], [b"2", b"4"])  # 2 was on its way to the log when it subscribed
        assert node.hub.head == 4


async def test_what_the_application_denies_is_refused() -> None:
    gate = gate_of("bob")
    gate.asks |= {TOPIC: False}
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann")
        refused = await ann.publish(TOPIC)
        assert refused is not None
        assert refused.reason_code is ReasonCode.NOT_AUTHORIZED
        suback = await ann.subscribe(TOPIC)
        assert suback.reason_codes == [ReasonCode.NOT_AUTHORIZED]
        assert suback.properties is not None
        assert suback.properties.reason_string == "not allowed"
        assert node.hub.head == 0


async def test_an_answer_that_is_forgotten_each_time_refuses_in_the_end() -> None:
    class Forgetful(TableGate):
        async def prepare(self, *args: Any, **names: Any) -> None:
            await super().prepare(*args, **names)
            self.forget(TOPIC)

    gate = Forgetful()
    gate.asks |= {TOPIC: True}
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann")
        refused = await ann.publish(TOPIC)
        assert refused is not None
        assert refused.reason_code is ReasonCode.NOT_AUTHORIZED
        await ann.nothing_more()


async def test_a_connection_that_ends_while_the_application_decides_leaves_nothing() -> None:
    gate = gate_of("ann")
    gate.asks |= {TOPIC: True}
    gate.may_answer.clear()
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann")
        ann.send(Publish(TOPIC, b"x", qos=1, packet_id=1))
        await gate.asking.wait()
        gate.revoke("ann")
        await ann.expect_closed(ReasonCode.NOT_AUTHORIZED)
        gate.may_answer.set()
        other, _ = await connect(node, "ann")
        await other.nothing_more()
        assert node.hub.head == 0


async def test_while_the_application_reviews_nothing_is_sent() -> None:
    gate = gate_of("ann")
    gate.asks |= {TOPIC: True}
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann")
        await ann.subscribe(TOPIC)
        gate.forget(TOPIC)
        gate.may_answer.clear()
        gate.asking.clear()
        gate.take("ann")  # something changed
        await gate.asking.wait()
        await node.publish(TOPIC, "held")
        await ann.nothing_more()
        gate.may_answer.set()
        assert b"held" in (await ann.receive()).payload


async def test_a_will_is_checked_like_a_publish() -> None:
    gate = gate_of("ann")
    async with running_edge(gate=gate) as node:
        _, connack = await connect(node, "ann", will=Will("crm/leads/9/updated", b"x"))
        assert connack.reason_code is ReasonCode.NOT_AUTHORIZED
        gate.asks["crm/leads/9/updated"] = True
        _, connack = await connect(node, "ann", will=Will("crm/leads/9/updated", b"x"))
        assert connack.reason_code is ReasonCode.SUCCESS


def with_method(user: str, method: str = METHOD) -> Connect:
    return Connect("phone", V5, properties=Properties(authentication_method=method, authentication_data=user.encode()))


def authenticate(user: str, method: str = METHOD) -> Auth:
    properties = Properties(authentication_method=method, authentication_data=user.encode())
    return Auth(ReasonCode.REAUTHENTICATE, properties)


async def test_a_fresh_token_on_a_live_connection_loses_nothing() -> None:
    gate = gate_of("ann")
    async with running_edge(gate=gate) as node:
        client = await Client.open(node.port)
        client.send(with_method("ann@99999999999"))
        connack = await client.expect(Connack)
        assert connack.reason_code is ReasonCode.SUCCESS
        assert connack.properties is not None
        assert connack.properties.authentication_method == METHOD
        await client.subscribe(TOPIC)
        client.send(authenticate("ann"))
        await node.publish(TOPIC, "meanwhile")
        auth = await client.expect_among(Auth)
        assert auth.reason_code is ReasonCode.SUCCESS
        assert auth.properties is not None
        assert auth.properties.authentication_method == METHOD
        assert b"meanwhile" in (await client.receive()).payload
        assert next(iter(gate.leases)).identity.expires is None


@pytest.mark.parametrize("user", ["bob", "bad"])
async def test_another_users_or_a_wrong_token_ends_the_connection(user: str) -> None:
    async with running_edge(gate=gate_of("ann", "bob")) as node:
        client = await Client.open(node.port)
        client.send(with_method("ann"))
        await client.expect(Connack)
        client.send(authenticate(user))
        await client.expect_closed(ReasonCode.NOT_AUTHORIZED)


async def test_another_method_is_refused() -> None:
    async with running_edge(gate=gate_of("ann")) as node:
        client = await Client.open(node.port)
        client.send(with_method("ann", "SCRAM-SHA-1"))
        assert (await client.expect(Connack)).reason_code is ReasonCode.BAD_AUTHENTICATION_METHOD
        await client.expect_closed()
        client = await Client.open(node.port)
        client.send(with_method("ann"))
        await client.expect(Connack)
        client.send(authenticate("ann", "other"))
        await client.expect_closed(ReasonCode.PROTOCOL_ERROR)


async def test_expiry_is_minded_on_the_renewed_token() -> None:
    gate = gate_of("ann")
    now = [1000.0]
    gate.leases = Leases(lambda: now[0])
    async with running_edge(gate=gate) as node:
        client = await Client.open(node.port)
        client.send(with_method("ann@2000"))
        await client.expect(Connack)
        client.send(authenticate("ann@3000"))
        await client.expect(Auth)
        now[0] = 2500.0
        gate.leases.expire()
        await client.nothing_more()
        now[0] = 3000.0
        gate.leases.expire()
        await client.expect_closed(ReasonCode.MAXIMUM_CONNECT_TIME)
        await asyncio.sleep(0)


async def test_what_a_client_has_not_read_is_cut_off_with_its_right_to_hear_it() -> None:
    gate = gate_of("ann")
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann", clean=False, expiry=100)
        await ann.subscribe(TOPIC)
        (connection,) = node.edge.connected.values()
        writer = connection.output.writer
        connection.output.writer = Stalled(writer)
        gate.take("ann", TOPIC)
        assert await ann.next() is None  # not even a DISCONNECT, which would come behind it
        await until(lambda: len(gate.leases) == 0)
        _, connack = await connect(node, "ann", clean=False, expiry=100)
        assert connack.session_present


class Stalled:
    """A socket that holds what its client does not read."""

    held = 1000

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


async def test_what_was_in_flight_goes_with_the_right_also_where_the_client_had_unsubscribed() -> None:
    gate = gate_of("ann")
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann", clean=False, expiry=100)
        await ann.subscribe(TOPIC)
        await node.publish(TOPIC, "in flight")
        await ann.receive(acknowledge=False)
        ann.send(Unsubscribe(9, [TOPIC]))
        await ann.expect(Unsuback)
        await ann.drop()
        await until(lambda: node.edge.stats.sessions_away == 1)
        again, _ = await connect(node, "ann", clean=False, expiry=100)
        assert b"in flight" in (await again.receive(acknowledge=False)).payload  # [MQTT-3.10.4-2]
        await again.drop()
        await until(lambda: node.edge.stats.sessions_away == 1)
        gate.hears["ann"].clear()
        again, _ = await connect(node, "ann", clean=False, expiry=100)
        await again.nothing_more()


async def test_a_session_stays_where_its_rights_cannot_be_looked_at() -> None:
    gate = gate_of("ann")
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann", clean=False, expiry=100)
        await ann.subscribe(TOPIC)
        await ann.drop()
        await until(lambda: node.edge.stats.sessions_away == 1)
        await node.publish(TOPIC, "while away")
        prepare = gate.prepare

        async def fail(*_: Any, **__: Any) -> None:
            raise LogUnavailable("closed")

        gate.prepare = fail  # type: ignore[method-assign]
        _, connack = await connect(node, "ann", clean=False, expiry=100)
        assert connack.reason_code is ReasonCode.SERVER_UNAVAILABLE
        gate.prepare = prepare  # type: ignore[method-assign]
        again, connack = await connect(node, "ann", clean=False, expiry=100)
        assert connack.session_present
        assert b"while away" in (await again.receive()).payload


@pytest.mark.parametrize(
    "payload",
    [b'{"type":"t","data":1,"userId":"boss"}', b'{"type":"t","data":1,"userId":"boss","time":"no time"}'],
    ids=["envelope", "almost"],
)
async def test_a_payload_that_names_another_user_is_refused(payload: bytes) -> None:
    async with running_edge(gate=gate_of("ann")) as node:
        ann, _ = await connect(node, "ann")
        ann.send(Publish(TOPIC, payload, qos=1, packet_id=1))
        assert (await ann.expect(Puback)).reason_code is ReasonCode.NOT_AUTHORIZED
        ann.send(Publish(TOPIC, payload.replace(b"boss", b"ann"), qos=1, packet_id=2))
        assert (await ann.expect(Puback)).reason_code is ReasonCode.SUCCESS
        _, connack = await connect(node, "ann", client_id="other", will=Will(TOPIC, payload))
        assert connack.reason_code is ReasonCode.NOT_AUTHORIZED


async def test_a_will_that_is_no_longer_allowed_is_not_published() -> None:
    gate = gate_of("ann", "bob")
    async with running_edge(gate=gate) as node:
        bob, _ = await connect(node, "bob")
        await bob.subscribe(TOPIC, OTHER)
        for client_id, topic in (("lost", TOPIC), ("kept", OTHER)):
            ann, _ = await connect(node, "ann", client_id=client_id, will=Will(topic, b"gone"))
            gate.says["ann"].discard(TOPIC)
            await ann.drop()
        assert (await bob.receive()).topic == OTHER
        await bob.nothing_more()


def later(topic: str = TOPIC, *, delay: int = 30) -> Will:
    return Will(topic, b"gone", qos=1, properties=Properties(will_delay_interval=delay))


async def come_due(node: Node, *, ahead: float = 40) -> None:
    """Let the time of a delayed will, of a client that has gone, be there."""
    await until(lambda: node.edge.stats.sessions_away == 1)
    node.clock.ahead = ahead
    node.edge.sessions._on_due()


async def settled(node: Node) -> None:
    await until(lambda: node.edge.stats.wills + node.edge.stats.denied_wills == 1)


@pytest.mark.parametrize("lost", ["right", "access", "nothing"])
@pytest.mark.parametrize("ahead", [40, 200], ids=["its delay is over", "its session is over"])
async def test_a_delayed_will_is_looked_at_again_when_it_is_due(lost: str, ahead: float) -> None:
    gate = gate_of("ann", "bob")
    async with running_edge(gate=gate) as node:
        bob, _ = await connect(node, "bob")
        await bob.subscribe(TOPIC)
        ann, _ = await connect(node, "ann", clean=False, expiry=100, will=later(delay=30 if ahead < 100 else 300))
        await ann.drop()
        await until(lambda: node.edge.stats.sessions_away == 1)
        if lost == "right":
            gate.says["ann"].clear()
        elif lost == "access":
            gate.revoke("ann")
        await come_due(node, ahead=ahead)
        await settled(node)
        if lost == "nothing":
            assert (await bob.receive()).payload == b"gone"
        await bob.nothing_more()
        assert node.edge.stats.denied_wills == (lost != "nothing")
        if lost == "right" and ahead < 100:  # the session is as it was, and the will is gone from it
            gate.says["ann"].add(TOPIC)
            ann, connack = await connect(node, "ann", clean=False, expiry=100)
            assert connack.session_present
            await ann.drop()
            await until(lambda: node.edge.stats.sessions_away == 1)
            await bob.nothing_more()


async def test_a_will_that_a_stopped_server_kept_is_judged_by_its_authors_rights_at_the_next_start() -> None:
    log = MemoryLog()
    for user, published in (("ann", 1), ("eve", 0)):
        gate = gate_of(user)
        async with running_edge(gate=gate, log=log) as node:
            await connect(node, user, will=later())
        async with running_edge(gate=gate_of("ann"), log=log) as node:
            await settled(node)
            assert (node.edge.stats.wills, node.edge.stats.denied_wills) == (published, 1 - published)


@pytest.mark.parametrize("delay", [0, 30])
@pytest.mark.parametrize("expiry", [0, 100])
@pytest.mark.parametrize("answer", [True, False])
async def test_the_application_is_asked_about_a_will_that_is_due(answer: bool, expiry: int, delay: int) -> None:
    gate = gate_of("bob")
    gate.asks[TOPIC] = True
    async with running_edge(gate=gate) as node:
        bob, _ = await connect(node, "bob")
        await gate.prepare(Identity(user_id="bob"), filters=(TOPIC,))
        await bob.subscribe(TOPIC)
        ann, _ = await connect(node, "ann", clean=False, expiry=expiry, will=later(delay=delay))
        gate.forget(TOPIC)
        gate.asks[TOPIC] = answer
        gate.may_answer.clear()
        gate.asking.clear()
        await ann.drop()
        if delay and expiry:
            await come_due(node)
        await gate.asking.wait()
        assert (node.edge.stats.wills, node.edge.stats.denied_wills) == (0, 0)
        gate.may_answer.set()
        await settled(node)
        assert node.edge.stats.wills == answer
        if answer:
            assert (await bob.receive()).payload == b"gone"
        ann, connack = await connect(node, "ann", clean=False)
        assert connack.session_present is bool(expiry)


async def test_a_client_that_returns_while_the_application_decides_on_its_will_gets_its_session() -> None:
    gate = gate_of("ann")
    gate.asks[TOPIC] = True
    async with running_edge(gate=gate) as node:
        ann, _ = await connect(node, "ann", clean=False, expiry=100, will=later(delay=0))
        await ann.subscribe(OTHER)
        gate.forget(TOPIC)
        gate.may_answer.clear()
        gate.asking.clear()
        await ann.drop()
        await gate.asking.wait()
        coming = asyncio.create_task(connect(node, "ann", clean=False, expiry=100))
        await node.publish(OTHER, "meanwhile")
        gate.may_answer.set()
        ann, connack = await coming
        assert connack.session_present
        assert b"meanwhile" in (await ann.receive()).payload
        assert node.edge.stats.wills == 1
        await ann.nothing_more()


async def test_a_will_is_judged_by_the_token_that_its_client_had_last() -> None:
    gate = gate_of("ann")
    async with running_edge(gate=gate) as node:
        ann = await Client.open(node.port)
        ann.send(msgspec.structs.replace(with_method("ann@9999999999"), will=Will(TOPIC, b"gone")))
        await ann.expect(Connack)
        ann.send(authenticate("ann"))
        await ann.expect(Auth)
        connection = next(iter(node.edge.connected.values()))
        assert connection.reader.session.will is not None
        kept = msgspec.msgpack.decode(connection.reader.session.will.author, type=Identity)
        assert (kept.user_id, kept.token_id, kept.expires) == ("ann", "ann", None)


@pytest.mark.parametrize("qos", [0, 1])
async def test_no_publisher_moves_a_subscribers_position_or_tells_it_of_a_hole(qos: int) -> None:
    forged = [("position", "x:999"), ("gapless-incomplete", "x:1")]
    async with running_edge() as node:
        ann, _ = await Client.connect(node.port, "ann")
        await ann.subscribe("a/b")
        bob, _ = await Client.connect(node.port, "bob")
        bob.send(Publish("a/b", b"{}", qos=qos, packet_id=qos, properties=Properties(user_properties=forged)))
        heard = await ann.receive()
        assert heard.properties is not None
        pairs = heard.properties.user_properties
        assert pairs[:2] == forged  # [MQTT-3.3.2-17]
        last = dict(pairs)
        assert last["position"] == (node.hub.position() if qos else "")
        assert last["gapless-incomplete"] == ""


# Rooms, which are asked for as rooms wherever filters are looked at

ROOM, ROOM_FILTER = "lead:1", "$room/lead:1"
ACTIVITY = "crm/activities/9/created"
OF_THE_LEAD = {"leadId": "1"}


async def test_the_right_to_a_room_is_not_that_to_its_topics_and_the_other_way_round() -> None:
    gate = gate_of("ann")
    gate.hears["bob"] = {ROOM}
    async with running_edge(gate=gate) as node:
        for user, codes in (
            ("ann", [ReasonCode.NOT_AUTHORIZED, ReasonCode.GRANTED_QOS_1]),
            ("bob", [ReasonCode.GRANTED_QOS_1, ReasonCode.NOT_AUTHORIZED]),
        ):
            phone, _ = await connect(node, user)
            assert (await phone.subscribe(ROOM_FILTER, TOPIC)).reason_codes == codes
            await node.publish(TOPIC, user)
            assert user.encode() in (await phone.receive()).payload
            await phone.nothing_more()


async def test_the_application_is_asked_about_the_room() -> None:
    gate = gate_of("ann")
    gate.asks = {ROOM: True, "lead:2": False}
    async with running_edge(gate=gate) as node:
        phone, _ = await connect(node, "ann")
        suback = await phone.subscribe(ROOM_FILTER, "$room/lead:2")
        assert suback.reason_codes == [ReasonCode.GRANTED_QOS_1, ReasonCode.NOT_AUTHORIZED]
        assert set(gate.asked) == {ROOM, "lead:2"}
        await node.publish(ACTIVITY, OF_THE_LEAD)
        assert (await phone.receive()).topic == ACTIVITY


async def test_a_fresh_token_with_fewer_rights_ends_the_room_and_names_it() -> None:
    gate = gate_of("ann")
    gate.hears["ann"].add(ROOM)
    async with running_edge(gate=gate) as node:
        phone = await Client.open(node.port)
        phone.send(with_method("ann"))
        await phone.expect(Connack)
        await phone.subscribe(ROOM_FILTER)
        gate.hears["ann"].remove(ROOM)
        phone.send(authenticate("ann"))
        await phone.expect(Auth)
        goodbye = await phone.expect(Disconnect)
        assert goodbye.reason_code is ReasonCode.NOT_AUTHORIZED
        assert goodbye.properties is not None
        assert goodbye.properties.user_properties == [(REVOKED, ROOM_FILTER)]
        await node.publish(ACTIVITY, OF_THE_LEAD)
        assert await phone.next() is None
        assert node.edge.fanout.rooms == 0


@pytest.mark.parametrize("unsubscribed", [False, True], ids=["subscribed", "unsubscribed"])
@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "lost"])
async def test_what_was_in_flight_of_a_room_is_sent_again_by_the_rights_of_then(
    allowed: bool, unsubscribed: bool
) -> None:
    gate = gate_of("ann")
    gate.hears["ann"].add(ROOM)
    async with running_edge(gate=gate) as node:
        phone, _ = await connect(node, "ann", clean=False, expiry=100)
        await phone.subscribe(ROOM_FILTER)
        await node.publish(ACTIVITY, OF_THE_LEAD)
        await phone.receive(acknowledge=False)
        if unsubscribed:
            await phone.unsubscribe(ROOM_FILTER)
        await phone.drop()
        await until(lambda: not node.edge.connected)
        if not allowed:
            gate.hears["ann"].remove(ROOM)
        phone, connack = await connect(node, "ann", clean=False, expiry=100)
        assert connack.properties is not None
        lost = not allowed and not unsubscribed
        assert connack.properties.user_properties == ([(REVOKED, ROOM_FILTER)] if lost else [])
        if allowed:
            again = await phone.receive()
            assert (again.topic, again.dup) == (ACTIVITY, True)
        await phone.nothing_more()
