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
from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest
import socketio
from engineio.payload import Payload

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
from gapless.presence import PresenceOptions
from gapless.topicmap import TopicMap
from tests.frames import BinaryReader, BinaryWriter
from tests.http.conftest import SseReader
from tests.matrix.people import SECRET, Person, people, rooms_of, strangers, topics_of
from tests.mqtt_edge.support import V5, V311, Client, close_clients, until
from tests.security.site import port, upgrade

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
READS = (
    "/api/events?rooms=",
    "/api/events?after=start&rooms=",
    "/api/stream?rooms=",
    "/api/stream?presence=1&rooms=",
    "/api/connect?rooms=",
    "/api/presence?room=",
)
"""The HTTP doors that read rooms."""
CELLS = 0


def cell(got: bool, expected: bool, *what: object) -> None:
    """One cell of the matrix."""
    global CELLS
    CELLS += 1
    assert got is expected, f"{' / '.join(map(str, what))}: {'allowed' if got else 'denied'}"


@asynccontextmanager
async def running(keys: Path) -> AsyncIterator[Gateway]:
    settings = Settings(
        port=0,
        mqtt_port=0,
        data=None,
        auth=AuthOptions(secret=SECRET, api_keys_file=keys, max_lifetime=3600),
        presence=PresenceOptions(grace=0, start_grace=0, interval=0),
    )
    async with Gateway(settings) as gateway:
        yield gateway
    await close_clients()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def bearer(shown: str | None) -> dict[str, str]:
    return {} if shown is None else {"authorization": f"Bearer {shown}"}


async def mqtt(
    gateway: Gateway,
    shown: str | None,
    version: ProtocolVersion,
    client_id: str,
    will: Will | None = None,
    *,
    websocket: bool = False,
) -> tuple[Client, Connack]:
    client = await (open_websocket(gateway, version) if websocket else Client.open(port(gateway.mqtt_url), version))
    name, password = (None, None) if shown is None else ("any", shown.encode())
    client.send(Connect(client_id, version, username=name, password=password, will=will))
    return client, await client.expect(Connack)


async def open_websocket(gateway: Gateway, version: ProtocolVersion) -> Client:
    """MQTT over the HTTP port."""
    client = await Client.open(port(gateway.http_url), version)
    client.send_bytes(upgrade("/mqtt", protocol="mqtt"))
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    reader, writer = BinaryReader(client.reader), BinaryWriter(client.writer)
    client.reader, client.writer = cast(asyncio.StreamReader, reader), cast(asyncio.StreamWriter, writer)
    return client


class Listener:
    """One connection of a person, and what it got.

    Attributes:
        heard: ids of events, or the topics of those that came in by MQTT.
        retained: topics of messages that were marked as retained.
        present: rooms of which it was told who came.
        rooms: what it hears; None for topic filters.
    """

    def __init__(self, name: str, rooms: list[str] | None = None) -> None:
        self.name = name
        self.heard: list[str] = []
        self.retained: set[str] = set()
        self.present: set[str] = set()
        self.rooms = rooms

    async def until(self, marker: str) -> None:
        await until(lambda: marker in self.heard)

    def expects(self, person: Person, topic_map: TopicMap, topic: str) -> bool:
        """Whether it is to get the events of a topic, by the rules as a person reads them."""
        if self.rooms is None:
            return person.hears_topic(topic_map, topic)
        return bool(set(topic_map.rooms_of(topic_map.route(topic), {})) & set(self.rooms))


async def listen_socketio(
    gateway: Gateway, person: Person, rooms: list[str], stack: AsyncExitStack, *, transport: str
) -> Listener:
    kind = f"socketio {transport}"
    client = socketio.AsyncClient(reconnection=False)
    listener = Listener(kind, [room for room in rooms if person.hears_room(room)])

    def hear(event: str, data: Any, meta: Any = None, position: Any = None) -> None:
        if meta is not None:
            listener.heard.append(meta["id"])

    client.on("*", hear)
    client.on("gapless:presence", lambda news: listener.present.add(news["room"]))
    await client.connect(gateway.http_url, auth={"token": person.token}, transports=[transport])
    stack.push_async_callback(client.disconnect)
    topics = topics_of(gateway.topic_map)
    for request in ("subscribe", "presence"):
        answers = await asyncio.gather(*(client.call(request, {"rooms": [room]}) for room in rooms))
        for room, answer in zip(rooms, answers, strict=True):
            cell(answer["ok"], person.hears_room(room), kind, request, person.name, room)
            assert answer["ok"] or answer["error"]["code"] == "forbidden"
    calls = (client.call("publish", {"topic": topic, "data": {"by": "socketio"}}) for topic in topics)
    for topic, answer in zip(topics, await asyncio.gather(*calls), strict=True):
        cell(answer["ok"], person.publishes(topic), kind, "publish", person.name, topic)
    return listener


