"""Doors x identities x rooms and topics x what they do: each cell as the reference map declares, and no leak.

One gateway in this process, with the real gate. The expectations stand in `people.py`, written by hand from the
map, so that gate and test cannot be wrong in the same way; the rooms and topics come from the map itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import socketio

from gapless.auth import AuthOptions
from gapless.config import Settings
from gapless.gateway import Gateway
from gapless.mqtt import (
    Connack,
    Connect,
    ProtocolVersion,
    Publish,
    ReasonCode,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Will,
    room_filter,
)
from tests.matrix.people import SECRET, Person, people, rooms_of, strangers, topics_of
from tests.mqtt_edge.support import V5, V311, Client, close_clients, until

WILDCARDS = {
    "#": (),
    "crm/#": (),
    "crm/leads/+/updated": ("crm/leads/1/updated", "crm/leads/2/updated", "crm/leads/3/updated"),
    "crm/leads/1/+": (),
    "crm/notifications/+": ("crm/notifications/1", "crm/notifications/9"),
    "+/users/1/presence": (),
    "$SYS/#": (),
}
"""Filters, and topics that show what they cover; those with none cover more than the map, and are for a boss alone."""
CELLS = 0


def cell(got: bool, expected: bool, *what: object) -> None:
    """One cell of the matrix."""
    global CELLS
    CELLS += 1
    assert got is expected, f"{' / '.join(map(str, what))}: {'allowed' if got else 'denied'}"


@asynccontextmanager
async def running(keys: Path) -> AsyncIterator[Gateway]:
    settings = Settings(
        port=0, mqtt_port=0, data=None, auth=AuthOptions(secret=SECRET, api_keys_file=keys, max_lifetime=3600)
    )
    async with Gateway(settings) as gateway:
        yield gateway
    await close_clients()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def bearer(shown: str | None) -> dict[str, str]:
    return {} if shown is None else {"authorization": f"Bearer {shown}"}


def port_of(gateway: Gateway) -> int:
    assert gateway.mqtt_url is not None
    return int(gateway.mqtt_url.rpartition(":")[2])


async def mqtt(
    gateway: Gateway, shown: str | None, version: ProtocolVersion, client_id: str, will: Will | None = None
) -> tuple[Client, Connack]:
    client = await Client.open(port_of(gateway), version)
    name, password = (None, None) if shown is None else ("any", shown.encode())
    client.send(Connect(client_id, version, username=name, password=password, will=will))
    return client, await client.expect(Connack)


class Listener:
    """One connection of a person, and the ids of the events that it got."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[str] = []

    async def until(self, marker: str) -> None:
        await until(lambda: marker in self.heard)


async def listen_socketio(gateway: Gateway, person: Person, rooms: list[str], stack: AsyncExitStack) -> Listener:
    client = socketio.AsyncClient(reconnection=False)
    listener = Listener("socketio")
    client.on("*", lambda event, data, meta=None, position=None: listener.heard.append(meta["id"]))
    await client.connect(gateway.http_url, auth={"token": person.token}, transports=["websocket"])
    stack.push_async_callback(client.disconnect)
    for room in rooms:
        answer = await client.call("subscribe", {"rooms": [room]})
        cell(answer["ok"], person.hears_room(room), "socketio subscribe", person.name, room)
        if not answer["ok"]:
            assert answer["error"]["code"] == "forbidden"
    for topic in topics_of(gateway.topic_map):
        answer = await client.call("publish", {"topic": topic, "data": {"by": "socketio"}})
        cell(answer["ok"], person.publishes(topic), "socketio publish", person.name, topic)
    return listener


async def listen_mqtt(
    gateway: Gateway, person: Person, version: ProtocolVersion, stack: AsyncExitStack, *, shared: bool = False
) -> Listener:
    kind = f"mqtt {version.name}{' shared' if shared else ''}"
    client, connack = await mqtt(gateway, person.token, version, f"{person.name}-{kind}")
    assert connack.reason_code is ReasonCode.SUCCESS
    share = f"$share/{quote(person.name, safe='')}/" if shared else ""
    heard = {topic: person.hears_topic(gateway.topic_map, topic) for topic in topics_of(gateway.topic_map)}
    heard |= {
        name: all(person.hears_topic(gateway.topic_map, topic) for topic in shown) if shown else person.is_boss
        for name, shown in WILDCARDS.items()
    }
    heard["$SYS/#"] = False
    return await _listen_mqtt(client, Listener(kind), person, {share + name: may for name, may in heard.items()}, stack)


