"""One encoding for all clients of an event, and what they answer."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from gapless.event import Record
from gapless.mqtt import Pingreq, Pingresp, ProtocolVersion, Puback, Pubcomp, Pubrec, Pubrel, encode, matches
from gapless.transports.broadcast import FEW, Broadcast, Group
from tests.mqtt_edge.support import V5, V311, Client, Node, running_edge

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


class Counting(Broadcast):
    """Counts how often many were written to without a look at each."""

    to_groups = 0

    def write_to_group(self, data: bytes, group: Group) -> None:
        self.to_groups += 1
        super().write_to_group(data, group)


@pytest.fixture(params=["io_uring", "one by one"])
def broadcast(request: pytest.FixtureRequest) -> Iterator[Counting]:
    broadcast = Counting()
    if request.param == "io_uring" and (problem := broadcast.open()) is not None:
        pytest.skip(f"io_uring: {problem}")
    yield broadcast
    broadcast.close()


async def many(
    node: Node, qos: int, *, topic: str = "a", last_expiry: int = 0, last_takes: int | None = None
) -> list[Client]:
    """Clients that hear a topic in the same way, more than a few."""
    clients = []
    for n in range(FEW + 1):
        last = n == FEW
        client, _ = await Client.connect(
            node.port, f"c{n}", expiry=last_expiry * last, maximum_packet_size=last_takes if last else None
        )
        await client.subscribe(topic, qos=qos)
        clients.append(client)
    return clients


async def heard(client: Client, count: int) -> list[object]:
    return [json.loads((await client.receive()).payload)["data"] for _ in range(count)]


@pytest.mark.parametrize("qos", [0, 1])
async def test_many_that_are_alike_are_written_to_together(broadcast: Counting, qos: int) -> None:
    async with running_edge(broadcast=broadcast) as node:
        clients = await many(node, qos)
        for n in range(3):
            await node.publish("a", n)
        assert await heard(clients[0], 3) == [0, 1, 2]
        await clients[0].disconnect()
        for n in range(3, 6):
            await node.publish("a", n)
        assert [await heard(client, 6) for client in clients[1:]] == [[0, 1, 2, 3, 4, 5]] * FEW
        assert broadcast.to_groups == 3  # then they were few
        assert node.edge.stats.sent[qos] == 3 * (FEW + 1) + 3 * FEW


@pytest.mark.parametrize("qos", [0, 1])
async def test_events_committed_together_are_joined_for_each_of_many(broadcast: Counting, qos: int) -> None:
    async with running_edge(broadcast=broadcast) as node:
        clients = await many(node, qos)
        for published in [node.publish_soon("a", n) for n in range(3)]:
            await published
        assert [await heard(client, 3) for client in clients] == [[0, 1, 2]] * (FEW + 1)
        assert broadcast.to_groups == 0


@pytest.mark.parametrize("qos", [0, 1])
async def test_one_of_many_that_is_behind_gets_all_in_order(broadcast: Counting, qos: int) -> None:
    async with running_edge(broadcast=broadcast) as node:
        clients = await many(node, qos)
        await node.publish("a", 0)
        reader = node.edge.connected[f"c{FEW}"].reader
        reader.pause()
        await node.publish("a", 1)
        reader.resume()
        assert [await heard(client, 2) for client in clients] == [[0, 1]] * (FEW + 1)
        assert broadcast.to_groups == 1


@pytest.mark.parametrize("qos", [0, 1])
async def test_what_waits_for_one_of_many_comes_before_the_event(
    broadcast: Counting, qos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(broadcast=broadcast) as node:
        clients = await many(node, qos)
        connection = node.edge.connected["c0"]
        deliver = node.edge.fanout.deliver

        def answer_and_deliver(record: Record) -> None:
            connection.data_received(encode(Pingreq(), V5))
            deliver(record)

        monkeypatch.setattr(node.edge.fanout, "deliver", answer_and_deliver)
        await node.publish("a", 0)
        await clients[0].expect(Pingresp)
        assert [await heard(client, 1) for client in clients] == [[0]] * (FEW + 1)
        assert broadcast.to_groups == 0


@pytest.mark.parametrize("qos", [0, 1])
async def test_one_of_many_that_takes_small_packets_only(broadcast: Counting, qos: int) -> None:
    async with running_edge(broadcast=broadcast) as node:
        clients = await many(node, qos, last_takes=1000)
        for data in (0, "x" * 2000, 2):
            await node.publish("a", data)
        assert [await heard(client, 3) for client in clients[:-1]] == [[0, "x" * 2000, 2]] * FEW
        assert await heard(clients[-1], 2) == [0, 2]
        assert broadcast.to_groups == 2
        assert node.edge.stats.too_large == 1


async def test_place_of_one_of_many_is_kept_where_its_session_is(broadcast: Counting) -> None:
    """Events at QoS 0 that are logged, as the topic map says: the absent get them, and who had them not again."""
    topic = "crm/leads/1/updated"
    async with running_edge(broadcast=broadcast) as node:
        clients = await many(node, 1, topic=topic, last_expiry=600)
        for n in range(2):
            await node.publish(topic, n, qos=0)
        assert [await heard(client, 2) for client in clients] == [[0, 1]] * (FEW + 1)
        await clients[-1].drop()
        back, answer = await Client.connect(node.port, f"c{FEW}", clean=False, expiry=600)
        assert answer.session_present
        await node.publish(topic, 2)
        assert await heard(back, 1) == [2]
        assert broadcast.to_groups == 1  # the last


@pytest.mark.parametrize("seed", range(8))
async def test_who_hears_a_topic_while_subscriptions_come_and_go(seed: int) -> None:
    """Topics that match the same filters share a plan, and no longer than they do."""
    draw = random.Random(seed)
    topics = ["a/1", "a/2", "b/1", "b/2", "a", "$a/1"]
    filters = ["a/+", "a/1", "a/#", "+/1", "#", "b/2"]
    async with running_edge() as node:
        clients = [(await Client.connect(node.port, f"c{n}"))[0] for n in range(3)]
        subscribed: list[set[str]] = [set() for _ in clients]
        expected: list[list[object]] = [[] for _ in clients]
        got: list[list[object]] = [[] for _ in clients]
        for n in range(60):
            who = draw.randrange(len(clients))
            mine, filter_ = subscribed[who], draw.choice(filters)
            if draw.random() < 0.4:
                if filter_ in mine:
                    mine.remove(filter_)
                    await clients[who].unsubscribe(filter_)
                else:
                    mine.add(filter_)
                    await clients[who].subscribe(filter_, qos=0)
                continue
            topic = draw.choice(topics)
            await node.publish(topic, n)
            for wanted, heard_by, client, filters_of in zip(expected, got, clients, subscribed, strict=True):
                if any(matches(each, topic) for each in filters_of):
                    wanted.append([topic, n])
                    packet = await client.receive()
                    heard_by.append([packet.topic, json.loads(packet.payload)["data"]])
        assert got == expected
        assert sum(map(len, got)) > 20
        for client in clients:
            await client.nothing_more()
