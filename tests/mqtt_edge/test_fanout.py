"""One encoding for all clients of an event, and what they answer."""

from __future__ import annotations

import json

import pytest

from gapless.mqtt import Pingreq, Pingresp, ProtocolVersion, Puback, Pubcomp, Pubrec, Pubrel, encode
from tests.mqtt_edge.support import V5, V311, Client, running_edge

BOTH = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


@BOTH
async def test_a_packet_identifier_in_use_is_not_used_again_MQTT_2_2_1_3(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "holds", version, clean=False, expiry=600)
        await client.subscribe("a")
        await client.disconnect()
        for n in range(5):
            await node.publish("a", n)
        client, _ = await Client.connect(node.port, "holds", version, clean=False, expiry=600)
        other, _ = await Client.connect(node.port, "other", version)
        await other.subscribe("a")
        held = [await client.receive(acknowledge=False) for _ in range(5)]
        for n in range(5, 12):
            await node.publish("a", n)
            assert json.loads((await other.receive()).payload)["data"] == n
            held.append(await client.receive(acknowledge=False))
        assert len({packet.packet_id for packet in held}) == 12
        assert [json.loads(packet.payload)["data"] for packet in held] == list(range(12))
        await client.drop()
        client, _ = await Client.connect(node.port, "holds", version, clean=False, expiry=600)
        again = [await client.receive() for _ in range(12)]
        assert [packet.packet_id for packet in again] == [packet.packet_id for packet in held]
        await client.nothing_more()
        assert not node.edge.connected["holds"].reader.inflight


@BOTH
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 1000])
async def test_acknowledgements_may_be_cut_and_joined_in_any_way(version: ProtocolVersion, size: int) -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "c", version)
        await client.subscribe("a")
        for n in range(12):
            await node.publish("a", n)
        answers = [encode(Puback((await client.receive(acknowledge=False)).packet_id), version) for _ in range(12)]
        answers.insert(5, encode(Pingreq(), version))
        data = b"".join(answers)
        connection = node.edge.connected["c"]
        reader = connection.reader
        assert reader.quota == reader.window - 12
        for at in range(0, len(data), size):
            connection.data_received(data[at : at + size])
        await client.expect(Pingresp)
        assert not reader.inflight
        assert reader.quota == reader.window


@BOTH
@pytest.mark.parametrize("size", [1, 4, 6, 1000])
async def test_the_steps_of_qos_2_may_be_cut_and_joined_in_any_way(version: ProtocolVersion, size: int) -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "c", version)
        await client.subscribe("a", qos=2)
        for n in range(6):
            await node.publish("a", n, qos=2)
        ids = [(await client.receive(acknowledge=False)).packet_id for _ in range(6)]
        connection = node.edge.connected["c"]
        reader = connection.reader
        twice = [*ids[:2], ids[0], *ids[2:]]  # a PUBREC that comes again is answered again
        for kind, numbers in ((Pubrec, twice), (Pubcomp, ids)):
            data = b"".join(encode(kind(number), version) for number in numbers)
            for at in range(0, len(data), size):
                connection.data_received(data[at : at + size])
            if kind is Pubrec:
                assert [(await client.expect(Pubrel)).packet_id for _ in twice] == twice
                assert reader.quota == reader.window - 6
        assert not reader.inflight
        assert reader.quota == reader.window
        await client.nothing_more()


async def test_events_committed_together_come_in_order_at_any_qos() -> None:
    async with running_edge() as node:
        clients = []
        for qos in range(3):
            client, _ = await Client.connect(node.port, f"qos{qos}", V5)
            await client.subscribe("a", qos=qos)
            clients.append(client)
        await node.publish("a", 0, qos=2)
        together = [node.publish_soon("a", n, qos=2) for n in range(1, 30)]
        for published in together:
            await published
        await node.publish("a", 30, qos=2)
        for qos, client in enumerate(clients):
            received = [await client.receive(acknowledge=qos == 1) for _ in range(31)]
            assert [json.loads(packet.payload)["data"] for packet in received] == list(range(31))
            assert {packet.qos for packet in received} == {qos}
