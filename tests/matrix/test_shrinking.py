"""Rights that shrink while clients are connected, and while they are away: on every door, with the real gate.

Once the application says so (`recheck`), and once it says nothing, and its answer's life ends.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import httpx
import msgspec
import pytest
import socketio

from gapless.auth import AskOptions, AuthOptions, Identity, PolicyGate
from gapless.auth.policy import Question
from gapless.config import Settings
from gapless.gateway import Gateway
from gapless.mqtt import (
    Auth,
    Connack,
    Connect,
    Properties,
    ProtocolVersion,
    Publish,
    ReasonCode,
    Suback,
    Subscribe,
    SubscriptionRequest,
)
from gapless.topicmap import Row, TopicMap
from gapless.topicmap.rules import RoomRule
from gapless.transports.mqtt.access import METHOD
from tests.http.conftest import SseReader
from tests.matrix.people import SECRET, token
from tests.mqtt_edge.support import V5, V311, Client, close_clients, until

SECRET_ROOM, OPEN_ROOM = "r:1", "r:2"
TOPIC, MARKER = "t/1/e", "t/2/e"
VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


class Site:
    """A gateway whose application says who hears what, and changes its mind."""

    def __init__(self, stack: AsyncExitStack, *, told: bool) -> None:
        self.told = told
        self.allowed = {SECRET_ROOM, OPEN_ROOM}
        self.stack = stack
        self.token = token(user="7")
        self.bearer = {"authorization": f"Bearer {self.token}"}
        self.gateway: Gateway

    async def ask(self, identity: Identity, question: Question) -> bool:
        return question.subject in self.allowed

    async def open(self) -> None:
        topics = TopicMap([Row("t/{x}/e", "e", ("r:{x}",))], rooms=[RoomRule("r:{x}", ("ask",))])
        settings = Settings(port=0, mqtt_port=0, data=None, auth=AuthOptions(secret=SECRET))
        self.gateway = await self.stack.enter_async_context(Gateway(settings, topic_map=topics, ask=self.ask))
        self.http = await self.stack.enter_async_context(
            httpx.AsyncClient(base_url=self.gateway.http_url, headers=self.bearer, timeout=20, trust_env=False)
        )

    async def shrink(self) -> None:
        self.allowed = {OPEN_ROOM}
        gate = self.gateway.gate
        assert isinstance(gate, PolicyGate)
        if self.told:
            gate.recheck("7")
            return
        application = gate.application
        for _ in range(2):  # what nobody hears now is asked about when it is wanted again
            now = application.clock() + AskOptions().allow_seconds * 0.91
            application.clock = lambda now=now: now  # type: ignore[misc]
            gate.renewals.turn()
            await gate.renewals.settled()

    async def publish(self) -> None:
        """What it may hear no more, then what it may."""
        await self.gateway.publish(topic=TOPIC, data={"secret": True})
        await self.gateway.publish(topic=MARKER, data={"secret": False})


class SlowSite(Site):
    """Its application answers once it may."""

    async def open(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Event()
        await super().open()

    async def ask(self, identity: Identity, question: Question) -> bool:
        self.asked.set()
        await self.may_answer.wait()
        return await super().ask(identity, question)

    async def look_again(self) -> None:
        """Until it is asked about what somebody hears."""
        gate = self.gateway.gate
        assert isinstance(gate, PolicyGate)
        self.may_answer.clear()
        self.asked.clear()
        gate.recheck("7")
        await self.asked.wait()


@pytest.fixture(params=[True, False], ids=["told", "not told"])
async def site(request: pytest.FixtureRequest) -> Any:
    async with AsyncExitStack() as stack:
        site = Site(stack, told=request.param)
        await site.open()
        yield site
    await close_clients()


async def mqtt(site: Site, version: ProtocolVersion) -> tuple[Client, Connack]:
    assert site.gateway.mqtt_url is not None
    client = await Client.open(int(site.gateway.mqtt_url.rpartition(":")[2]), version)
    connect = Connect("phone", version, clean_start=False, username="u", password=site.token.encode())
    client.send(connect if version is V311 else with_expiry(connect))
    return client, await client.expect(Connack)


def with_expiry(connect: Connect) -> Connect:
    return msgspec.structs.replace(connect, properties=Properties(session_expiry_interval=600))


@VERSIONS
@pytest.mark.parametrize(
    "filters",
    [(TOPIC, MARKER), (f"$share/g/{TOPIC}", f"$share/g/{MARKER}"), (f"$room/{SECRET_ROOM}", f"$room/{OPEN_ROOM}")],
    ids=["topics", "shared", "rooms"],
)
@pytest.mark.parametrize("away", [False, True], ids=["connected", "away"])
async def test_mqtt(site: Site, version: ProtocolVersion, filters: tuple[str, str], away: bool) -> None:
    client, _ = await mqtt(site, version)
    for number, name in enumerate(filters, 1):
        client.send(Subscribe(number, [SubscriptionRequest(name, 1)]))
        assert not (await client.expect(Suback)).reason_codes[0].is_failure
    if away:
        await client.drop()
        await until(lambda: site.gateway.mqtt.stats.sessions_away == 1)
        await site.publish()
        await site.shrink()
    else:
        await site.shrink()
        while await client.next() is not None:  # DISCONNECT, and nothing of an event
            pass
        await site.publish()
    again, connack = await mqtt(site, version)
    assert connack.session_present
    heard = await again.expect(Publish)
    assert (heard.topic, json.loads(heard.payload)["data"]) == (MARKER, {"secret": False})
    await again.acknowledge(heard)
    await again.nothing_more()


@pytest.mark.parametrize("away", [False, True], ids=["connected", "away"])
async def test_socketio(site: Site, away: bool) -> None:
    heard: list[Any] = []
    client = socketio.AsyncClient(reconnection=False)
    client.on("*", lambda event, data, *rest: heard.append((event, data)))
    await client.connect(site.gateway.http_url, auth={"token": site.token}, transports=["websocket"])
    answer = await client.call("subscribe", {"rooms": [SECRET_ROOM, OPEN_ROOM]})
    assert answer["ok"]
    if away:
        (pid,) = (each.pid for each in site.gateway.socketio._clients.values())
        await client.eio.disconnect()
        await until(lambda: site.gateway.socketio.connections == 0)
        await site.publish()
        await site.shrink()
        client = socketio.AsyncClient(reconnection=False)
        client.on("*", lambda event, data, *rest: heard.append((event, data)))
        auth = {"token": site.token, "pid": pid, "offset": answer["position"]}
        await client.connect(site.gateway.http_url, auth=auth, transports=["websocket"])
    else:
        await site.shrink()
        await until(lambda: bool(heard))
        await site.publish()
    await until(lambda: any(event == "e" for event, _ in heard))
    assert heard == [("gapless:revoked", {"rooms": [SECRET_ROOM]}), ("e", {"secret": False, "x": "2"})]
    await client.disconnect()


async def test_server_sent_events(site: Site) -> None:
    url = f"/api/stream?rooms={SECRET_ROOM},{OPEN_ROOM}"
    async with site.http.stream("GET", url) as response:
        events = SseReader(response)
        await events.next()
        await site.shrink()
        assert (await events.next())[:2] == ("gapless.revoked", {"rooms": [SECRET_ROOM]})
        await site.publish()
        assert (await events.event())["topic"] == MARKER
    assert (await site.http.get(url, headers={"last-event-id": site.gateway.hub.position()})).status_code == 403


async def test_history(site: Site) -> None:
    await site.publish()
    page = f"/api/events?rooms={SECRET_ROOM},{OPEN_ROOM}&after=start"
    assert len((await site.http.get(page)).json()["events"]) == 2
    await site.shrink()
    assert (await site.http.get(page)).status_code == 403
    assert (await site.http.get(f"/api/connect?rooms={SECRET_ROOM}")).status_code == 403
    (event,) = (await site.http.get(f"/api/events?rooms={OPEN_ROOM}&after=start")).json()["events"]
    assert event["topic"] == MARKER


async def test_a_poll_that_waits(site: Site) -> None:
    url = f"/api/events?rooms={SECRET_ROOM},{OPEN_ROOM}&wait=20"
    polling = asyncio.create_task(site.http.get(url))
    await until(lambda: site.gateway.http.polling.waiting == 1)
    await site.shrink()
    answer = await polling
    assert answer.status_code == 403
    assert (await site.http.get(f"/api/presence?room={SECRET_ROOM}")).status_code == 403


async def test_who_is_present(site: Site) -> None:
    told: list[Any] = []
    client = socketio.AsyncClient(reconnection=False)
    client.on("*", lambda event, *data: told.append((event, *data)))
    await client.connect(site.gateway.http_url, auth={"token": site.token}, transports=["websocket"])
    assert (await client.call("presence", {"rooms": [SECRET_ROOM]}))["ok"]
    await site.shrink()
    site.gateway.presence.entered(Identity(user_id="8"), [SECRET_ROOM])
    await until(lambda: bool(told))
    assert told == [("gapless:revoked", {"rooms": [SECRET_ROOM]})]
    await client.disconnect()


async def test_a_fresh_token_while_rights_are_looked_at_costs_nothing() -> None:
    """The application is asked about each token by itself."""
    fresh = token(user="7", jti="fresh")
    async with AsyncExitStack() as stack:
        site = SlowSite(stack, told=True)
        await site.open()
        heard: list[Any] = []
        web = socketio.AsyncClient(reconnection=False)
        web.on("*", lambda event, data, *rest: heard.append((event, data)))
        await web.connect(site.gateway.http_url, auth={"token": site.token}, transports=["websocket"])
        assert (await web.call("subscribe", {"rooms": [OPEN_ROOM]}))["ok"]
        assert site.gateway.mqtt_url is not None
        phone = await Client.open(int(site.gateway.mqtt_url.rpartition(":")[2]), V5)
        shown = Properties(authentication_method=METHOD, authentication_data=site.token.encode())
        phone.send(Connect("phone", V5, properties=shown))
        await phone.expect(Connack)
        phone.send(Subscribe(1, [SubscriptionRequest(MARKER, 1)]))
        assert not (await phone.expect(Suback)).reason_codes[0].is_failure
        await site.look_again()
        shown = Properties(authentication_method=METHOD, authentication_data=fresh.encode())
        phone.send(Auth(ReasonCode.REAUTHENTICATE, shown))
        await phone.expect(Auth)
        assert (await web.call("authenticate", {"token": fresh}))["ok"]
        site.may_answer.set()
        await site.publish()
        assert (await phone.expect(Publish)).topic == MARKER
        await until(lambda: bool(heard))
        assert heard == [("e", {"secret": False, "x": "2"})]
        await web.disconnect()
    await close_clients()
