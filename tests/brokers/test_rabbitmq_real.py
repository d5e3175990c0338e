"""The real RabbitMQ with its MQTT plugin asks the real gateway. One start for all of it: a start takes long."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from gapless.auth import AuthOptions
from gapless.brokers import BrokerAuthOptions
from gapless.config import Settings
from gapless.gateway.app import Gateway
from gapless.link import LinkError, LinkOptions
from gapless.mqtt import ProtocolVersion
from gapless.testing import free_port
from tests.brokers.client import PATIENCE, Client
from tests.brokers.desk import KEY, SECRET, token
from tests.brokers.rabbitmq import RabbitMq, run_rabbitmq

SALES = token("7", "SALES", rooms=["lead:1"])
ADMIN = token("1", "ADMIN")


async def come_in(broker: RabbitMq, user: str, password: str, client_id: str, *, keep: bool = False) -> Client:
    return await Client.connect(broker.url, user, password, client_id, version=ProtocolVersion.V311, keep=keep)


async def check_who_comes_in(broker: RabbitMq) -> None:
    for user, password, client_id in (
        ("7", "nonsense", "7~phone"),
        ("8", SALES, "8~phone"),
        ("7", SALES, "8~phone"),
        ("7", token("7", expires_in=-10), "7~phone"),
    ):
        with pytest.raises(LinkError):
            await come_in(broker, user, password, client_id)
    (await come_in(broker, "7~x1", SALES, "7~phone")).close()


async def check_what_is_heard(broker: RabbitMq, gateway: Gateway) -> None:
    """Through the link, from the gateway's own doors."""
    client = await come_in(broker, "7", SALES, "7~phone", keep=True)
    assert await client.subscribe("crm/leads/1/updated", "crm/notifications/+") == [True, True]
    for lead in ("2", "1"):
        await gateway.publish(type="lead:updated", data={"leadId": lead, "name": "Acme"})
    message = await client.hear("crm/leads/1/updated")
    assert b"Acme" in message.payload
    assert all(each.topic != "crm/leads/2/updated" for each in client.heard)
    client.close()


async def check_what_may_not_be_heard(broker: RabbitMq) -> None:
    for number, topic_filter in enumerate(("#", "crm/leads/+/updated", "crm/leads/2/updated", "crm/notifications/#")):
        client = await come_in(broker, "7", SALES, f"7~d{number}")
        subscribing = asyncio.create_task(client.subscribe(topic_filter))
        ending = asyncio.create_task(client.wait_ended())
        await asyncio.wait({subscribing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if subscribing.done():  # refused in SUBACK, or by the end of the connection: both are known of RabbitMQ
            assert subscribing.result() == [False]
        subscribing.cancel()
        ending.cancel()
        await asyncio.gather(subscribing, ending, return_exceptions=True)
        client.close()


async def check_what_is_said(broker: RabbitMq) -> None:
    admin = await come_in(broker, "1", ADMIN, "1~desk")
    assert await admin.subscribe("crm/users/+/presence") == [True]
    client = await come_in(broker, "7", SALES, "7~tablet")
    assert await client.publish("crm/users/7/presence", b"mine")
    await admin.hear("crm/users/7/presence")
    publishing = asyncio.create_task(client.publish("crm/users/8/presence", b"another's"))
    await client.wait_ended()  # MQTT 3.1.1 has no other way to refuse it
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    client = await come_in(broker, "7", SALES, "7~tablet")
    assert await client.publish("crm/users/7/presence", b"last")
    await admin.hear("crm/users/7/presence", b"last")
    assert all(each.topic == "crm/users/7/presence" for each in admin.heard)
    admin.close()
    client.close()


async def check_the_end_of_access(broker: RabbitMq, gateway: Gateway) -> None:
    """A connection lasts at RabbitMQ, and what it subscribed to goes on; what it asks for next is denied."""
    short = token("9", "ADMIN", jti="to-be-revoked")
    client = await come_in(broker, "9", short, "9~desk")
    assert await client.subscribe("crm/leads/+/created") == [True]
    async with httpx.AsyncClient(base_url=gateway.http_url, headers={"authorization": f"Bearer {ADMIN}"}) as http:
        answer = await http.post("/api/admin/revocations", json={"token": "to-be-revoked"})
        assert answer.status_code == 201, answer.text
    await gateway.publish(type="lead:created", data={"leadId": "5"})
    await client.hear("crm/leads/5/created")
    publishing = asyncio.create_task(client.publish("crm/leads/1/created"))
    await client.wait_ended()
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    with pytest.raises(LinkError):
        await come_in(broker, "9", short, "9~desk")


@pytest.mark.needs_rabbitmq
@pytest.mark.timeout(150)
async def test_rabbitmq_obeys_the_gateways_rules(tmp_path: Path) -> None:
    port, own_port = free_port(), free_port()
    settings = Settings(
        port=own_port,
        mqtt_port=None,
        data=None,
        auth=AuthOptions(secret=KEY),
        broker_auth=BrokerAuthOptions(secret=SECRET),
        link=LinkOptions(
            url=f"mqtt://gateway:its-password@127.0.0.1:{port}", reconnect_min=0.1, reconnect_max=0.5, publish_as=()
        ),
    )
    asks = f"http://127.0.0.1:{own_port}/broker-auth/{SECRET}/rabbitmq"
    # The broker first, which takes seconds: a link that came earlier could meet another test's server on its port,
    # which speaks MQTT 5, and would then rightly not believe that the broker does not.
    async with run_rabbitmq(tmp_path, port=port, asks=asks) as broker:
        async with Gateway(settings) as gateway:
            assert gateway.link is not None
            async with asyncio.timeout(PATIENCE):
                await gateway.link.wait_connected()  # by its own account, which the gateway itself lets in
            assert gateway.link.state.error == ""
            await check_who_comes_in(broker)
            await check_what_is_heard(broker, gateway)
            await check_what_may_not_be_heard(broker)
            await check_what_is_said(broker)
            await check_the_end_of_access(broker, gateway)
            assert gateway.brokers is not None
            assert gateway.brokers.door is not None
            assert not [key for key in gateway.brokers.door.answers if key[2] in ("malformed", "stranger", "failed")]
