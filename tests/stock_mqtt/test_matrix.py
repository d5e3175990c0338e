"""Stock clients, each version, transport and QoS: what they publish is what they receive."""

from __future__ import annotations

import pytest

from tests.stock_mqtt.stock import Kind, Message, take

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_content_order_and_properties(kind: Kind, qos: int) -> None:
    subscriber = await kind.connect("sub")
    await subscriber.subscribe(kind.topic("+/b"), qos)
    publisher = await kind.connect("pub")
    sent = [
        Message(
            kind.topic("a/b"),
            f"{n} grüße {'x' * n * 50}".encode(),
            qos,
            content_type="text/plain",
            properties=(("b", "1"), ("b", "2"), ("a", "3")),
        )
        for n in range(20)
    ]
    await publisher.publish(sent)
    got = await take(subscriber, len(sent))
    assert [(one.topic, one.payload, one.qos, one.retain) for one in got] == [
        (one.topic, one.payload, one.qos, False) for one in sent
    ]
    if kind.version == "5":
        for one in got:
            assert one.content_type == "text/plain"
            assert [pair for pair in one.properties if pair[0] in ("a", "b")] == [("b", "1"), ("b", "2"), ("a", "3")]
            assert {"id", "type", "time"} <= {name for name, _ in one.properties}


async def test_a_session_that_stays(kind: Kind) -> None:
    absent = await kind.connect("absent", stays=True)
    await absent.subscribe(kind.topic("a"), 1)
    await absent.drop()
    await kind.left("absent")
    publisher = await kind.connect("pub")
    sent = [Message(kind.topic("a"), b"%d" % n, 1) for n in range(50)]
    await publisher.publish(sent)
    await publisher.publish([Message(kind.topic("marker"), b"", 1)])

    back = await kind.connect("absent", stays=True)
    assert back.session_present is not False
    if kind.name == "mosquitto":  # it has to name a subscription to connect at all
        await back.subscribe(kind.topic("a"), 1)
    assert [(one.payload, one.qos) for one in await take(back, 50)] == [(one.payload, 1) for one in sent]


async def test_retained_messages(kind: Kind) -> None:
    publisher = await kind.connect("pub")
    for name, payload in [("a", b"old"), ("a", b"new"), ("b", b"other")]:
        await publisher.publish([Message(kind.topic(name), payload, 1, retain=True)])
    await publisher.end()
    await kind.left("pub")
    subscriber = await kind.connect("sub")
    await subscriber.subscribe(kind.topic("+"), 1)
    got = await take(subscriber, 2)
    assert {(one.topic, one.payload, one.retain) for one in got} == {
        (kind.topic("a"), b"new", True),
        (kind.topic("b"), b"other", True),
    }


async def test_a_will(kind: Kind) -> None:
    watcher = await kind.connect("watcher")
    await watcher.subscribe(kind.topic("will/+"), 1)
    polite = await kind.connect("polite", will=(kind.topic("will/polite"), b"wrong"))
    await polite.end()
    await kind.left("polite")
    mortal = await kind.connect("mortal", will=(kind.topic("will/mortal"), b"gone"))
    await mortal.drop()
    (got,) = await take(watcher, 1)
    assert (got.topic, got.payload, got.qos) == (kind.topic("will/mortal"), b"gone", 1)
