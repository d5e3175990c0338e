"""Sessions as cursors: away, back, taken over, restarted, ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gapless.eventlog import EventLog, MemoryLog, Retention, SqliteLog, StateKind
from gapless.mqtt import (
    Disconnect,
    Properties,
    ProtocolVersion,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
    Suback,
    SubscriptionRequest,
)
from gapless.transports.mqtt import EdgeOptions
from tests.mqtt_edge.support import V5, V311, Client, Clock, Node, properties_of, running_edge, until

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


@pytest.fixture(params=["memory", "sqlite"])
def log_of(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    """Opens the same log again: the process's next life."""
    if request.param == "memory":
        log = MemoryLog()
        return lambda: log
    return lambda: SqliteLog(tmp_path / "events.db")


async def resume(node: Node, version: ProtocolVersion = V5, client_id: str = "phone", **options: Any) -> Client:
    client, connack = await Client.connect(node.port, client_id, version, clean=False, expiry=3600, **options)
    assert connack.session_present
    return client


async def persistent(node: Node, version: ProtocolVersion = V5, client_id: str = "phone", **options: Any) -> Client:
    client, connack = await Client.connect(node.port, client_id, version, clean=False, expiry=3600, **options)
    assert not connack.session_present
    return client


async def gone(node: Node, client: Client) -> None:
    """The network is gone, and the edge has noticed."""
    connections = node.edge.stats.connections
    await client.drop()
    await until(lambda: node.edge.stats.connections == connections - 1)


