"""Killed right here, what happens? The stored state of a moment, and the edge started on it."""

from __future__ import annotations

import json

import pytest

from gapless.eventlog import MemoryLog, StateKind
from gapless.mqtt import Pubcomp, Publish, Pubrec, Pubrel
from tests.mqtt_edge.support import Client, Node, running_edge

Snapshot = dict[StateKind, dict[str, bytes]]


def snapshot(log: MemoryLog) -> Snapshot:
    """What a kill at this moment leaves of the sessions."""
    return {kind: dict(values) for kind, values in log._state.items()}


def killed_at(log: MemoryLog, then: Snapshot) -> None:
    """Undo what the orderly end of the edge stored."""
    for kind, values in then.items():
        log._state[kind] = dict(values)


async def phone_of(node: Node) -> Client:
    phone, _ = await Client.connect(node.port, "phone", clean=False, expiry=3600)
    return phone


def value(packet: Publish) -> int:
    number = json.loads(packet.payload)["data"]
    assert isinstance(number, int)
    return number


@pytest.mark.parametrize("step", ["publish", "pubrec", "pubcomp"])
async def test_qos_2_to_a_client_is_exactly_once_whenever_the_process_dies(step: str) -> None:
    log = MemoryLog()
    async with running_edge(log=log) as node:
        await node.publish("r", 0, retain=True)
        phone = await phone_of(node)
        await phone.subscribe("a", "r", qos=2)
        await phone.receive()  # a retained message, which takes a packet identifier
        await node.publish("a", 1, qos=2)
        first = await phone.receive(acknowledge=False)
        then = snapshot(log)
        if step != "publish":
            phone.send(Pubrec(first.packet_id))
            await phone.expect(Pubrel)
            then = snapshot(log)
        if step == "pubcomp":
            phone.send(Pubcomp(first.packet_id))
            await phone.nothing_more()
    killed_at(log, then)
    async with running_edge(log=log) as node:
        await node.publish("a", 2, qos=2)
        phone = await phone_of(node)
        if step == "publish":
            again = await phone.receive(acknowledge=False)
            if again.qos == 1:  # the retained one: its PUBACK may not have been stored
                again = await phone.receive(acknowledge=False)
            assert (again.packet_id, again.dup, value(again)) == (first.packet_id, True, 1)
        else:
            assert (await phone.expect(Pubrel)).packet_id == first.packet_id
            phone.send(Pubcomp(first.packet_id))
        new = await phone.expect(Publish)
        assert (new.dup, value(new)) == (False, 2)
        assert new.packet_id != first.packet_id
        await phone.nothing_more()


async def test_qos_2_behind_qos_1_in_one_burst_is_stored_before_it_is_sent() -> None:
    log = MemoryLog()
    async with running_edge(log=log) as node:
        phone = await phone_of(node)
        await phone.subscribe("a", qos=2)
        for n, qos in enumerate([1, 2, 1, 2, 2, 1]):
            node.publish_soon("a", n, qos=qos)
        got = [await phone.receive(acknowledge=False) for _ in range(6)]
        then = snapshot(log)
    assert [value(packet) for packet in got] == list(range(6))
    killed_at(log, then)
    async with running_edge(log=log) as node:
        phone = await phone_of(node)
        again = [await phone.receive(acknowledge=False) for _ in range(6)]
        assert [value(packet) for packet in again] == list(range(6))
        exact = [(p.packet_id, value(p)) for p in got if p.qos == 2]
        assert [(p.packet_id, value(p)) for p in again if p.qos == 2] == exact
        await phone.nothing_more()


@pytest.mark.parametrize("step", ["pubrec", "pubcomp"])
async def test_qos_2_from_a_client_is_exactly_once_whenever_the_process_dies(step: str) -> None:
    log = MemoryLog()
    message = Publish("a", b"once", qos=2, packet_id=9)
    async with running_edge(log=log) as node:
        phone = await phone_of(node)
        phone.send(message)
        await phone.expect(Pubrec)
        if step == "pubcomp":
            phone.send(Pubrel(9))
            await phone.expect(Pubcomp)
        then = snapshot(log)
    killed_at(log, then)
    async with running_edge(log=log) as node:
        phone = await phone_of(node)
        if step == "pubrec":
            phone.send(Publish("a", b"once", qos=2, packet_id=9, dup=True))
            await phone.expect(Pubrec)
        phone.send(Pubrel(9))  # again, where PUBCOMP was lost
        await phone.expect(Pubcomp)
        assert node.hub.head == 1


async def test_qos_1_acknowledgements_not_yet_stored_bring_duplicates_never_holes() -> None:
    log = MemoryLog()
    async with running_edge(log=log) as node:
        phone = await phone_of(node)
        await phone.subscribe("a")
        then = snapshot(log)
        for n in range(5):
            await node.publish("a", n)
            await phone.receive()
    killed_at(log, then)
    async with running_edge(log=log) as node:
        phone = await phone_of(node)
        assert [value(await phone.receive()) for _ in range(5)] == list(range(5))


async def test_a_subscription_is_stored_before_it_is_granted() -> None:
    log = MemoryLog()
    async with running_edge(log=log) as node:
        phone = await phone_of(node)
        await phone.subscribe("a", "b")
        await phone.unsubscribe("b")
        then = snapshot(log)
    killed_at(log, then)
    async with running_edge(log=log) as node:
        await node.publish("b", 0)
        await node.publish("a", 1)
        phone = await phone_of(node)
        assert value(await phone.receive()) == 1
        await phone.nothing_more()