async def listen_mqtt(
    gateway: Gateway,
    person: Person,
    version: ProtocolVersion,
    stack: AsyncExitStack,
    *,
    shared: bool = False,
    websocket: bool = False,
) -> Listener:
    kind = f"mqtt {version.name}{' shared' if shared else ''}{' websocket' if websocket else ''}"
    client, connack = await mqtt(gateway, person.token, version, f"{person.name}-{kind}", websocket=websocket)
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
    """By `$room/{room}`."""
    kind = f"mqtt {version.name} rooms"
    client, _ = await mqtt(gateway, person.token, version, f"{person.name}-{kind}", websocket=version is V5)
    heard = {room_filter(room): person.hears_room(room) for room in rooms}
    listener = Listener(kind, [room for room in rooms if person.hears_room(room)])
    return await _listen_mqtt(client, listener, person, heard, stack)


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
            if packet.retain:
                listener.retained.add(packet.topic)

    stack.push_async_callback(stop, asyncio.create_task(read()))
    return listener


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def listen_http(
    gateway: Gateway, http: httpx.AsyncClient, person: Person, rooms: list[str], stack: AsyncExitStack
) -> Listener:
    """Each room is asked for alone, at every door that reads; then one stream is opened for all that are allowed."""
    for room in rooms:
        for path in READS:
            async with http.stream("GET", path + quote(room, safe=""), headers=bearer(person.token)) as answer:
                status = answer.status_code
            assert status in (200, 403), (path, room, status)
            cell(status == 200, person.hears_room(room), path, person.name, room)
    allowed = [room for room in rooms if person.hears_room(room)]
    listener = Listener("sse", allowed)
    url = f"/api/stream?presence=1&rooms={','.join(allowed)}"
    answer = await stack.enter_async_context(http.stream("GET", url, headers=bearer(person.token)))
    events = SseReader(answer)
    await events.next()

    async def read() -> None:
        while True:
            name, data, _ = await events.next()
            if name == "message":
                listener.heard.append(data["id"])
            elif name == "gapless.presence":
                listener.present.add(data["room"])

    stack.push_async_callback(stop, asyncio.create_task(read()))
    return listener


async def speak(gateway: Gateway, http: httpx.AsyncClient, person: Person, topics: list[str]) -> None:
    """Publish, and leave last wills, on each topic by each door that is not a listener's own."""
    for topic in topics:
        answer = await http.post("/api/events", json={"topic": topic}, headers=bearer(person.token))
        assert answer.status_code in (201, 403)
        cell(answer.status_code == 201, person.publishes(topic), "rest publish", person.name, topic)
        for version, websocket in ((V311, False), (V5, False), (V5, True)):
            will = Will(topic, b"{}", qos=1)
            client, connack = await mqtt(
                gateway, person.token, version, f"will-{version.name}", will, websocket=websocket
            )
            granted = connack.reason_code is ReasonCode.SUCCESS
            cell(granted, person.publishes(topic), "will", version.name, websocket, person.name, topic)
            if granted:
                await client.disconnect()
    for websocket in (False, True):
        client, _ = await mqtt(gateway, person.token, V5, "speaks", websocket=websocket)
        for topic in topics:
            answered = await client.publish(topic, b"{}")
            assert answered is not None
            granted = not answered.reason_code.is_failure
            cell(granted, person.publishes(topic), "mqtt publish", websocket, person.name, topic)
        await client.disconnect()


MQTT = ((V311, False, False), (V5, False, False), (V5, True, False), (V311, False, True), (V5, False, True))
"""Version, whether by shared subscriptions, and whether over WebSocket."""
Ears = list[tuple[Person, Listener]]


async def everybody_listens(gateway: Gateway, http: httpx.AsyncClient, keys: Path, stack: AsyncExitStack) -> Ears:
    rooms, topics = rooms_of(gateway.topic_map), topics_of(gateway.topic_map)
    assert len(rooms) >= 10
    ears: Ears = []
    for person in people(keys):
        listeners = [await listen_http(gateway, http, person, rooms, stack)]
        listeners += [
            await listen_socketio(gateway, person, rooms, stack, transport=transport)
            for transport in ("websocket", "polling")
        ]
        listeners += [
            await listen_mqtt(gateway, person, version, stack, shared=shared, websocket=websocket)
            for version, shared, websocket in MQTT
        ]
        listeners += [await listen_mqtt_rooms(gateway, person, version, rooms, stack) for version in (V311, V5)]
        ears += [(person, listener) for listener in listeners]
        await speak(gateway, http, person, topics)
    return ears