@VERSIONS
async def test_what_was_missed_comes_in_order_MQTT_4_1_0(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        phone = await persistent(node, version)
        await phone.subscribe("a/#", qos=1)
        await gone(node, phone)
        for n in range(300):
            await node.publish("a/b", n)
        await node.publish("other", 1)
        phone = await resume(node, version)
        for n in range(300):
            got = await phone.receive()
            assert b'"data":%d,' % n in got.payload
        await phone.nothing_more()
        await node.publish("a/c", "live again")
        assert (await phone.receive()).topic == "a/c"


@VERSIONS
async def test_unacknowledged_messages_come_again_with_dup_and_their_ids_MQTT_4_4_0_1(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        phone = await persistent(node, version)
        await phone.subscribe("a", qos=2)
        for n, qos in enumerate([1, 2, 2, 1]):
            await node.publish("a", n, qos=qos)
        first = [await phone.receive(acknowledge=False) for _ in range(4)]
        assert [packet.qos for packet in first] == [1, 2, 2, 1]
        assert len({packet.packet_id for packet in first}) == 4
        phone.send(Pubrec(first[1].packet_id))
        await phone.expect(Pubrel)
        await gone(node, phone)
        await node.publish("a", 4)

        phone = await resume(node, version)
        again: list[Publish | Pubrel] = [await phone.expect(Publish), await phone.expect(Pubrel)]
        again += [await phone.expect(Publish), await phone.expect(Publish)]
        assert [packet.packet_id for packet in again] == [packet.packet_id for packet in first]
        assert [packet.dup for packet in again if isinstance(packet, Publish)] == [True] * 3
        new = await phone.expect(Publish)
        assert not new.dup
        assert new.packet_id not in {packet.packet_id for packet in first}


async def test_a_session_survives_a_restart_of_the_edge(log_of: object) -> None:
    assert callable(log_of)
    async with running_edge(log=log_of()) as node:
        phone = await persistent(node)
        await phone.subscribe("a/+", qos=1)
        await node.publish("a/1", 1)
        await phone.receive()
        await gone(node, phone)
        await node.publish("a/1", 2)
    async with running_edge(log=log_of()) as node:
        assert node.edge.stats.sessions_away == 1
        await node.publish("a/1", 3)
        phone = await resume(node)
        assert [(await phone.receive()).payload.count(b'"data":%d' % n) for n in (2, 3)] == [1, 1]
        await phone.nothing_more()


async def test_qos_2_to_a_client_is_exactly_once_over_a_restart_at_every_step(log_of: object) -> None:
    assert callable(log_of)
    async with running_edge(log=log_of()) as node:
        phone = await persistent(node)
        await phone.subscribe("a", qos=2)
        await node.publish("a", "one", qos=2)
        got = await phone.receive(acknowledge=False)
    async with running_edge(log=log_of()) as node:  # killed after PUBLISH
        phone = await resume(node)
        again = await phone.expect(Publish)
        assert (again.packet_id, again.dup) == (got.packet_id, True)
        phone.send(Pubrec(got.packet_id))
        await phone.expect(Pubrel)
    async with running_edge(log=log_of()) as node:  # killed after PUBREL
        phone = await resume(node)
        assert (await phone.expect(Pubrel)).packet_id == got.packet_id
        phone.send(Pubcomp(got.packet_id))
        await phone.nothing_more()
    async with running_edge(log=log_of()) as node:
        phone = await resume(node)
        await phone.nothing_more()


async def test_qos_2_from_a_client_is_exactly_once_over_a_restart_MQTT_4_3_3_10(log_of: object) -> None:
    assert callable(log_of)
    message = Publish("a", b"once", qos=2, packet_id=9)
    async with running_edge(log=log_of()) as node:
        phone = await persistent(node)
        phone.send(message)
        await phone.expect(Pubrec)
    async with running_edge(log=log_of()) as node:
        phone = await resume(node)
        phone.send(Publish("a", b"once", qos=2, packet_id=9, dup=True))
        await phone.expect(Pubrec)
        assert node.hub.head == 1
        phone.send(Pubrel(9))
        await phone.expect(Pubcomp)
    async with running_edge(log=log_of()) as node:
        phone = await resume(node)
        phone.send(message)  # released: a new message
        await phone.expect(Pubrec)
        assert node.hub.head == 2


@VERSIONS
async def test_a_resent_qos_1_publish_is_one_event(log_of: object, version: ProtocolVersion) -> None:
    assert callable(log_of)
    async with running_edge(log=log_of()) as node:
        phone = await persistent(node, version)
        await phone.publish("a", b"x", packet_id=5)
        await gone(node, phone)
        phone = await resume(node, version)
        await phone.publish("a", b"x", packet_id=5, dup=True)
        assert node.hub.head == 1
        await phone.publish("a", b"y", packet_id=5, dup=True)
        assert node.hub.head == 2
        await phone.publish("a", b"y", packet_id=5)
        assert node.hub.head == 3
    async with running_edge(log=log_of()) as node:
        phone = await resume(node, version)
        await phone.publish("a", b"y", packet_id=5, dup=True)
        assert node.hub.head == 3
        assert node.edge.stats.resent_publishes == 1


async def test_an_id_of_its_own_makes_a_publish_idempotent() -> None:
    async with running_edge() as node:
        phone = await persistent(node)
        properties = Properties(user_properties=[("id", "order-1")])
        await phone.publish("a", b"x", properties=properties)
        await phone.publish("a", b"x", properties=properties)
        assert node.hub.head == 1
        assert await node.log.find("order-1") is not None


@VERSIONS
async def test_clean_start_ends_the_old_session_MQTT_3_1_2_4(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        phone = await persistent(node, version)
        await phone.subscribe("a", qos=1)
        await phone.disconnect()
        await node.publish("a", 1)
        phone, connack = await Client.connect(node.port, "phone", version, clean=True)
        assert not connack.session_present
        await phone.nothing_more()
        await node.publish("a", 2)
        await phone.nothing_more()


async def test_a_session_without_expiry_leaves_nothing_behind() -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "web", V5, clean=False)
        await client.subscribe("a", qos=2)
        await node.publish("a", 1, qos=2)
        await client.receive(acknowledge=False)
        await client.publish("b", qos=2)
        assert await node.log.all_state(StateKind.MQTT_SESSION) == {}
        await client.drop()
        await until(lambda: node.edge.stats.connections == 0)
        client, connack = await Client.connect(node.port, "web", V5, clean=False)
        assert not connack.session_present


async def test_a_session_ends_after_its_expiry() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port, "phone", V5, clean=False, expiry=100)
        await phone.subscribe("a")
        await phone.disconnect()
        node.clock.ahead = 101
        phone, connack = await Client.connect(node.port, "phone", V5, clean=False, expiry=100)
        assert not connack.session_present
        await phone.disconnect()
        assert list(await node.log.all_state(StateKind.MQTT_SESSION)) == ["s/phone"]
        # and without anybody coming
        short, _ = await Client.connect(node.port, "short", V5, clean=False, expiry=1)
        await short.disconnect()
        node.clock.ahead = 110
        node.edge.sessions._on_due()
        await until(lambda: node.edge.stats.sessions_away == 1)
        assert list(await node.log.all_state(StateKind.MQTT_SESSION)) == ["s/phone"]


@pytest.mark.parametrize("wrong", [-259_200.0, 259_200.0])
async def test_a_clock_that_is_set_for_a_while_ends_no_session(wrong: float) -> None:
    """By three days: set as the client goes, and set right again before it is back; or while it is away."""
    async with running_edge() as node:
        for before in (True, False):
            phone, _ = await Client.connect(node.port, "phone", V5, clean=False, expiry=100)
            await phone.subscribe("a")
            node.clock.wrong = wrong * before
            await phone.drop()
            await until(lambda: node.edge.stats.connections == 0)
            node.clock.wrong = wrong - node.clock.wrong
            node.edge.sessions._on_due()
            phone, connack = await Client.connect(node.port, "phone", V5, clean=False, expiry=100)
            assert connack.session_present
            node.clock.wrong = 0.0


async def test_a_clock_that_is_wrong_at_a_start_ends_no_session_and_makes_none_last() -> None:
    log, clock = MemoryLog(), Clock()
    async with running_edge(log=log, clock=clock) as node:
        phone, _ = await Client.connect(node.port, "phone", V5, clean=False, expiry=100)
        await phone.subscribe("a")
        await phone.disconnect()
    clock.wrong = -259_200.0
    async with running_edge(log=log, clock=clock) as node:
        clock.wrong = 0.0
        phone, connack = await Client.connect(node.port, "phone", V5, clean=False, expiry=100)
        assert connack.session_present
        await phone.disconnect()
    clock.wrong = -259_200.0
    async with running_edge(log=log, clock=clock) as node:
        clock.ahead = 101
        phone, connack = await Client.connect(node.port, "phone", V5, clean=False, expiry=100)
        assert not connack.session_present


async def test_disconnect_may_change_the_expiry_MQTT_3_14_2_2() -> None:
    async with running_edge() as node:
        phone = await persistent(node)
        phone.send(Disconnect(ReasonCode.NORMAL_DISCONNECTION, Properties(session_expiry_interval=0)))
        await phone.expect_closed()
        await persistent(node)
        web, _ = await Client.connect(node.port, "web", V5)
        web.send(Disconnect(ReasonCode.NORMAL_DISCONNECTION, Properties(session_expiry_interval=9)))
        await web.expect_closed(ReasonCode.PROTOCOL_ERROR)


async def test_the_expiry_is_bounded_and_told() -> None:
    async with running_edge(options=EdgeOptions(max_session_expiry=60)) as node:
        _, connack = await Client.connect(node.port, "phone", V5, expiry=3600)
        assert connack.properties is not None
        assert connack.properties.session_expiry_interval == 60


@pytest.mark.parametrize(("version", "reason"), [(V5, ReasonCode.SESSION_TAKEN_OVER), (V311, None)], ids=["5", "3.1.1"])
async def test_a_client_id_that_comes_again_takes_over_MQTT_3_1_4_3(
    version: ProtocolVersion, reason: ReasonCode | None
) -> None:
    async with running_edge() as node:
        first = await persistent(node, version)
        await first.subscribe("a", qos=1)
        await node.publish("a", 1)
        unacknowledged = await first.receive(acknowledge=False)
        second = await resume(node, version)
        await first.expect_closed(reason)
        again = await second.receive()
        assert (again.packet_id, again.dup) == (unacknowledged.packet_id, True)
        await node.publish("a", 2)
        await second.receive()
        await second.nothing_more()
        assert node.edge.stats.taken_over == 1


async def test_many_takeovers_at_once_leave_one() -> None:
    async with running_edge() as node:
        clients = [await Client.open(node.port, V311) for _ in range(10)]
        from gapless.mqtt import Connack, Connect

        for client in clients:
            client.send(Connect("same", V311, clean_start=False))
        await until(lambda: node.edge.stats.accepted == 10)
        for client in clients[:-1]:
            await client.expect(Connack)
            await client.expect_closed()
        assert len(node.edge.connected) == 1


async def test_qos_0_is_not_kept_for_the_absent_but_comes_once_connected() -> None:
    async with running_edge() as node:
        phone = await persistent(node)
        await phone.subscribe("a", qos=0)
        await phone.subscribe("b", qos=1)
        await gone(node, phone)
        await node.publish("a", "missed")
        await node.publish("b", "kept")
        phone = await resume(node)
        assert b"kept" in (await phone.receive()).payload
        await node.publish("a", "live")
        got = await phone.receive()
        assert (got.topic, got.qos) == ("a", 0)
        await phone.nothing_more()


async def test_a_new_filter_does_not_bring_the_past() -> None:
    async with running_edge() as node:
        phone = await persistent(node)
        await phone.subscribe("a")
        await gone(node, phone)
        await node.publish("b", "before")
        await node.publish("a", 1)
        phone = await resume(node)
        assert (await phone.receive()).topic == "a"
        await phone.subscribe("b")
        await node.publish("b", "after")
        assert b"after" in (await phone.receive()).payload


async def test_history_from_a_position() -> None:
    async with running_edge() as node:
        for n in range(5):
            await node.publish("a", n)
        phone, _ = await Client.connect(node.port, "phone", V5)
        await phone.subscribe("a", user_properties=[("gapless-start", node.hub.position(2))])
        for n in (2, 3, 4):
            assert b'"data":%d,' % n in (await phone.receive()).payload
        # a second filter with history does not repeat what came through the first
        await node.publish("b", "b")
        await phone.subscribe("#", qos=1, user_properties=[("gapless-start", node.hub.position(0))])
        topics = [(await phone.receive()) for _ in range(3)]
        assert [properties_of(packet)["position"] for packet in topics] == [
            node.hub.position(offset) for offset in (1, 2, 6)
        ]
        await phone.nothing_more()
        await node.publish("a", "live")
        await phone.receive()


async def test_a_bad_position_is_refused_by_name() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port, "phone", V5)
        for position in ("nonsense", f"{node.hub.epoch}:99"):
            suback = await phone.subscribe("a", user_properties=[("gapless-start", position)])
            assert suback.reason_codes == [ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR]
            assert suback.properties is not None
            assert suback.properties.reason_string
        suback = await phone.subscribe("a", user_properties=[("gapless-start", "otherepoch:1")])
        assert suback.properties is not None
        assert suback.properties.user_properties == [
            ("gapless-incomplete", "otherepoch:1"),
            ("gapless-position", node.hub.position(0)),
        ]


