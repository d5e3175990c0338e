"""The MQTT client against a real foreign broker; against the edge it is tested through the command line."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from gapless.client import (
    ClientEvent,
)
from gapless.client.mqtt import MqttConnection, MqttPublisher
from gapless.client.single import (
    Alive,
    ConnectionLost,
    Heard,
    Outgoing,
    Reconnecting,
    Refused,
    Subscribed,
    Target,
    follow,
)
from gapless.testing import Broker, BrokerConfig, Link, make_certificates, run_broker

pytestmark = pytest.mark.needs_mosquitto


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with run_broker(BrokerConfig(websocket=True)) as running:
        yield running


def outgoing(number: int, topic: str = "t/1", **fields: Any) -> Outgoing:
    return Outgoing(id=f"id-{number}", topic=topic, data={"n": number}, **fields)


async def hear(connection: MqttConnection, count: int, subscribed: asyncio.Event) -> list[ClientEvent]:
    found: list[ClientEvent] = []
    async with aclosing(connection.listen(None)) as signals:
        async for signal in signals:
            match signal:
                case Subscribed():
                    subscribed.set()
                case ClientEvent():
                    found.append(signal)
                    if len(found) == count:
                        break
                case Alive():
                    continue
                case _:
                    pytest.fail(f"unexpected {signal}")
    return found


@pytest.mark.parametrize("scheme", ["mqtt", "ws"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_hears_what_is_published_at_each_qos(broker: Broker, scheme: str, qos: int) -> None:
    url = broker.url if scheme == "mqtt" else broker.ws_url
    subscribed = asyncio.Event()
    hearing = asyncio.create_task(hear(MqttConnection(Target(url=url, filters=("t/+",), qos=qos)), 3, subscribed))
    await subscribed.wait()
    async with MqttPublisher(url, qos=qos) as publisher:
        answers = await publisher.publish([outgoing(n) for n in range(3)])
        events = await hearing
    assert [answer.id for answer in answers] == ["id-0", "id-1", "id-2"]
    assert [(event.id, event.topic, event.data) for event in events] == [(f"id-{n}", "t/1", {"n": n}) for n in range(3)]
    assert {event.position for event in events} == {None}


async def test_more_than_it_holds_for_a_slow_caller_waits_in_the_socket_and_all_arrives_in_order(
    broker: Broker,
) -> None:
    subscribed, go = asyncio.Event(), asyncio.Event()
    total = 3000

    async def slowly() -> list[int]:
        numbers: list[int] = []
        async with aclosing(MqttConnection(Target(url=broker.url, filters=("t/1",), qos=0)).listen(None)) as signals:
            async for signal in signals:
                if isinstance(signal, Subscribed):
                    subscribed.set()
                    await go.wait()
                elif isinstance(signal, ClientEvent):
                    numbers.append(signal.data["n"])
                    if len(numbers) == total:
                        break
        return numbers

    hearing = asyncio.create_task(slowly())
    await subscribed.wait()
    async with MqttPublisher(broker.url) as publisher:
        await publisher.publish([outgoing(n) for n in range(total)])
    go.set()
    assert await hearing == list(range(total))


async def test_a_retained_message_comes_first_and_is_marked(broker: Broker) -> None:
    async with MqttPublisher(broker.url) as publisher:
        await publisher.publish([outgoing(1, retain=True)])
    (event,) = await hear(MqttConnection(Target(url=broker.url, filters=("t/#",))), 1, asyncio.Event())
    assert event.retained
    assert event.data == {"n": 1}


async def test_a_payload_that_is_no_json_comes_as_bytes(broker: Broker) -> None:
    async with MqttPublisher(broker.url) as publisher:
        await publisher.publish([Outgoing(id="b", topic="t/1", data=b"\xff\x00", retain=True)])
    (event,) = await hear(MqttConnection(Target(url=broker.url, filters=("t/#",))), 1, asyncio.Event())
    assert event.data == b"\xff\x00"


async def test_comes_back_after_the_connection_was_cut(broker: Broker) -> None:
    heard: asyncio.Queue[Heard | Reconnecting] = asyncio.Queue()

    async def listen(url: str) -> None:
        async with aclosing(follow(MqttConnection(Target(url=url, filters=("t/1",))))) as signals:
            async for signal in signals:
                heard.put_nowait(signal)

    async with Link.to(broker.url) as link:
        hearing = asyncio.create_task(listen(link.url("mqtt")))
        assert isinstance(await heard.get(), Subscribed)
        await link.cut()
        assert isinstance(await heard.get(), Reconnecting)
        assert isinstance(await heard.get(), Subscribed)
        async with MqttPublisher(broker.url) as publisher:
            await publisher.publish([outgoing(7)])
        event = await heard.get()
        assert isinstance(event, ClientEvent)
        assert event.id == "id-7"
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


async def test_a_publish_whose_connection_is_cut_says_that_it_may_not_have_arrived(broker: Broker) -> None:
    async with Link.to(broker.url) as link, MqttPublisher(link.url("mqtt")) as publisher:
        link.blackhole()
        publishing = asyncio.create_task(publisher.publish([outgoing(1)]))
        await asyncio.sleep(0)
        await link.cut()
        with pytest.raises(ConnectionLost):
            await publishing


async def test_a_server_that_is_not_there_is_said_so() -> None:
    from gapless.testing import free_port

    url = f"mqtt://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionLost, match="refused"):
        await hear(MqttConnection(Target(url=url, filters=("t/1",))), 1, asyncio.Event())


async def test_user_and_password_of_the_url_are_shown_and_wrong_ones_are_final() -> None:
    async with run_broker(BrokerConfig(users={"ann": "p@ss"})) as broker:
        good = broker.url.replace("//", "//ann:p%40ss@")
        async with MqttPublisher(good) as publisher:
            assert await publisher.publish([outgoing(1)])
        with pytest.raises(Refused) as caught:
            await hear(MqttConnection(Target(url=broker.url, filters=("t/1",))), 1, asyncio.Event())
        assert "ot authorized" in caught.value.message
        assert "p@ss" not in repr(caught.value)


@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
async def test_speaks_tls(tmp_path: Path, scheme: str) -> None:
    certificates = make_certificates(tmp_path)
    async with run_broker(BrokerConfig(tls=certificates, websocket=True)) as broker:
        url = broker.tls_url if scheme == "mqtts" else broker.wss_url
        async with MqttPublisher(url, tls=certificates.client_context()) as publisher:
            await publisher.publish([outgoing(n, f"t/{n}", retain=True) for n in range(50)])
        connection = MqttConnection(Target(url=url, filters=("t/#",)), tls=certificates.client_context())
        events = await hear(connection, 50, asyncio.Event())
        assert {event.id for event in events} == {f"id-{n}" for n in range(50)}


# paho drops the socket of a failed TLS handshake without closing it; the collector closes it, and warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_a_certificate_that_nobody_vouches_for_is_said_so(tmp_path: Path) -> None:
    async with run_broker(BrokerConfig(tls=make_certificates(tmp_path))) as broker:
        with pytest.raises(ConnectionLost, match="certificate"):
            await hear(MqttConnection(Target(url=broker.tls_url, filters=("t/#",))), 1, asyncio.Event())
    gc.collect()  # here, where the warning is expected, and not in the next test


async def test_what_is_no_mqtt_url_is_refused() -> None:
    with pytest.raises(Refused, match="not the URL"):
        await hear(MqttConnection(Target(url="tcp://127.0.0.1:1", filters=("t/1",))), 1, asyncio.Event())