async def test_every_cell_and_no_leak(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Payload, "max_decode_packets", 1000)  # of 17 in one answer this client makes an end
    async with running(keys) as gateway, AsyncExitStack() as stack:
        topic_map = gateway.topic_map
        rooms, topics = rooms_of(topic_map), topics_of(topic_map)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.http_url, timeout=30))
        for topic in topics:  # retained from before anybody comes: must not leak either
            await gateway.publish(topic=topic, data={"retained": True})
        ears = await everybody_listens(gateway, http, keys, stack)

        # Who comes into a room is told to those who may hear it, and to nobody else.
        boss = next(person for person, _ in ears if person.is_boss)
        visitor = socketio.AsyncClient(reconnection=False)
        await visitor.connect(gateway.http_url, auth={"token": boss.token}, transports=["websocket"])
        stack.push_async_callback(visitor.disconnect)
        for _, listener in ears:
            listener.present.clear()
        await visitor.call("subscribe", {"rooms": rooms})

        # Live: one event of each topic, then one that everybody hears.
        start = gateway.hub.position()
        sent = {(await gateway.publish(topic=topic, data={"live": True})).id: topic for topic in topics}
        marker = (await gateway.publish(topic="crm/notifications/marker", data={})).id
        for person, listener in ears:
            await listener.until(marker)
            for event_id, topic in sent.items():
                expected = listener.expects(person, topic_map, topic)
                cell(event_id in listener.heard, expected, "hears", listener.name, person.name, topic)
                assert listener.heard.count(event_id) <= 1 or "shared" in listener.name
            if listener.name.startswith("mqtt"):
                if "shared" not in listener.name:
                    for topic in topics:
                        row = topic_map.route(topic).row
                        kept = row is not None and row.retain
                        expected = kept and listener.expects(person, topic_map, topic)
                        cell(topic in listener.retained, expected, "retained", listener.name, person.name, topic)
                continue
            assert listener.rooms is not None
            for room in rooms:
                cell(room in listener.present, person.hears_room(room), "presence", listener.name, person.name, room)
            if listener.name != "sse":
                continue
            # The same events as history, by all that the person may hear.
            url = f"/api/events?rooms={','.join(listener.rooms)}&limit=1000&after="
            page = (await http.get(url + start, headers=bearer(person.token))).json()
            heard = {event["id"] for event in page["events"]}
            for event_id, topic in sent.items():
                cell(event_id in heard, listener.expects(person, topic_map, topic), "history", person.name, topic)
        # What they were sent before (retained, other people's publishes) was theirs to hear as well.
        page = await http.get(f"/api/events?rooms={','.join(rooms)}&after=start&limit=1000", headers=bearer(boss.token))
        topic_of = {event["id"]: event["topic"] for event in page.json()["events"]} | {topic: topic for topic in topics}
        for person, listener in ears:
            for event_id in set(listener.heard) & topic_of.keys():
                topic = topic_of[event_id]
                leaked = not person.hears_topic(topic_map, topic)
                cell(not leaked, True, "was sent", listener.name, person.name, topic)
        print(f"{CELLS} cells")
        assert CELLS > 8000


async def test_strangers_are_let_in_at_no_door(keys: Path) -> None:
    async with running(keys) as gateway, httpx.AsyncClient(base_url=gateway.http_url) as http:
        for name, shown in strangers().items():
            for method, path in (
                ("GET", "/api/events?rooms=org:announcements"),
                ("GET", "/api/stream?rooms=org:announcements"),
                ("GET", "/api/connect?rooms=org:announcements"),
                ("GET", "/api/presence?room=org:announcements"),
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
                for websocket in (False, True):
                    _, connack = await mqtt(gateway, shown, version, "stranger", websocket=websocket)
                    assert connack.reason_code.is_failure, name
            for transport in ("polling", "websocket"):
                client = socketio.AsyncClient(reconnection=False)
                auth = {"token": shown} if shown else None
                with pytest.raises(socketio.exceptions.ConnectionError):
                    await client.connect(gateway.http_url, auth=auth, transports=[transport], wait_timeout=5)
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
