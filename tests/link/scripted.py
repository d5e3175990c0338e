"""A broker that does what a test says: it speaks enough MQTT, and every packet is seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from gapless.mqtt import (
    Connack,
    Connect,
    Decoder,
    MqttProtocolError,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    ProtocolVersion,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    encode,
)
from tests.link.support import PATIENCE

P = TypeVar("P")


class Session:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.version = ProtocolVersion.V5
        self.packets: list[Packet] = []
        self.taken = 0
        self.news = asyncio.Event()
        self.ended = False

    def send(self, packet: Packet) -> None:
        self._writer.write(encode(packet, self.version))

    def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self) -> None:
        self._writer.close()

    async def get(self, kind: type[P], wanted: Callable[[P], bool] = lambda _: True) -> P:
        """The next packet of this kind that fits; those before it are passed over."""
        async with asyncio.timeout(PATIENCE):
            while True:
                while self.taken < len(self.packets):
                    packet = self.packets[self.taken]
                    self.taken += 1
                    if isinstance(packet, kind) and wanted(packet):
                        return packet
                assert not self.ended, "the client closed the connection"
                self.news.clear()
                await self.news.wait()


class ScriptedBroker:
    """Answers CONNECT, SUBSCRIBE and PINGREQ; publications only where `acknowledges`.

    Attributes:
        connack: properties of its CONNACK (MQTT 5).
        first: packets that it sends right behind that.
        session_present: what CONNACK says.
        subscribes: whether it answers SUBSCRIBE.
        trickles: whether CONNACK comes byte by byte.
        refuse: called with each CONNECT; bytes to answer instead, after which it closes.
        sessions: connections so far, the refused ones too.
    """

    def __init__(self) -> None:
        self.connack = Properties()
        self.first: Sequence[Packet] = ()
        self.session_present = False
        self.acknowledges = True
        self.subscribes = True
        self.trickles = False
        self.granted = ReasonCode.GRANTED_QOS_2
        self.refuse: Callable[[Connect], bytes | None] = lambda _: None
        self.sessions: list[Session] = []
        self.port = 0
        self._news = asyncio.Event()
        self._handlers: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def session(self, number: int) -> Session:
        """The connection with this number, from 0, once it is there."""
        async with asyncio.timeout(PATIENCE):
            while len(self.sessions) <= number:
                self._news.clear()
                await self._news.wait()
        return self.sessions[number]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(reader, writer)
        self.sessions.append(session)
        self._news.set()
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        decoder = Decoder("server")
        try:
            while data := await reader.read(65536):
                for packet in decoder.feed(data):
                    if isinstance(packet, Connect):
                        session.version = packet.version
                    session.packets.append(packet)
                    if not self._answer(session, packet):
                        return
                session.news.set()
        except (ConnectionError, MqttProtocolError):
            pass  # the test sees that it ended
        finally:
            session.ended = True
            session.news.set()
            writer.close()

    async def close(self) -> None:
        """Close all connections, and wait until they are."""
        for session in self.sessions:
            session.close()
        if self._handlers:
            await asyncio.wait(self._handlers)

    def _trickle(self, session: Session, data: bytes) -> None:
        if data:
            session.send_bytes(data[:1])
            asyncio.get_running_loop().call_later(0.002, self._trickle, session, data[1:])

    def _answer(self, session: Session, packet: Packet) -> bool:
        match packet:
            case Connect():
                refusal = self.refuse(packet)
                if refusal is not None:
                    session.send_bytes(refusal)
                    return False
                answer = Connack(session_present=self.session_present, properties=self.connack)
                if self.trickles:
                    self._trickle(session, encode(answer, session.version))
                else:
                    session.send_bytes(b"".join(encode(each, session.version) for each in (answer, *self.first)))
            case Subscribe() if self.subscribes:
                session.send(Suback(packet.packet_id, [self.granted] * len(packet.subscriptions)))
            case Unsubscribe():
                session.send(Unsuback(packet.packet_id, [ReasonCode.SUCCESS] * len(packet.filters)))
            case Pingreq():
                session.send(Pingresp())
            case Publish(qos=1) if self.acknowledges:
                session.send(Puback(packet.packet_id))
            case Publish(qos=2) if self.acknowledges:
                session.send(Pubrec(packet.packet_id))
            case Pubrel() if self.acknowledges:
                session.send(Pubcomp(packet.packet_id))
            case _:
                pass
        return True


@asynccontextmanager
async def scripted(**attributes: Any) -> AsyncIterator[ScriptedBroker]:
    """A scripted broker on a free port."""
    broker = ScriptedBroker()
    for name, value in attributes.items():
        setattr(broker, name, value)
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    broker.port = server.sockets[0].getsockname()[1]
    try:
        yield broker
    finally:
        server.close()
        await broker.close()
        await server.wait_closed()


@asynccontextmanager
async def listening(answer: bytes | None) -> AsyncIterator[int]:
    """The port of a server that answers a request with these bytes, or never."""
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            if answer is None:
                await reader.read()
            else:
                await reader.read(1)
                writer.write(answer)
        except ConnectionError:
            pass  # it went away: that is what clients do here
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if handlers:
            await asyncio.wait(handlers)
        await server.wait_closed()
