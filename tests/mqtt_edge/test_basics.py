"""CONNECT, SUBSCRIBE, PUBLISH at each QoS, both versions."""

from __future__ import annotations

import json

import pytest

from gapless.mqtt import ProtocolVersion, Publish, ReasonCode
from tests.mqtt_edge.support import V5, V311, Client, properties_of, running_edge

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_publish_reaches_a_subscriber(version: ProtocolVersion, qos: int) -> None:
    async with running_edge() as node:
        subscriber, _ = await Client.connect(node.port, "sub", version)
        suback = await subscriber.subscribe("crm/leads/+/created", qos=qos)
        assert suback.reason_codes == [ReasonCode(qos)]
        publisher, _ = await Client.connect(node.port, "pub", version)
        await publisher.publish("crm/leads/7/created", b'{"a": 1}', qos=qos)
        got = await subscriber.receive()
        assert (got.topic, got.payload, got.qos, got.retain, got.dup) == (
            "crm/leads/7/created",
            b'{"a": 1}',
            qos,
            False,
            False,
        )
        if version is V5:
            assert properties_of(got)["type"] == "lead:created"
            assert properties_of(got)["position"] == node.hub.position(1)
        await subscriber.nothing_more()
        await publisher.nothing_more()


@VERSIONS
async def test_an_event_of_another_door_comes_as_the_envelope(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        subscriber, _ = await Client.connect(node.port, "sub", version)
        await subscriber.subscribe("crm/#")
        accepted = await node.publish("crm/leads/7/updated", {"name": "Acme"})
        got = await subscriber.receive()
        body = json.loads(got.payload)
        assert body["id"] == accepted.id
        assert body["data"] == {"name": "Acme"}
        assert body["leadId"] == "7"
        assert body["position"] == accepted.position
        assert got.qos == 1


@VERSIONS
async def test_100_messages_in_order(version: ProtocolVersion) -> None:
    async with running_edge() as node:
        subscriber, _ = await Client.connect(node.port, "sub", version)
        await subscriber.subscribe("a/b", qos=1)
        publisher, _ = await Client.connect(node.port, "pub", version)
        publisher.send(*(Publish("a/b", b"%d" % n, qos=1, packet_id=n) for n in range(1, 101)))
        for n in range(1, 101):
            assert (await subscriber.receive()).payload == b"%d" % n