async def listen_mqtt_rooms(
    gateway: Gateway, person: Person, version: ProtocolVersion, rooms: list[str], stack: AsyncExitStack
) -> Listener:
    kind = f"mqtt {version.name} rooms"
    client, _ = await mqtt(gateway, person.token, version, f"{person.name}-{kind}")
    heard = {room_filter(room): person.hears_room(room) for room in rooms}
    return await _listen_mqtt(client, Listener(kind), person, heard, stack)


async def _listen_mqtt(
    client: Client, listener: Listener, person: Person, heard: dict[str, bool], stack: AsyncExitStack
) -> Listener:
    kind, version = listener.name, client.version
    for name, expected in heard.items():
        client.send(Subscribe(next(client.ids), [SubscriptionRequest(name, 1)]))
        (code,) = (await client.expect_among(Suback)).reason_codes
        cell(not code.is_failure, expected, kind, "subscribe", person.name, name)
        if not expected:
            assert code is (ReasonCode.NOT_AUTHORIZED if version is V5 else ReasonCode.UNSPECIFIED_ERROR)

    async def read() -> None:
        while isinstance(packet := await client.next(), Publish):
            await client.acknowledge(packet)
            # What came in by MQTT goes out as the bytes that were published: it is known by its topic.
            listener.heard.append(json.loads(packet.payload).get("id", packet.topic))

    reading = asyncio.create_task(read())

    async def stop() -> None:
        reading.cancel()
        await asyncio.wait([reading])

    stack.push_async_callback(stop)
    return listener


async def listen_sse(gateway: Gateway, http: httpx.AsyncClient, person: Person, rooms: list[str]) -> list[str]:
    """The rooms of which a stream is opened; each is asked for alone."""
    allowed = []
    for room in rooms:
        for path in ("/api/stream", "/api/events", "/api/connect", "/api/events?after=start"):
            joint = "&" if "?" in path else "?"
            url = f"{path}{joint}rooms={room}"
            async with http.stream("GET", url, headers=bearer(person.token)) as answer:
                status = answer.status_code
            assert status in (200, 403), (url, status)
            cell(status == 200, person.hears_room(room), path, person.name, room)
        if person.hears_room(room):
            allowed.append(room)
    return allowed


async def test_every_cell_and_no_leak(keys: Path) -> None:
    everybody = people(keys)
    async with running(keys) as gateway, AsyncExitStack() as stack:
        rooms, topics = rooms_of(gateway.topic_map), topics_of(gateway.topic_map)
        assert len(rooms) >= 10
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.http_url))
        for topic in topics:  # retained from before anybody comes: must not leak either
            await gateway.publish(topic=topic, data={"retained": True})
        ears: list[tuple[Person, Listener, list[str]]] = []
        for person in everybody:
            allowed = await listen_sse(gateway, http, person, rooms)
            ears.append((person, await listen_socketio(gateway, person, rooms, stack), allowed))
            for version, shared in ((V311, False), (V5, False), (V5, True)):
                listener = await listen_mqtt(gateway, person, version, stack, shared=shared)
                ears.append((person, listener, []))
            ears += [
                (person, await listen_mqtt_rooms(gateway, person, version, rooms, stack), allowed)
                for version in (V311, V5)
            ]
            for topic in topics:
                answer = await http.post("/api/events", json={"topic": topic}, headers=bearer(person.token))
                assert answer.status_code in (201, 403)
                cell(answer.status_code == 201, person.publishes(topic), "rest publish", person.name, topic)
                for version in (V311, V5):
                    will = Will(topic, b"{}", qos=1)
                    client, connack = await mqtt(gateway, person.token, version, f"will-{version.name}", will)
                    granted = connack.reason_code is ReasonCode.SUCCESS
                    cell(granted, person.publishes(topic), "will", version.name, person.name, topic)
                    if granted:
                        await client.disconnect()
                client, _ = await mqtt(gateway, person.token, V5, "speaks")
                answered = await client.publish(topic, b"{}")
                assert answered is not None
                cell(not answered.reason_code.is_failure, person.publishes(topic), "mqtt publish", person.name, topic)
                await client.disconnect()

        # Live: one event of each topic, then one that everybody hears.
        sent = {(await gateway.publish(topic=topic, data={"live": True})).id: topic for topic in topics}
        marker = (await gateway.publish(topic="crm/notifications/marker", data={})).id
        for person, listener, allowed in ears:
            await listener.until(marker)
            for event_id, topic in sent.items():
                expected = (
                    bool(set(gateway.topic_map.rooms_of(gateway.topic_map.route(topic), {})) & set(allowed))
                    if listener.name == "socketio" or listener.name.endswith("rooms")
                    else person.hears_topic(gateway.topic_map, topic)
                )
                cell(event_id in listener.heard, expected, "hears", listener.name, person.name, topic)
                assert listener.heard.count(event_id) <= 1 or "shared" in listener.name
        # What they were sent before (retained, other people's publishes) was theirs to hear as well.
        page = await http.get(
            f"/api/events?rooms={','.join(rooms)}&after=start&limit=1000", headers=bearer(everybody[0].token)
        )
        topic_of = {event["id"]: event["topic"] for event in page.json()["events"]} | {topic: topic for topic in topics}
        for person, listener, _ in ears:
            for event_id in set(listener.heard) & topic_of.keys():
                topic = topic_of[event_id]
                leaked = not person.hears_topic(gateway.topic_map, topic)
                cell(not leaked, True, "was sent", listener.name, person.name, topic)
        print(f"{CELLS} cells")
        assert CELLS > 2000


