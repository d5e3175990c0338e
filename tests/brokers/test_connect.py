"""`GET /api/connect` hands out credentials for an external broker, and they work there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import jwt
import pytest

from gapless.auth import Acl, AuthOptions, Identity
from gapless.brokers import BrokerAuthOptions
from gapless.brokers.desk import Desk as Issuer
from gapless.brokers.options import MosquittoOptions
from gapless.client.broker import BrokerConnection, BrokerOptions
from gapless.client.model import ClientEvent, Subscribed, Target
from gapless.config import Settings
from gapless.errors import ConfigError
from gapless.gateway.app import Gateway
from gapless.link import LinkError, LinkOptions
from gapless.testing import BrokerConfig, find_mosquitto_client, run_broker
from tests.brokers.client import PATIENCE, Client
from tests.brokers.desk import KEY, Desk, token

SALES = token("7", "SALES", rooms=["lead:1"])
JWT_SECRET = "a-secret-that-emqx-knows-and-nobody-else"
URLS = ("wss://broker.example.com/mqtt",)


async def hear_with_the_python_client(url: str, answer: dict[str, Any], running: Gateway) -> list[str]:
    """What is missing from the log by way of the broker, then a live event."""
    credentials = answer["credentials"]
    account = f"{quote(credentials['username'], safe='')}:{quote(credentials['password'], safe='')}"
    target = Target(url=url.replace("://", f"://{account}@"), rooms=("lead:1",), filters=tuple(answer["filters"]))
    options = BrokerOptions(
        history_topic=answer["history_topic"],
        heartbeat_topic=answer.get("heartbeat_topic"),
        replies=answer["replies"],
        token=SALES,
        client_id=credentials["client_id"],
    )
    after = f"{running.epoch}:{running.log.head}"
    await running.publish(type="lead:updated", data={"leadId": "1", "name": "before it came"})
    names: list[str] = []
    async with asyncio.timeout(PATIENCE), aclosing(BrokerConnection(target, options).listen(after)) as listening:
        async for each in listening:
            if isinstance(each, Subscribed):
                await running.publish(type="lead:updated", data={"leadId": "1", "name": "live"})
            elif isinstance(each, ClientEvent):
                assert isinstance(each.data, dict)
                names.append(each.data["name"])
                if len(names) == 2:
                    break
    return sorted(names)


@asynccontextmanager
async def gateway(broker_auth: BrokerAuthOptions, link: LinkOptions | None = None) -> AsyncIterator[Gateway]:
    settings = Settings(
        port=0, mqtt_port=None, data=None, auth=AuthOptions(secret=KEY), broker_auth=broker_auth, link=link
    )
    async with Gateway(settings) as running:
        yield running


async def connect(running: Gateway, query: str, shown: str = SALES) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=running.http_url, headers={"authorization": f"Bearer {shown}"}) as http:
        answer = await http.get(f"/api/connect?{query}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        found: dict[str, Any] = answer.json()
        return found


async def test_the_token_itself_is_the_password_of_the_edge_and_of_brokers_that_ask() -> None:
    async with gateway(BrokerAuthOptions(urls=URLS)) as running:
        answer = await connect(running, "rooms=lead:1&client=phone")
        assert answer["mqtt"] == {
            "username": "7",
            "password": SALES,
            "client_id": "phone",
            "expires": answer["mqtt"]["expires"],
        }
        assert answer["broker"] == {"urls": list(URLS)}
        broker = (await connect(running, "rooms=lead:1&client=phone&broker=1"))["broker"]
        credentials = broker["credentials"]
        assert credentials["username"].startswith("7~")
        assert credentials["password"] == SALES
        assert credentials["client_id"] == "7~phone"
        assert broker["filters"] == ["crm/leads/1/created", "crm/leads/1/updated", "crm/leads/1/assigned"]
        other = (await connect(running, "broker=1"))["broker"]["credentials"]
        assert other["username"] != credentials["username"]
        assert other["client_id"] != "7~phone"


async def test_no_broker_no_word_of_it() -> None:
    async with gateway(BrokerAuthOptions()) as running:
        assert (await connect(running, "broker=1"))["broker"] is None


async def test_names_of_clients_are_plain() -> None:
    async with (
        gateway(BrokerAuthOptions()) as running,
        httpx.AsyncClient(base_url=running.http_url, headers={"authorization": f"Bearer {SALES}"}) as http,
    ):
        for client in ("", "a/b", "%23", "x" * 65, "a~b"):
            answer = await http.get(f"/api/connect?client={client}")
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "invalid_request"


async def test_a_token_for_emqx_says_what_it_allows() -> None:
    options: dict[str, Any] = {"urls": URLS, "credentials": "jwt", "jwt_secret": JWT_SECRET, "lifetime": 600.0}
    async with Desk(**options) as desk:
        issuer = Issuer(options=desk.options, judge=desk.judge, link=None, provision=None)
        identity = Identity(user_id="7", roles=frozenset({"SALES"}), rooms=("lead:1",), expires=time.time() + 9000)
        offer = await issuer.offer(identity, token=None, device="phone", filters=["crm/leads/5/updated"])
        assert offer is not None
        claims = jwt.decode(offer.password, JWT_SECRET, ["HS256"])
        assert (claims["sub"], claims["username"], claims["clientid"]) == ("7", "7", "7~phone")
        assert 590 < claims["exp"] - time.time() <= 600
        assert claims["exp"] == offer.expires
        granted = [
            line["topic"] for line in claims["acl"] if (line["permission"], line["action"]) == ("allow", "subscribe")
        ]
        assert granted[0] == "crm/leads/5/updated"  # what was asked for comes first, should the list be too long
        assert "crm/leads/1/updated" in granted
        assert claims["acl"][-1] == {"permission": "deny", "action": "all", "topic": "#"}
        assert offer.filters == ("crm/leads/5/updated",)
        assert "eyJ" not in repr(offer)


async def test_filters_that_a_bounded_list_leaves_out_are_not_promised() -> None:
    options: dict[str, Any] = {"urls": URLS, "credentials": "jwt", "jwt_secret": JWT_SECRET, "jwt_lines": 10}
    async with Desk(**options) as desk:
        issuer = Issuer(options=desk.options, judge=desk.judge, link=None, provision=None)
        wanted = [f"crm/leads/{number}/updated" for number in range(20)]
        offer = await issuer.offer(Identity(user_id="7"), token=None, device=None, filters=wanted)
        assert offer is not None
        assert offer.filters == tuple(wanted[:6])  # beside four lines that deny


async def test_whoever_has_no_name_has_no_credentials() -> None:
    async with Desk(urls=URLS) as desk:
        issuer = Issuer(options=desk.options, judge=desk.judge, link=None, provision=None)
        assert await issuer.offer(Identity(), token="x", device=None, filters=[]) is None
        assert await issuer.offer(Identity(user_id="7"), token=None, device=None, filters=[]) is None


@pytest.mark.needs_mosquitto
@pytest.mark.needs_dynamic_security
@pytest.mark.needs_mosquitto_clients
async def test_a_stock_client_hears_its_rooms_at_a_real_mosquitto() -> None:
    async with run_broker(BrokerConfig(dynamic_security=("control", "password"))) as broker:
        told = MosquittoOptions(url=broker.url, username="control", password="password")
        options = BrokerAuthOptions(urls=(broker.url,), credentials="mosquitto", mosquitto=told)
        async with gateway(options) as running:
            assert running.brokers is not None
            assert running.brokers.provision is not None
            async with asyncio.timeout(PATIENCE):
                await running.brokers.provision.control.wait_ready()
            assert running.status()["broker_auth"] == "ok"
            answer = (await connect(running, "rooms=lead:1,org:announcements&client=phone&broker=1"))["broker"]
            credentials = answer["credentials"]
            stock = find_mosquitto_client("mosquitto_sub")
            assert stock is not None
            admin = (await connect(running, "broker=1", token("1", "ADMIN")))["broker"]["credentials"]
            publisher = await Client.connect(broker.url, admin["username"], admin["password"], admin["client_id"])
            assert await publisher.publish("crm/leads/2/updated", b"not for 7", retain=True)
            assert await publisher.publish("crm/leads/1/updated", b"for 7", retain=True)
            publisher.close()
            login = ["-u", credentials["username"], "-P", credentials["password"], "-i", credentials["client_id"]]
            topics = [part for each in (*answer["filters"], "crm/leads/2/updated") for part in ("-t", each)]
            listening = await asyncio.create_subprocess_exec(
                *(stock, "-h", "127.0.0.1", "-p", str(broker.port), "-V", "5", "-C", "1", *login, *topics),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(PATIENCE):
                out, _ = await listening.communicate()
            assert out == b"for 7\n"
            with pytest.raises(LinkError):
                await Client.connect(broker.url, credentials["username"], SALES, credentials["client_id"])


@pytest.mark.needs_mosquitto
@pytest.mark.needs_dynamic_security
async def test_the_link_the_accounts_and_history_over_one_mosquitto() -> None:
    async with run_broker(BrokerConfig(dynamic_security=("control", "password"))) as broker:
        told = MosquittoOptions(url=broker.url, username="control", password="password")
        options = BrokerAuthOptions(urls=(broker.url,), credentials="mosquitto", mosquitto=told)
        link = LinkOptions(
            url=broker.url, username="link", password="link-password", reconnect_min=0.05, reconnect_max=0.2
        )
        async with gateway(options, link) as running:
            assert running.brokers is not None
            assert running.brokers.provision is not None
            assert running.link is not None
            async with asyncio.timeout(PATIENCE):
                await running.brokers.provision.control.wait_ready()
                acls = [
                    {"acltype": kind, "topic": topic, "allow": True}
                    for kind in ("publishClientSend", "subscribePattern")
                    for topic in ("crm/#", "gapless/#")
                ]
                role: dict[str, Any] = {"command": "createRole", "rolename": "link", "acls": acls}
                account = {"command": "createClient", "username": "link", "password": "link-password"}
                await running.brokers.provision.control.do([role, {**account, "roles": [{"rolename": "link"}]}])
                await running.link.wait_connected()
            assert running.link.state.error == ""
            answer = (await connect(running, "rooms=lead:1&client=phone&broker=1"))["broker"]
            credentials = answer["credentials"]
            client = await Client.connect(
                broker.url, credentials["username"], credentials["password"], credentials["client_id"]
            )
            assert await client.subscribe(*answer["filters"], f"{answer['replies']}/1") == [True] * 4
            await running.publish(type="lead:updated", data={"leadId": "2"})
            await running.publish(type="lead:updated", data={"leadId": "1", "name": "Acme"})
            await client.hear("crm/leads/1/updated")
            for room, found in (("lead:1", b"Acme"), ("lead:2", b'"forbidden"')):
                request = {"rooms": [room], "after": "start", "token": SALES, "replyTo": f"{answer['replies']}/1"}
                assert await client.publish(answer["history_topic"], json.dumps(request).encode())
                reply = await client.hear(f"{answer['replies']}/1")
                assert found in reply.payload
                client.heard.clear()
            client.close()
            heard = await hear_with_the_python_client(broker.url, answer, running)
            assert heard == ["before it came", "live"]


async def test_a_broker_that_is_away_is_said_to_be_and_the_rest_is_answered() -> None:
    told = MosquittoOptions(url="mqtt://127.0.0.1:1", username="control", password="password")
    options = BrokerAuthOptions(urls=URLS, credentials="mosquitto", mosquitto=told)
    async with gateway(options) as running:
        answer = await connect(running, "rooms=lead:1&broker=1")
        assert answer["broker"]["error"]["code"] == "broker_unavailable"
        assert answer["broker"]["error"]["retryable"] is True
        assert answer["rooms"][0]["filters"]
        assert running.status()["broker_auth"] != "ok"


async def test_brokers_ask_at_the_gateways_port() -> None:
    async with gateway(BrokerAuthOptions(secret="x" * 32)) as running, httpx.AsyncClient() as http:
        url = f"{running.http_url}/broker-auth/{'x' * 32}/rabbitmq/user"
        fields = {"username": "7", "password": SALES, "vhost": "/", "client_id": "7~phone"}
        assert (await http.post(url, data=fields)).text == "allow"
        assert (await http.post(url, data={**fields, "password": "no"})).text == "deny"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"urls": ("http://broker",)}, "urls"),
        ({"urls": ("mqtt://user:password@broker",)}, "urls"),
        ({"credentials": "jwt", "jwt_secret": "short"}, "jwt_secret"),
        ({"lifetime": 1.0}, "lifetime"),
    ],
)
def test_options_that_cannot_work_stop_the_start(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        BrokerAuthOptions(**options)


def test_rights_survive_being_added_to() -> None:
    assert Acl(("a/+",), (), True).with_more(subscribe=["a/b", "c"]).subscribe == ("a/+", "c")
