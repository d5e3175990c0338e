"""What the standard forbids closes the connection that it came on, and touches nobody else."""

from __future__ import annotations

import pytest

from gapless.mqtt import Connack, Disconnect, ProtocolVersion, Publish, ReasonCode
from tests.mqtt.raw import connect, frame, props, publish, subscribe, text, unsubscribe
from tests.mqtt_conformance.desk import Desk, read_to_end
from tests.mqtt_conformance.tags import V5, V311, shows
from tests.mqtt_edge.support import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

MALFORMED, PROTOCOL = ReasonCode.MALFORMED_PACKET, ReasonCode.PROTOCOL_ERROR
TOPIC, FILTER = ReasonCode.TOPIC_NAME_INVALID, ReasonCode.TOPIC_FILTER_INVALID


def _violations(version: ProtocolVersion) -> dict[str, tuple[bytes, ReasonCode]]:
    return {
        "qos 3": (publish(version, flags=6, packet_id=b"\0\1"), MALFORMED),
        "wildcard in a topic": (publish(version, topic="a/#"), TOPIC),
        "surrogate": (publish(version, topic=b"\xed\xa0\x80"), MALFORMED),
        "null": (publish(version, topic=b"a\0"), MALFORMED),
        "packet id 0": (publish(version, flags=2, packet_id=b"\0\0"), PROTOCOL),
        "flags": (subscribe(version, ("a", 0), first=0x80), MALFORMED),
        "no filter": (unsubscribe(version), PROTOCOL),
        "wrong filter": (subscribe(version, ("a#", 0)), FILTER),
        "reserved type": (b"\x00\x00", MALFORMED),
        "a server's packet": (b"\xd0\x00", PROTOCOL),
        "endless length": (b"\x30\xff\xff\xff\xff\xff", MALFORMED),
        "second connect": (connect(version), PROTOCOL),
        "disconnect flags": (b"\xe1\x00", MALFORMED),
    }


CASES = {
    V311: ("3.1.1:MQTT-4.8.0-1", _violations(V311)),
    V5: ("5:MQTT-4.13.1-1,MQTT-4.13.2-1,MQTT-3.14.4-1,MQTT-3.14.4-2", _violations(V5)),
}


@pytest.mark.parametrize(
    ("version", "raw", "reason"),
    [
        pytest.param(version, raw, reason, id=f"{statements} {name}")
        for version, (statements, cases) in CASES.items()
        for name, (raw, reason) in cases.items()
    ],
)
async def test_a_violation_closes_its_own_connection(
    desk: Desk, version: ProtocolVersion, raw: bytes, reason: ReasonCode
) -> None:
    bystander = await desk.client("bystander", version)
    await bystander.subscribe(desk.topic("a"), qos=1)
    client = await desk.client("c", version)
    before = Publish(desk.topic("a"), b"before", qos=1, packet_id=9)
    client.send(before)
    client.send_bytes(raw)
    client.send_bytes(publish(version, topic=desk.topic("a"), payload=b"after"))
    *_, last = [None, *await read_to_end(client)]
    if version is V5:
        assert isinstance(last, Disconnect)
        assert last.reason_code is reason
    else:
        assert not isinstance(last, Disconnect)
    assert (await bystander.receive()).payload == b"before"
    await bystander.nothing_more()


@pytest.mark.parametrize(
    ("version", "raw", "reason"),
    [
        pytest.param(V311, connect(V311, flags=3), None, id="3.1.1:MQTT-3.1.4-1,MQTT-3.1.2-3"),
        pytest.param(V311, b"\xc0\x00", None, id="3.1.1:MQTT-3.1.0-1"),
        pytest.param(V311, connect(V311, name=b"HTTP"), None, id="3.1.1:MQTT-3.1.2-1"),
        pytest.param(
            V311,
            connect(V311, level=9),
            ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
            id="3.1.1:MQTT-3.1.2-2,MQTT-3.2.2-4,MQTT-3.2.2-5",
        ),
        pytest.param(V5, connect(V5, flags=3), MALFORMED, id="5:MQTT-3.1.4-1,MQTT-3.1.2-3,MQTT-3.14.0-1"),
        pytest.param(
            V5,
            frame(0x10, text("MQTT") + b"\x05\x02\0\0" + props(b"\x21\0\0") + text("c")),
            PROTOCOL,
            id="5:MQTT-3.1.4-1,MQTT-3.2.2-6,MQTT-3.2.2-7,MQTT-3.14.0-1",
        ),
        pytest.param(V5, b"\xc0\x00", None, id="5:MQTT-3.1.0-1,MQTT-3.14.0-1"),
        pytest.param(V5, b"\xe0\x00", None, id="5:MQTT-3.1.0-1,MQTT-3.14.0-1 DISCONNECT"),
    ],
)
async def test_a_wrong_beginning(desk: Desk, version: ProtocolVersion, raw: bytes, reason: ReasonCode | None) -> None:
    bystander = await desk.client("bystander", version)
    level_of_5 = raw[8:9] == b"\x09"  # answered in the form of 5, the newest one that the server knows
    client = await Client.open(desk.port, V5 if level_of_5 else version)
    client.send_bytes(raw)
    packets = await read_to_end(client)
    if reason is None:
        assert packets == []
    else:
        (connack,) = packets
        assert isinstance(connack, Connack)
        assert connack.reason_code is reason
        assert not connack.session_present
    await bystander.nothing_more()


@shows("3.14.1-1", "3.14.2-1 3.14.4-2")
async def test_a_right_disconnect_closes_without_an_answer(desk: Desk, version: ProtocolVersion) -> None:
    client = await desk.client("c", version)
    client.send(Disconnect())
    assert await read_to_end(client) == []


@pytest.mark.parametrize("version", [pytest.param(V5, id="5:3.14.2.2.2")])
async def test_a_session_that_ends_cannot_be_prolonged(desk: Desk, version: ProtocolVersion) -> None:
    from gapless.mqtt import Properties

    client = await desk.client("c", version)
    client.send(Disconnect(properties=Properties(session_expiry_interval=10)))
    await client.expect_closed(ReasonCode.PROTOCOL_ERROR)