async def test_strangers_are_let_in_at_no_door(keys: Path) -> None:
    async with running(keys) as gateway, httpx.AsyncClient(base_url=gateway.http_url) as http:
        for name, shown in strangers().items():
            for method, path in (
                ("GET", "/api/events?rooms=org:announcements"),
                ("GET", "/api/stream?rooms=org:announcements"),
                ("GET", "/api/connect?rooms=org:announcements"),
                ("GET", "/metrics"),
                ("GET", "/api/admin/revocations"),
                ("POST", "/api/events"),
            ):
                answer = await http.request(
                    method,
                    path,
                    headers=bearer(shown),
                    json={"topic": "crm/leads/1/updated"} if method == "POST" else None,
                )
                assert answer.status_code == 401, (name, method, path)
                assert answer.json()["error"]["code"] == "unauthorized"
            for version in (V311, V5):
                _, connack = await mqtt(gateway, shown, version, "stranger")
                assert connack.reason_code.is_failure, name
            client = socketio.AsyncClient(reconnection=False)
            with pytest.raises(socketio.exceptions.ConnectionError):
                await client.connect(gateway.http_url, auth={"token": shown} if shown else None, wait_timeout=5)
            await client.disconnect()
        assert gateway.log.head == 0


async def test_another_users_session_and_pid_are_out_of_reach(keys: Path) -> None:
    """Client ids are each user's own (`tests/mqtt_edge/test_access.py`); a pid is too."""
    boss, other = (each for each in people(keys) if each.name in ("admin", "sales without"))
    frames: dict[str, Any] = {}

    def heard(*args: Any) -> None:
        frames["heard"] = args

    async with running(keys) as gateway:
        for person in (boss, other):
            client = socketio.AsyncClient(reconnection=False)
            client.on("lead:updated", heard)
            auth = {"token": person.token}
            if "pid" in frames:
                auth |= {"pid": frames["pid"], "offset": frames["offset"]}
            await client.connect(gateway.http_url, auth=auth, transports=["websocket"])
            if person is boss:
                answer = await client.call("subscribe", {"rooms": ["lead:1"]})
                (pid,) = (each.pid for each in gateway.socketio._clients.values())
                frames |= {"pid": pid, "offset": answer["position"]}
                await client.eio.disconnect()  # not a wanted end: the session may be resumed
                await until(lambda: gateway.socketio.connections == 0)
                await gateway.publish(topic="crm/leads/1/updated", data={})
            else:
                assert gateway.socketio.stats.recovered == 0
                assert (await client.call("subscribe", {"rooms": ["lead:1"]}))["ok"] is False
            await client.disconnect()
        assert "heard" not in frames
