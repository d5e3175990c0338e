"""The hot paths, each with its readers on sockets that only count."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gapless.auth import AuthOptions, DevelopmentGate, Gate, Identity, PolicyGate
from gapless.envelope import Envelope
from gapless.event import Origin
from gapless.eventlog import MemoryLog
from gapless.gateway.http_server import HttpServer
from gapless.hub import Hub
from gapless.ingress import Ingress, Publication
from gapless.limits import Limiter, Limits, Networks
from gapless.mqtt import Connect, ProtocolVersion, Subscribe, SubscriptionRequest, encode, encode_publish
from gapless.topicmap import crm_map
from gapless.transports.broadcast import Broadcast, Lane
from gapless.transports.http import Front, HttpDoors, HttpOptions, Paths
from gapless.transports.http.request import Request
from gapless.transports.mqtt import MqttEdge
from gapless.transports.mqtt.tcp import TcpProtocol
from gapless.transports.raw_http import LendingHttp
from gapless.transports.raw_websocket import LendingWebSocket
from gapless.transports.socketio import SocketIoDoor
from gapless.transports.socketio.access import Access
from gapless.transports.socketio.client import AccessEvents, Client, Stats
from gapless.transports.socketio.fanout import RoomFanout
from gapless.transports.socketio.outgoing import OutgoingQueue
from gapless.transports.socketio.publishing import Publishing
from gapless.transports.socketio.server import Server
from tests.frames import TEXT, frame
from tests.gates import UNWATCHED
from tests.guard.counting import Scenario
from tests.security.site import upgrade

TOPIC = "crm/leads/7/updated"
ROOM = "lead:7"
DATA = b'{"name":"Acme Corp","note":"%s"}' % (b"x" * 200)
_NOW = 1_700_000_000.0

Write = Callable[[bytes], object]


class CountingSocket:
    """A transport that takes everything; it keeps the last write."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.last = b""

    def write(self, data: bytes) -> None:
        self._scenario.writes += 1
        self.last = data

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


def http_protocol(paths: Paths) -> Callable[[], LendingHttp]:
    """Makes connections as the gateway has them, with what stands before its doors."""
    limiter = Limiter(Limits())
    app = Front(paths, options=HttpOptions(), limiter=limiter, only_local=True)
    server = HttpServer(app, largest_message=1 << 20, limiter=limiter, proxies=Networks(()))
    server.config.load()
    return partial(LendingHttp, config=server.config, server_state=server.server_state, app_state={})


class Middle(Scenario):
    """Ingress, a log in memory and the hub, with a clock that stands still."""

    async def start(self, readers: int) -> None:
        self.log = MemoryLog(clock=lambda: _NOW)
        self.hub = Hub(self.log)
        await self.log.open(self.hub.deliver)
        await self.hub.start()
        self.ingress = Ingress(self.log, self.hub, crm_map(), clock=lambda: _NOW)
        self.publication = Publication(envelope=Envelope(data=DATA), origin=Origin("python"), topic=TOPIC)
        await self.connect(readers)

    async def connect(self, readers: int) -> None:
        pass

    async def event(self) -> None:
        await self.ingress.submit(self.publication)
        await asyncio.sleep(0)  # outputs are flushed

    async def stop(self) -> None:
        await self.log.close()


class Burst(Middle):
    """Ten events that are committed together."""

    async def event(self) -> None:
        await self.ingress.submit_many([self.publication] * 10)
        await asyncio.sleep(0)


def socketio_client(number: int, queue: OutgoingQueue, hub: Hub, fanout: RoomFanout, access: AccessEvents) -> Client:
    """A client of the Socket.IO door that the door itself does not know."""
    return Client(
        sid=f"s{number}",
        eio_sid=f"e{number}",
        pid=f"p{number}",
        access=access,
        queue=queue,
        hub=hub,
        position=0,
        stats=Stats(),
        changed=fanout.changed,
    )


class SocketIoReaders(Middle):
    """Socket.IO clients whose WebSockets are lent to the fan-out."""

    async def connect(self, readers: int) -> None:
        self.broadcast = Broadcast()
        fanout = RoomFanout(lambda: _NOW, broadcast=self.broadcast)
        self.hub.add(fanout)
        self.hub.after_each_batch(fanout.flush)
        self.clients: list[Client] = []
        for number in range(readers):
            queue = OutgoingQueue(max_messages=1000, max_bytes=1 << 20)
            client = socketio_client(number, queue, self.hub, fanout, UNWATCHED)
            client.live = True
            client.lane = Lane(CountingSocket(self).write)
            fanout.join(client, (ROOM,))
            self.clients.append(client)