def begins_at(suback: Suback) -> str | None:
    """The position that a SUBACK tells."""
    pairs = [] if suback.properties is None else suback.properties.user_properties
    return dict(pairs).get("gapless-position")


async def test_suback_tells_the_position_at_which_its_filters_begin() -> None:
    async with running_edge() as node:
        position = node.hub.position
        for n in range(3):
            await node.publish("a", n)
        phone = await persistent(node, receive_maximum=1)
        assert begins_at(await phone.subscribe("a")) == position(3)
        assert begins_at(await phone.subscribe("b", user_properties=[("gapless-start", position(1))])) == position(1)
        assert begins_at(await phone.subscribe("$share/g/c")) is None
        assert begins_at(await phone.subscribe("c", "$share/g/c")) == position(3)
        for n in range(3):
            await node.publish("a", n)
        held = await phone.receive(acknowledge=False)  # the window is full: two events wait behind it
        assert begins_at(await phone.subscribe("a")) == position(4)
        assert begins_at(await phone.subscribe("d")) == position(6)
        assert begins_at(await phone.subscribe("d", "a")) == position(4)
        assert begins_at(await phone.subscribe("/" * 100)) is None
        await phone.acknowledge(held)


async def test_suback_tells_no_position_while_messages_are_sent_again() -> None:
    async with running_edge() as node:
        phone = await persistent(node, receive_maximum=2)
        await phone.subscribe("a")
        for n in range(2):
            await node.publish("a", n)
            await phone.receive(acknowledge=False)
        await gone(node, phone)
        phone = await resume(node, receive_maximum=1)  # of the two, only the first can be sent again
        again = await phone.receive(acknowledge=False)
        assert begins_at(await phone.subscribe("a")) is None
        await phone.acknowledge(again)
        await phone.receive()
        assert begins_at(await phone.subscribe("a")) == node.hub.position(2)


