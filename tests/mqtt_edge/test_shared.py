"""Shared subscriptions (MQTT 5 §4.8.2): one cursor, whose members take turns."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from gapless.eventlog import MemoryLog, SqliteLog, StateKind
from gapless.mqtt import Puback, Publish, Pubrec, ReasonCode
from tests.mqtt_edge.support import V5, V311, Client, Node, running_edge, until


def value(packet: Publish) -> int:
    number = json.loads(packet.payload)["data"]
    assert isinstance(number, int)
    return number


async def gone(node: Node, client: Client) -> None:
    connections = node.edge.stats.connections
    await client.drop()
    await until(lambda: node.edge.stats.connections == connections - 1)


async def test_members_take_turns_and_each_message_goes_to_one() -> None:
    async with running_edge() as node:
        members = [(await Client.connect(node.port, f"m{n}", version))[0] for n, version in enumerate((V5, V5, V311))]
        for member in members:
            await member.subscribe("$share/g/a/+")
        for n in range(9):
            await node.publish("a/x", n)
        got = [[value(await member.receive()) for _ in range(3)] for member in members]
        assert sorted(number for run in got for number in run) == list(range(9))
        assert all(run == sorted(run) for run in got)
        for member in members:
            await member.nothing_more()


async def test_a_group_and_an_own_subscription_are_two_things() -> None:
    async with running_edge() as node:
        both, _ = await Client.connect(node.port, "both")
        await both.subscribe("$share/g/a", "a")
        other, _ = await Client.connect(node.port, "other")
        await other.subscribe("$share/h/a")
        await node.publish("a", 1)
        assert [value(await both.receive()) for _ in range(2)] == [1, 1]
        assert value(await other.receive()) == 1
        await both.unsubscribe("$share/g/a")
        await node.publish("a", 2)
        assert value(await both.receive()) == 2
        await both.nothing_more()


async def test_no_retained_messages_for_a_group() -> None:
    async with running_edge() as node:
        await node.publish("a", 1, retain=True)
        member, _ = await Client.connect(node.port, "m")
        await member.subscribe("$share/g/a")
        await member.nothing_more()


async def test_a_full_member_is_passed_over_and_a_full_group_waits() -> None:
    async with running_edge() as node:
        one, _ = await Client.connect(node.port, "one", receive_maximum=1)
        two, _ = await Client.connect(node.port, "two", receive_maximum=2)
        for member in (one, two):
            await member.subscribe("$share/g/a")
        for n in range(6):
            await node.publish("a", n)
        first = await one.receive(acknowledge=False)
        held = [await two.receive(acknowledge=False) for _ in range(2)]
        await one.nothing_more()
        await two.nothing_more()
        assert {value(p) for p in (first, *held)} == {0, 1, 2}
        one.send(Puback(first.packet_id))
        assert value(await one.receive()) == 3
        rest = [value(await one.receive()) for _ in range(2)]
        assert rest == [4, 5]


async def test_what_an_ended_session_had_not_acknowledged_goes_to_another_but_not_qos_2() -> None:
    async with running_edge() as node:
        one, _ = await Client.connect(node.port, "one")
        await one.subscribe("$share/g/a", qos=2)
        await node.publish("a", 1, qos=1)
        await node.publish("a", 2, qos=2)
        await node.publish("a", 3, qos=1)
        for _ in range(3):
            await one.receive(acknowledge=False)
        two, _ = await Client.connect(node.port, "two")
        await two.subscribe("$share/g/a", qos=2)
        await gone(node, one)
        assert [value(await two.receive()) for _ in range(2)] == [1, 3]
        await two.nothing_more()


async def test_a_refused_message_is_not_sent_to_another_MQTT_4_8_2_6() -> None:
    async with running_edge() as node:
        one, _ = await Client.connect(node.port, "one")
        await one.subscribe("$share/g/a", qos=2)
        for qos, ack in ((1, Puback), (2, Pubrec)):
            await node.publish("a", 1, qos=qos)
            got = await one.receive(acknowledge=False)
            one.send(ack(got.packet_id, ReasonCode.UNSPECIFIED_ERROR))
        await one.nothing_more()
        two, _ = await Client.connect(node.port, "two")
        await two.subscribe("$share/g/a")
        await gone(node, one)
        await two.nothing_more()


async def test_a_group_waits_for_its_persistent_member_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with running_edge(log=SqliteLog(path)) as node:
        member, _ = await Client.connect(node.port, "m", clean=False, expiry=1000)
        await member.subscribe("$share/g/a")
        await node.publish("a", 1)
        unacknowledged = await member.receive(acknowledge=False)
        await gone(node, member)
        await node.publish("a", 2)
    async with running_edge(log=SqliteLog(path)) as node:
        await node.publish("a", 3)
        member, connack = await Client.connect(node.port, "m", clean=False, expiry=1000)
        assert connack.session_present
        again = await member.receive()
        assert (again.packet_id, again.dup) == (unacknowledged.packet_id, True)
        assert [value(await member.receive()) for _ in range(2)] == [2, 3]
        await member.nothing_more()


async def test_a_clean_members_share_is_not_lost_with_the_process() -> None:
    log = MemoryLog()
    async with running_edge(log=log) as node:
        keeper, _ = await Client.connect(node.port, "keeper", clean=False, expiry=1000, receive_maximum=1)
        await keeper.subscribe("$share/g/a")
        worker, _ = await Client.connect(node.port, "worker")
        await worker.subscribe("$share/g/a")
        for n in range(4):
            await node.publish("a", n)
        kept = value(await keeper.receive(acknowledge=False))
        worked = [value(await worker.receive(acknowledge=False)) for _ in range(3)]
        await until(lambda: node.edge.sessions._flush_timer is None and node.edge.sessions._writing is None)
        state = dict(await log.all_state(StateKind.MQTT_SHARE))
        sessions = dict(await log.all_state(StateKind.MQTT_SESSION))
        # the process dies here: nothing after this moment is stored
    assert as_it_was(log, state, sessions)
    async with running_edge(log=log) as node:
        keeper, _ = await Client.connect(node.port, "keeper", clean=False, expiry=1000)
        got = sorted([value(await keeper.receive()) for _ in range(4)])
        assert got == sorted([kept, *worked])
        await keeper.nothing_more()


def as_it_was(log: MemoryLog, share: dict[str, bytes], sessions: dict[str, bytes]) -> bool:
    """Put the stored state back to what it was at the kill."""
    log._state[StateKind.MQTT_SHARE] = dict(share)
    log._state[StateKind.MQTT_SESSION] = dict(sessions)
    return True


async def test_a_group_without_members_is_forgotten() -> None:
    async with running_edge() as node:
        member, _ = await Client.connect(node.port, "m", clean=False, expiry=1000)
        await member.subscribe("$share/g/a")
        assert "g/a" in await node.log.all_state(StateKind.MQTT_SHARE)
        await member.unsubscribe("$share/g/a")
        await until(lambda: node.edge.sessions._flush_timer is None and node.edge.sessions._writing is None)
        assert await node.log.all_state(StateKind.MQTT_SHARE) == {}
        assert node.edge.groups.get("g/a") is None


async def test_a_thousand_messages_over_members_that_come_and_go() -> None:
    async with running_edge() as node:
        keeper, _ = await Client.connect(node.port, "keeper", clean=False, expiry=1000)
        await keeper.subscribe("$share/g/a")
        seen: list[int] = []

        async def work(name: str, stop_after: int) -> None:
            client, _ = await Client.connect(node.port, name)
            await client.subscribe("$share/g/a")
            seen.extend([value(await client.receive()) for _ in range(stop_after)])
            await client.drop()  # with what is on its way to it

        async def keep() -> None:
            while len(set(seen)) < 1000:
                packet = await keeper.next()
                assert isinstance(packet, Publish)
                await keeper.acknowledge(packet)
                seen.append(value(packet))

        keeping = asyncio.create_task(keep())
        workers = [asyncio.create_task(work(f"w{n}", 20)) for n in range(3)]
        for n in range(1000):
            await node.publish("a", n)
        await asyncio.gather(*workers)
        async with asyncio.timeout(10):
            await keeping
        assert sorted(set(seen)) == list(range(1000))