class SocketOfItsOwn(CountingSocket):
    """A transport with a socket, which nobody reads: it holds some hundred events."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.ends = socket.socketpair()

    def get_extra_info(self, name: str) -> socket.socket | None:  # type: ignore[override]
        return self.ends[0] if name == "socket" else None


class SocketIoByRing(SocketIoReaders):
    """Socket.IO clients that are written to by io_uring: no writes of their own."""

    async def connect(self, readers: int) -> None:
        await super().connect(readers)
        problem = self.broadcast.open()
        if problem is not None:
            pytest.skip(f"io_uring: {problem}")
        self.sockets = [SocketOfItsOwn(self) for _ in self.clients]
        for client, each in zip(self.clients, self.sockets, strict=True):
            client.lane = Lane(each.write, cast(asyncio.Transport, each), plain=True)

    async def stop(self) -> None:
        self.broadcast.close()
        for each in self.sockets:
            for end in each.ends:
                end.close()
        await super().stop()


class SocketIoBurst(SocketIoReaders, Burst):
    """The same, of ten events committed together."""


class MqttReaders(Middle):
    """MQTT subscribers on TCP."""

    qos = 0
    version = ProtocolVersion.V311
    clean_start = True
    filter = "crm/leads/+/updated"

    async def connect(self, readers: int) -> None:
        gate = self.make_gate()
        self.edge = MqttEdge(ingress=self.ingress, hub=self.hub, log=self.log, gate=gate)
        await self.edge.start()
        self.sockets: list[tuple[TcpProtocol, CountingSocket]] = []
        for number in range(readers):
            protocol, sock = await self.client(f"c{number}")
            subscribe = Subscribe(1, [SubscriptionRequest(self.filter, self.qos)])
            protocol.data_received(encode(subscribe, self.version))
            while sock.last[:1] != b"\x90":
                await asyncio.sleep(0)
            self.sockets.append((protocol, sock))

    @staticmethod
    def make_gate() -> Gate:
        return DevelopmentGate()

    async def client(self, client_id: str) -> tuple[TcpProtocol, CountingSocket]:
        protocol, sock = TcpProtocol(self.edge), CountingSocket(self)
        protocol.connection_made(cast(asyncio.Transport, sock))
        protocol.data_received(encode(Connect(client_id, self.version, self.clean_start), self.version))
        while not sock.last:
            await asyncio.sleep(0)
        return protocol, sock

    async def stop(self) -> None:
        for protocol, _ in self.sockets:
            protocol.connection_lost(None)
        await self.edge.stop()
        await super().stop()


class MqttQos1Readers(MqttReaders):
    """MQTT subscribers at QoS 1; their acknowledgements are not counted."""

    qos = 1

    async def after_event(self) -> None:
        for (protocol, _), answer in zip(self.sockets, self.answers(), strict=True):
            protocol.data_received(answer)
        await asyncio.sleep(0)

    def answers(self) -> list[bytes]:
        """A PUBACK for the last message of each (MQTT 3.1.1 §3.3)."""
        at = 5 + len(TOPIC)  # first byte, remaining length in two, topic with its length in two
        return [b"\x40\x02" + sock.last[at : at + 2] for _, sock in self.sockets]


class MqttRoomReaders(MqttQos1Readers):
    """MQTT subscribers to a room."""

    filter = f"$room/{ROOM}"


class MqttReturners(MqttQos1Readers):
    """MQTT subscribers that were behind by fifty events, and get them from the log."""

    async def start(self, readers: int) -> None:
        await super().start(readers)
        self.readers = [connection.reader for connection in self.edge.connected.values()]

    async def event(self) -> None:
        for reader in self.readers:
            reader.lag()
        await self.ingress.submit_many([self.publication] * 50)
        for reader in self.readers:
            while reader.turn():
                pass
            assert reader.live
        await asyncio.sleep(0)  # outputs are flushed

    def answers(self) -> list[bytes]:
        return [b"".join(b"\x40\x02" + sent.to_bytes(2, "big") for sent in reader.inflight) for reader in self.readers]


class MqttComingBack(MqttQos1Readers):
    """MQTT clients with a session each, one event behind: from their CONNECT to the event, acknowledged."""

    clean_start = False

    async def connect(self, readers: int) -> None:
        await super().connect(readers)
        await self.after_event()

    async def event(self) -> None:
        self.sockets = [await self.client(f"c{number}") for number in range(self.readers)]
        for _, sock in self.sockets:
            while TOPIC.encode() not in sock.last:
                await asyncio.sleep(0)

    def answers(self) -> list[bytes]:
        ends = [sock.last.find(TOPIC.encode()) + len(TOPIC) for _, sock in self.sockets]
        return [b"\x40\x02" + sock.last[at : at + 2] for at, (_, sock) in zip(ends, self.sockets, strict=True)]

    async def after_event(self) -> None:
        if TOPIC.encode() in self.sockets[0][1].last:
            await super().after_event()
        self.readers = len(self.sockets)
        for protocol, _ in self.sockets:
            protocol.connection_lost(None)
        while self.edge.connected:
            await asyncio.sleep(0)
        await self.ingress.submit(self.publication)

    async def stop(self) -> None:
        self.sockets.clear()
        await super().stop()


class MqttAcknowledgements(MqttQos1Readers):
    """What comes back from them: a PUBACK each."""

    async def start(self, readers: int) -> None:
        await super().start(readers)
        await self.publish()

    async def publish(self) -> None:
        await self.ingress.submit(self.publication)
        await asyncio.sleep(0)
        self.waiting = [(protocol, answer) for (protocol, _), answer in zip(self.sockets, self.answers(), strict=True)]

    async def event(self) -> None:
        for protocol, answer in self.waiting:
            protocol.data_received(answer)
        await asyncio.sleep(0)

    async def after_event(self) -> None:
        await self.publish()


class MqttPublisher(MqttReaders):
    """An MQTT publisher at QoS 1: from its bytes to its PUBACK. What counts as a reader is one packet more."""

    async def connect(self, readers: int) -> None:
        await super().connect(0)
        self.packets = b"".join(
            encode_publish(TOPIC, DATA, version=self.version, qos=1, packet_id=number + 1) for number in range(readers)
        )
        self.protocol, self.sock = await self.client("publisher")
        self.sockets.append((self.protocol, self.sock))

    async def event(self) -> None:
        self.sock.last = b""
        self.protocol.data_received(self.packets)
        while not self.sock.last:
            await asyncio.sleep(0)


class RuledMqttPublisher(MqttPublisher):
    """The same, by the rules of the map."""

    @staticmethod
    def make_gate() -> Gate:
        options = AuthOptions(secret="of-thirty-two-bytes-and-a-few-more", anonymous_roles=("MANAGER",))
        return PolicyGate(crm_map(), options)


class SocketIoPublisher(Middle):
    """A Socket.IO publisher on a WebSocket: from its packets to the acknowledgements. One packet a reader."""

    async def connect(self, readers: int) -> None:
        gate, fanout, clients = DevelopmentGate(), RoomFanout(lambda: _NOW), dict[str, Client]()
        access = Access(gate, server=cast(Server, None), fanout=fanout, save=self.save)
        queue = OutgoingQueue(max_messages=1000, max_bytes=1 << 20)
        self.sock = CountingSocket(self)
        queue.attach(cast(LendingWebSocket, SimpleNamespace(transport=self.sock, deflates=False)))
        client = socketio_client(0, queue, self.hub, fanout, access)
        client.lease = gate.hold(Identity(user_id="ana"), client)
        client.started = True
        clients[client.sid] = client
        self.publishing = Publishing(ingress=self.ingress, gate=gate, access=access, clients=clients)
        document = b'{"topic":"%b","data":%b}' % (TOPIC.encode(), DATA)
        self.packets = [f'2{number}["publish",{document.decode()}]' for number in range(readers)]

    @staticmethod
    async def save(client: Client) -> None:
        raise AssertionError("nothing changes")

    async def event(self) -> None:
        due = self.writes + 1
        for packet in self.packets:
            assert self.publishing.at_once("s0", packet)
        while self.writes < due:
            await asyncio.sleep(0)
        assert self.sock.last.count(b'"ok":true') == len(self.packets)


class SocketIoReturners(Middle):
    """Socket.IO clients that come back on a WebSocket, a reader each: from their handshakes to their events."""

    async def connect(self, readers: int) -> None:
        self.door = SocketIoDoor(
            ingress=self.ingress, hub=self.hub, log=self.log, gate=DevelopmentGate(), clock=lambda: _NOW
        )
        await self.door.start()
        self.protocol = http_protocol(Paths({}, below={"/socket.io": self.door.app}))
        self.clients = [ReturningClient(self) for _ in range(readers)]
        await self.event()
        await self.after_event()

    async def event(self) -> None:
        for client in self.clients:
            client.open()
        for client in self.clients:
            await client.opened()

    async def after_event(self) -> None:
        for client in self.clients:
            client.lose()
        while self.door.connections:
            await asyncio.sleep(0)
        await self.ingress.submit(self.publication)

    async def stop(self) -> None:
        await self.door.stop()
        await super().stop()


class ReturningClient:
    """Connects, hears a room from then on, and comes back as the stock client does."""

    handshake = upgrade("/socket.io/?EIO=4&transport=websocket", host="localhost")

    def __init__(self, scenario: SocketIoReturners) -> None:
        self.scenario = scenario
        self.known: dict[str, str] | None = None

    def open(self) -> None:
        self.sock = ProtocolSocket(self.scenario)
        http = self.scenario.protocol()
        self.sock.set_protocol(http)
        http.connection_made(cast(asyncio.Transport, self.sock))
        http.data_received(self.handshake)
        self.say(b"40" if self.known is None else b"40" + json.dumps(self.known).encode())

    async def opened(self) -> None:
        if self.known is not None:
            while TOPIC.encode() not in self.sock.last:
                await asyncio.sleep(0)
            self.known["offset"] = re.findall(rb'"([\w-]+:\d+)"\]$', self.sock.last)[-1].decode()
            return
        while b'40{"' not in self.sock.last:
            await asyncio.sleep(0)
        answer = json.loads(self.sock.last[self.sock.last.index(b"{") :])
        self.say(b'420["subscribe",{"rooms":["%b"]}]' % ROOM.encode())
        while b"430[" not in self.sock.last:
            await asyncio.sleep(0)
        subscribed = json.loads(self.sock.last[self.sock.last.index(b"[") :])[0]
        self.known = {"pid": answer["pid"], "offset": subscribed["position"]}

    def say(self, text: bytes) -> None:
        self.sock.get_protocol().data_received(frame(TEXT, text))

    def lose(self) -> None:
        self.sock.get_protocol().connection_lost(None)
        self.sock.set_protocol(None)


class ProtocolSocket(CountingSocket):
    """One that knows who reads it."""

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol


class HttpScenario(Middle):
    """The HTTP doors, called as uvicorn does."""

    async def connect(self, readers: int) -> None:
        self.doors = HttpDoors(
            ingress=self.ingress, hub=self.hub, log=self.log, gate=DevelopmentGate(), topic_map=crm_map()
        )
        await self.doors.start()
        self.running: list[asyncio.Task[None]] = []
        await self.open(readers)

    async def open(self, readers: int) -> None:
        pass

    async def stop(self) -> None:
        await self.doors.stop()
        await asyncio.gather(*self.running)
        await super().stop()

    @staticmethod
    def scope(method: str, path: str, query: bytes = b"") -> dict[str, Any]:
        return {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": [(b"host", b"test"), (b"content-type", b"application/json")],
        }


class SseReaders(HttpScenario):
    """Server-sent events: one write for each stream."""

    async def open(self, readers: int) -> None:
        scope = self.scope("GET", "/api/stream", b"rooms=" + ROOM.encode())
        for _ in range(readers):
            handled = self.doors.sse.stream(Request(scope, self.receive, self.send))
            self.running.append(asyncio.create_task(handled))
        while self.writes < readers:
            await asyncio.sleep(0)

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            self.writes += 1


class RestPublisher(HttpScenario):
    """`POST /api/events` of one event, from its bytes to those of the answer, on a connection that is kept."""

    body = b'{"type":"lead:updated","topic":"%b","data":%b}' % (TOPIC.encode(), DATA)
    head = (
        b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )

    async def open(self, readers: int) -> None:
        self.sock = CountingSocket(self)
        self.http = http_protocol(Paths(self.doors.paths))()
        self.http.connection_made(cast(asyncio.Transport, self.sock))
        self.request = self.head % len(self.body) + self.body

    async def event(self) -> None:
        due = self.writes + 1
        self.http.data_received(self.request)
        while self.writes < due:
            await asyncio.sleep(0)
        assert self.sock.last.startswith(b"HTTP/1.1 201")