async def test_a_hole_is_told_never_silent() -> None:
    log = MemoryLog(retention=Retention(seconds=None, bytes=1))
    async with running_edge(log=log, recent_events=1) as node:
        phone = await persistent(node)
        await phone.subscribe("a", qos=1)
        await gone(node, phone)
        for n in range(50):
            await node.publish("a", n)
        removed = await log.trim(now=node.clock())
        assert removed.removed > 0
        await node.publish("a", "after")
        phone = await resume(node)
        got = await phone.receive()
        assert properties_of(got)["gapless-incomplete"] == node.hub.position(0)
        assert node.edge.stats.incomplete == 1
        await node.publish("a", "next")
        while b"next" not in got.payload:
            got = await phone.receive()
        assert "gapless-incomplete" not in properties_of(got)


async def test_retransmission_of_what_the_log_no_longer_has_is_a_hole() -> None:
    log = MemoryLog(retention=Retention(seconds=None, bytes=1))
    async with running_edge(log=log, recent_events=1) as node:
        phone = await persistent(node)
        await phone.subscribe("a", qos=1)
        await node.publish("a", 1)
        await phone.receive(acknowledge=False)
        await gone(node, phone)
        for n in range(10):
            await node.publish("b", n)
        assert (await log.trim(now=node.clock())).removed
        await node.publish("a", 2)
        phone = await resume(node)
        got = await phone.receive()
        assert b'"data":2' in got.payload
        assert "gapless-incomplete" in properties_of(got)


