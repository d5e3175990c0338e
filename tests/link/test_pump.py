"""The way out, against a broker that does what the test says."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import msgspec
import pytest

from gapless.eventlog import StateKind, StateWrite
from gapless.eventlog.memory import MemoryLog
from gapless.link.flight import PumpState
from gapless.mqtt import (
    Connack,
    Disconnect,
    Properties,
    ProtocolVersion,
    Puback,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
    encode,
)
from tests.link.scripted import ScriptedBroker, Session, listening, scripted
from tests.link.support import PATIENCE, Side, options, side

TOPIC = "crm/leads/1/updated"


def number(packet: Publish) -> int:
    document = json.loads(packet.payload)
    found = document["data"]["n"]
    assert isinstance(found, int)
    return found


def published(session: Session) -> list[int]:
    return [number(packet) for packet in session.packets if isinstance(packet, Publish)]


async def again(broker: ScriptedBroker, gateway: Side) -> Session:
    """Close the connection; the next one."""
    broker.sessions[-1].close()
    await gateway.link.wait_disconnected()
    await gateway.connected()
    return broker.sessions[-1]


async def publish(gateway: Side, *numbers: int, qos: int = 1, **fields: Any) -> None:
    for n in numbers:
        await gateway.submit({"topic": TOPIC, "data": {"n": n}}, qos=qos, **fields)


@pytest.mark.parametrize("maximum", [None, 3])
async def test_window_is_the_smaller_of_ours_and_the_brokers(maximum: int | None) -> None:
    connack = Properties(receive_maximum=maximum)
    async with scripted(acknowledges=False, connack=connack) as broker:
        async with side(options(broker.url, window=5)) as gateway:
            session = broker.sessions[-1]
            window = maximum or 5
            await publish(gateway, *range(20))
            packets = [await session.get(Publish) for _ in range(window)]
            session.send(Puback(packets[0].packet_id))
            packets.append(await session.get(Publish))
            assert [number(p) for p in packets] == list(range(window + 1))
            assert len(published(session)) == window + 1
            broker.acknowledges = True
            for packet in packets[1:]:
                session.send(Puback(packet.packet_id))
            await gateway.settled()
            assert published(session) == list(range(20))


async def test_resends_unacknowledged_in_order_with_the_same_identifiers() -> None:
    async with scripted(acknowledges=False) as broker, side(options(broker.url)) as gateway:
        broker.session_present = True
        session = broker.sessions[-1]
        await publish(gateway, 1, 2, 3, 4)
        first = [await session.get(Publish) for _ in range(4)]
        session.send(Puback(first[1].packet_id))  # out of order: the standard forbids it, we bear it
        while gateway.link.stats.acknowledged < 1:
            await asyncio.sleep(0)
        session = await again(broker, gateway)
        packets = [await session.get(Publish) for _ in range(3)]
        assert [(number(p), p.dup, p.packet_id) for p in packets] == [
            (number(p), True, p.packet_id) for p in (first[0], first[2], first[3])
        ]
        await publish(gateway, 5)
        assert (await session.get(Publish)).dup is False
        assert gateway.link.stats.resent == 3


async def test_new_session_gets_everything_unsettled_without_dup() -> None:
    async with scripted(acknowledges=False) as broker, side(options(broker.url)) as gateway:
        await publish(gateway, 1, 2, qos=2)
        session = broker.sessions[-1]
        packet = await session.get(Publish)
        session.send(Pubrec(packet.packet_id))
        await session.get(Pubrel)  # taken over; but this broker forgets it
        session = await again(broker, gateway)
        packets = [await session.get(Publish) for _ in range(2)]
        assert [(number(p), p.dup) for p in packets] == [(1, False), (2, False)]


async def test_kept_session_gets_pubrel_and_no_second_publish() -> None:
    async with scripted(acknowledges=False) as broker, side(options(broker.url)) as gateway:
        broker.session_present = True
        await publish(gateway, 1, 2, qos=2)
        session = broker.sessions[-1]
        packet = await session.get(Publish)
        session.send(Pubrec(packet.packet_id))
        await session.get(Pubrel)
        broker.acknowledges = True
        session = await again(broker, gateway)
        await gateway.settled()
        assert published(session) == [2]
        assert isinstance(session.packets[2], Pubrel)


async def test_pubrel_waits_for_the_stored_state() -> None:
    log = MemoryLog()
    async with scripted(acknowledges=False) as broker, side(options(broker.url), log=log) as gateway:
        session = broker.sessions[-1]
        await publish(gateway, 1, qos=2)
        packet = await session.get(Publish)
        stored = gateway.link.pump._progress.stored
        assert stored.received == ()
        session.send(Pubrec(packet.packet_id))
        await session.get(Pubrel)
        assert gateway.link.pump._progress.stored.received == (1,)
        assert gateway.link.pump._progress.stored.position == 0


async def test_restart_begins_with_what_was_not_settled() -> None:
    log = MemoryLog()
    async with scripted(acknowledges=False) as broker:
        gateway = Side(options(broker.url), log=log)
        await gateway.start()
        await publish(gateway, 1, 2, 3, qos=2)
        session = broker.sessions[-1]
        first = [await session.get(Publish) for _ in range(3)]
        session.send(Pubrec(first[0].packet_id))
        await session.get(Pubrel)
        await gateway.kill()
        broker.session_present = broker.acknowledges = True
        async with side(options(broker.url), log=log) as gateway:
            await gateway.settled()
            session = broker.sessions[-1]
            assert published(session) == [2, 3]
            sent = [packet for packet in session.packets if isinstance(packet, Publish)]
            assert [p.packet_id for p in sent] == [p.packet_id for p in first[1:]]
            assert all(p.dup for p in sent)  # perhaps sent before
            released = [p.packet_id for p in session.packets if isinstance(p, Pubrel)]
            assert sorted(released) == sorted(p.packet_id for p in first)


async def test_kills_while_the_broker_is_away_publish_nothing_again() -> None:
    """Only one between CONNECT and CONNACK leaves it open whether the broker still has the session."""
    log = MemoryLog()
    async with scripted(acknowledges=False) as broker:
        gateway = Side(options(broker.url), log=log)
        await gateway.start()
        await publish(gateway, 1, qos=2)
        packet = await broker.sessions[-1].get(Publish)
        broker.sessions[-1].send(Pubrec(packet.packet_id))
        await broker.sessions[-1].get(Pubrel)
        await gateway.kill()
        async with listening(None) as port:
            pass  # nobody listens there any more
        gateway = Side(options(f"mqtt://127.0.0.1:{port}", client_id=gateway.link.client_id), log=log)
        await gateway.start(connected=False)
        async with asyncio.timeout(PATIENCE):
            while not gateway.link.stats.failures:
                await asyncio.sleep(0)
        await gateway.kill()
        broker.session_present = broker.acknowledges = True
        async with side(options(broker.url), log=log) as gateway:
            await gateway.settled()
            assert published(broker.sessions[-1]) == []


async def test_qos_1_waits_for_the_release_of_qos_2_before_it() -> None:
    """A broker hands QoS 2 on at PUBREL: a later QoS 1 event may not overtake it."""
    async with scripted(acknowledges=False) as broker, side(options(broker.url)) as gateway:
        session = broker.sessions[-1]
        await publish(gateway, 1, qos=2)
        await publish(gateway, 2, qos=1)
        await publish(gateway, 3, qos=2)
        packet = await session.get(Publish)
        assert published(session) == [1]
        session.send(Pubrec(packet.packet_id))
        await session.get(Publish, lambda p: number(p) == 3)
        order = [p for p in session.packets if isinstance(p, Publish | Pubrel)]
        assert [number(p) if isinstance(p, Publish) else "PUBREL" for p in order] == [1, "PUBREL", 2, 3]


@pytest.mark.parametrize("qos", [1, 2])
async def test_refused_for_good_is_counted_and_stalls_nothing(qos: int, caplog: pytest.LogCaptureFixture) -> None:
    async with scripted(acknowledges=False) as broker, side(options(broker.url)) as gateway:
        session = broker.sessions[-1]
        await publish(gateway, 1, 2, qos=qos)
        packet = await session.get(Publish)
        kind = Puback if qos == 1 else Pubrec
        session.send(kind(packet.packet_id, ReasonCode.NOT_AUTHORIZED))
        packet = await session.get(Publish)
        broker.acknowledges = True
        session.send(kind(packet.packet_id))
        await gateway.settled()
        assert (gateway.link.stats.refused, gateway.link.stats.acknowledged) == (1, 1)
        assert "NOT_AUTHORIZED" in caplog.text
        assert TOPIC in caplog.text


@pytest.mark.parametrize("qos", [1, 2])
async def test_exceeded_quota_is_tried_again_later(qos: int) -> None:
    async with scripted(acknowledges=False) as broker, side(options(broker.url)) as gateway:
        broker.session_present = True
        session = broker.sessions[-1]
        await publish(gateway, 1, 2, qos=qos)
        packet = await session.get(Publish)
        kind = Puback if qos == 1 else Pubrec
        broker.acknowledges = True
        session.send(kind(packet.packet_id, ReasonCode.QUOTA_EXCEEDED))
        assert "quota" in (await gateway.link.wait_disconnected()).error
        await gateway.connected()
        await gateway.settled()
        assert published(broker.sessions[-1]) == [1, 2]
        assert gateway.link.stats.refused == 0


async def test_identifiers_that_a_killed_broker_woke_up_with_are_released() -> None:
    """It had completed them, and lost that with its last unsaved state: they fill its window for ever."""
    async with scripted() as broker, side(options(broker.url)) as gateway:
        broker.session_present = True
        await publish(gateway, 1, 2, qos=2)
        await gateway.settled()
        broker.acknowledges = False
        await publish(gateway, 3, qos=2)
        session = broker.sessions[-1]
        packet = await session.get(Publish, lambda p: number(p) == 3)
        broker.acknowledges = True
        session.send(Pubrec(packet.packet_id, ReasonCode.QUOTA_EXCEEDED))
        await gateway.link.wait_disconnected()
        await gateway.connected()
        await gateway.settled()
        session = broker.sessions[-1]
        assert [p.packet_id for p in session.packets if isinstance(p, Pubrel)] == [1, 2, 3]
        assert published(session) == [3]


async def test_limits_of_the_broker_are_kept() -> None:
    connack = Properties(maximum_qos=1, retain_available=False, maximum_packet_size=2000)
    async with scripted(connack=connack) as broker, side(options(broker.url)) as gateway:
        await publish(gateway, 1, qos=2, retain=True)
        await gateway.submit({"topic": TOPIC, "data": {"n": 2, "text": "x" * 2000}})
        await publish(gateway, 3)
        await gateway.settled()
        session = broker.sessions[-1]
        sent = [packet for packet in session.packets if isinstance(packet, Publish)]
        assert [(number(p), p.qos, p.retain) for p in sent] == [(1, 1, False), (3, 1, False)]
        assert gateway.link.stats.too_large == 1


async def test_least_qos_raises_what_came_with_a_lower_one() -> None:
    async with scripted() as broker, side(options(broker.url, publish_qos_least=2)) as gateway:
        await publish(gateway, 1, qos=0)
        await publish(gateway, 2, qos=1)
        assert [(await broker.sessions[-1].get(Publish)).qos for _ in range(2)] == [2, 2]
        await gateway.settled()


async def test_broker_without_any_acknowledgement() -> None:
    async with scripted(connack=Properties(maximum_qos=0)) as broker, side(options(broker.url)) as gateway:
        await publish(gateway, 1, 2)
        await gateway.settled()
        sent = [await broker.sessions[-1].get(Publish) for _ in range(2)]
        assert [(number(p), p.qos) for p in sent] == [(1, 0), (2, 0)]


async def test_only_wanted_topics_are_published() -> None:
    async with scripted() as broker:
        async with side(options(broker.url)) as gateway:
            await gateway.submit({"topic": "outside/the/map", "data": {"n": 1}})
            await gateway.submit({"topic": "$private/1", "data": {"n": 2}})
            await publish(gateway, 3)
            await gateway.settled()
            assert published(broker.sessions[-1]) == [3]
            assert gateway.link.stats.skipped == 2
        async with side(options(broker.url, publish=("outside/#", "#"))) as gateway:
            await gateway.submit({"topic": "outside/the/map", "data": {"n": 4}})
            await gateway.submit({"topic": "$private/1", "data": {"n": 5}})
            await gateway.settled()
            assert published(broker.sessions[-1]) == [4]


async def test_expired_events_are_not_published_and_others_tell_how_long_they_live() -> None:
    async with scripted() as broker, side(options(broker.url)) as gateway:
        now = int(gateway.ingress.clock() * 1000)
        await publish(gateway, 1, expires=now - 1)
        await publish(gateway, 2, expires=now + 60_000)
        await publish(gateway, 3)
        await gateway.settled()
        sent = [await broker.sessions[-1].get(Publish) for _ in range(2)]
        assert [number(p) for p in sent] == [2, 3]
        assert sent[0].properties is not None
        assert sent[1].properties is not None
        assert sent[0].properties.message_expiry_interval in (59, 60)
        assert sent[1].properties.message_expiry_interval is None
        assert gateway.link.stats.expired == 1


async def test_device_bytes_stay_what_they_are_in_mqtt_5() -> None:
    async with scripted() as broker, side(options(broker.url)) as gateway:
        accepted = await gateway.submit_mqtt(TOPIC, b"\xffraw")
        packet = await broker.sessions[-1].get(Publish)
        assert packet.payload == b"\xffraw"
        assert packet.properties is not None
        user = packet.properties.user_properties
        assert user[0] == ("device", "7")
        assert dict(user)["id"] == accepted.id
        assert dict(user)["position"] == accepted.position
        await gateway.submit({"topic": TOPIC, "data_base64": "AAEC"})
        packet = await broker.sessions[-1].get(Publish)
        assert packet.payload == b"\x00\x01\x02"


async def test_device_bytes_go_in_the_envelope_in_311() -> None:
    async with scripted() as broker, side(options(broker.url, protocol="3.1.1")) as gateway:
        accepted = await gateway.submit_mqtt(TOPIC, b"\xffraw")
        await gateway.submit_mqtt(TOPIC, b'{"n": 2}')
        sent = [json.loads((await broker.sessions[-1].get(Publish)).payload) for _ in range(2)]
        assert (sent[0]["id"], sent[0]["data_base64"]) == (accepted.id, "/3Jhdw==")
        assert sent[1]["data"] == {"n": 2}


async def test_ephemeral_events_go_at_qos_0_to_a_broker_that_is_there() -> None:
    async with scripted() as broker, side(options(broker.url)) as gateway:
        awareness = {"topic": "crm/notes/1/collaboration", "data": {"kind": "awareness", "n": 1}}
        await gateway.submit(awareness)
        packet = await broker.sessions[-1].get(Publish)
        assert (packet.qos, packet.retain, number(packet)) == (0, False, 1)
        broker.refuse = lambda _: encode(Connack(ReasonCode.SERVER_BUSY), ProtocolVersion.V5)
        broker.sessions[-1].close()
        await gateway.link.wait_disconnected()
        await gateway.submit(awareness)
        stats = gateway.link.stats
        assert (stats.ephemeral, stats.ephemeral_dropped) == (1, 1)


async def test_broker_that_says_why_it_ends() -> None:
    async with scripted() as broker, side(options(broker.url)) as gateway:
        broker.sessions[-1].send(Disconnect(ReasonCode.SESSION_TAKEN_OVER))
        state = await gateway.link.wait_disconnected()
        assert "same client id" in state.error
        assert "client_id of its own" in state.hint


async def test_answers_to_nothing_of_ours_are_ignored() -> None:
    async with scripted() as broker, side(options(broker.url)) as gateway:
        session = broker.sessions[-1]
        session.send(Puback(17))
        session.send(Pubrec(18))
        assert (await session.get(Pubrel)).reason_code is ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
        await publish(gateway, 1)
        await gateway.settled()
        assert gateway.link.state.status == "connected"


async def test_packet_that_only_a_client_may_send_ends_the_connection() -> None:
    async with scripted() as broker, side(options(broker.url)) as gateway:
        broker.sessions[-1].send_bytes(b"\xc0\x00")  # PINGREQ
        assert "broke the protocol" in (await gateway.link.wait_disconnected()).error
        await gateway.connected()


async def test_new_log_is_published_from_its_beginning() -> None:
    """State of another epoch, as a copied data folder may bring, says nothing about this log."""
    log = MemoryLog()
    async with scripted() as broker:
        gateway = Side(options(broker.url), log=log)
        await log.open(gateway.hub.deliver)
        await gateway.submit({"topic": TOPIC, "data": {"n": 1}})
        state = PumpState(epoch="another", position=500)
        await log.write_state([StateWrite(StateKind.PUMP, "broker", msgspec.json.encode(state))], durable=True)
        await log.close()
        async with side(options(broker.url), log=log) as gateway:
            await gateway.settled()
            assert published(broker.sessions[-1]) == [1]


async def test_position_beyond_the_log_goes_on_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    log = MemoryLog()
    await log.open(lambda _: None)
    state = PumpState(epoch=log.epoch, position=500)
    await log.write_state([StateWrite(StateKind.PUMP, "broker", msgspec.json.encode(state))], durable=True)
    await log.close()
    async with scripted() as broker, side(options(broker.url), log=log) as gateway:
        await publish(gateway, 1)
        await gateway.settled()
        assert published(broker.sessions[-1]) == [1]
    assert "before the stored position 500" in caplog.text


async def test_slow_broker_stalls_nobody_and_costs_no_memory() -> None:
    """A full socket: the pump stops, and goes on where it was."""
    async with scripted(acknowledges=False) as broker, side(options(broker.url, window=10_000)) as gateway:
        session = broker.sessions[-1]
        transport = cast(asyncio.Transport, session._writer.transport)
        transport.pause_reading()
        text = "x" * 100_000
        for n in range(200):
            await gateway.submit({"topic": TOPIC, "data": {"n": n, "text": text}})
        assert gateway.link.pump._flight.bytes < 10 << 20  # the window is bounded in bytes as well
        assert gateway.link.pump.behind == 200
        assert len(gateway.heard.records) == 200
        broker.acknowledges = True
        transport.resume_reading()
        packets = [await session.get(Publish) for _ in range(20)]
        assert [number(p) for p in packets] == list(range(20))
        await gateway.settled()
        assert published(session) == list(range(200))