async def test_unsubscribe_while_behind_stops_the_past_too() -> None:
    async with running_edge() as node:
        phone = await persistent(node, V311)
        await phone.subscribe(SubscriptionRequest("a", 1), SubscriptionRequest("b", 1))
        await gone(node, phone)
        await node.publish("b", 0)
        phone = await resume(node, V311)
        await phone.receive()
        unsuback = await phone.unsubscribe("a")
        assert unsuback.packet_id
        await node.publish("a", 1)
        await node.publish("b", 1)
        assert (await phone.receive()).topic == "b"
        await phone.nothing_more()


async def test_a_small_receive_maximum_is_kept_MQTT_3_3_4_9() -> None:
    async with running_edge() as node:
        phone, _ = await Client.connect(node.port, "phone", V5, receive_maximum=3)
        await phone.subscribe("a", qos=1)
        for n in range(10):
            await node.publish("a", n)
        waiting = [await phone.receive(acknowledge=False) for _ in range(3)]
        await phone.nothing_more()
        for n in range(3, 10):
            phone.send(Puback(waiting.pop(0).packet_id))
            got = await phone.receive(acknowledge=False)
            assert b'"data":%d,' % n in got.payload
            waiting.append(got)
        await phone.nothing_more()


async def test_a_resume_with_a_smaller_receive_maximum_resends_within_it() -> None:
    async with running_edge() as node:
        phone = await persistent(node)
        await phone.subscribe("a", qos=1)
        for n in range(5):
            await node.publish("a", n)
        first = [await phone.receive(acknowledge=False) for _ in range(5)]
        await gone(node, phone)
        phone = await resume(node, receive_maximum=2)
        again = [await phone.receive(acknowledge=False) for _ in range(2)]
        await phone.nothing_more()
        for packet in again:
            phone.send(Puback(packet.packet_id))
        again += [await phone.receive() for _ in range(3)]
        assert [packet.packet_id for packet in again] == [packet.packet_id for packet in first]
        await phone.nothing_more()


async def test_a_log_that_is_away_refuses_connect_and_keeps_the_session() -> None:
    log: EventLog = MemoryLog()
    async with running_edge(log=log) as node:
        phone = await persistent(node)
        await phone.subscribe("a")
        await phone.disconnect()
        await node.publish("a", 1)
        await log.close()
        client, connack = await Client.connect(node.port, "phone", V5, clean=False, expiry=3600)
        assert connack.reason_code is ReasonCode.SERVER_UNAVAILABLE
        await client.expect_closed()
        await log.open(node.hub.deliver)
        phone = await resume(node)
        await phone.receive()


async def test_a_client_that_comes_and_goes_leaves_one_end_of_its_session_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gapless.transports.mqtt.sessions._OUTDATED", 10)
    async with running_edge() as node:
        sessions = node.edge.sessions
        for _ in range(40):
            phone, _ = await Client.connect(node.port, "phone", clean=False, expiry=1000)
            await phone.disconnect()
            await until(lambda: node.edge.stats.sessions_away == 1)
            assert len(sessions._due) <= 2 + 10 + 1
        node.clock.ahead = 2000
        sessions._on_due()
        await until(lambda: node.edge.stats.sessions_away == 0)
