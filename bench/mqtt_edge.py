"""The edge's own work per delivery to 1,000 subscribers, without sockets: `python -m bench.mqtt_edge`.

What the kernel takes for a write (4 to 5 µs on most machines) comes on top; `python -m bench` measures both.
"""

from __future__ import annotations

import asyncio
import time

from gapless.auth import DevelopmentGate
from gapless.envelope import Envelope
from gapless.event import Origin
from gapless.eventlog import MemoryLog
from gapless.hub import Hub
from gapless.ingress import Ingress, Publication
from gapless.mqtt import Connect, Decoder, ProtocolVersion, Publish, Subscribe, SubscriptionRequest, encode
from gapless.topicmap import crm_map
from gapless.transports.broadcast import Lane
from gapless.transports.mqtt import MqttEdge
from gapless.transports.mqtt.connection import Connection

CLIENTS = 1000
EVENTS = 100
TOPIC = "crm/leads/7/updated"


class NullWriter:
    """A socket that takes everything; it keeps the last write."""

    last = b""
    held = 0
    transport = None

    def write(self, data: bytes) -> None:
        self.last = data

    @property
    def lane(self) -> Lane:
        return Lane(self.write)

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def measure(qos: int, version: ProtocolVersion) -> None:
    log = MemoryLog()
    hub = Hub(log)
    await log.open(hub.deliver)
    await hub.start()
    ingress = Ingress(log, hub, crm_map())
    edge = MqttEdge(ingress=ingress, hub=hub, log=log, gate=DevelopmentGate())
    await edge.start()
    clients = []
    for number in range(CLIENTS):
        writer = NullWriter()
        connection = Connection(edge, writer, peer="bench")
        connection.data_received(encode(Connect(f"c{number}", version), version))
        while not edge.connected.get(f"c{number}"):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        connection.data_received(encode(Subscribe(1, [SubscriptionRequest("crm/leads/+/updated", qos)]), version))
        clients.append((connection, writer))
    await asyncio.sleep(0.01)
    deliveries = acknowledgements = 0.0
    for number in range(EVENTS):
        publication = Publication(
            envelope=Envelope(data=b'{"n":%d,"x":"%s"}' % (number, b"x" * 200)), origin=ORIGIN, topic=TOPIC
        )
        started = time.process_time()
        await ingress.submit(publication)
        await asyncio.sleep(0)
        deliveries += time.process_time() - started
        if qos:
            packet_id = _packet_id(clients[0][1].last, version)
            ack = b"\x40\x02" + packet_id.to_bytes(2, "big")
            started = time.process_time()
            for connection, _ in clients:
                connection.data_received(ack)
            acknowledgements += time.process_time() - started
        assert edge.stats.sent[qos] == (number + 1) * CLIENTS
    count = EVENTS * CLIENTS
    text = f"MQTT {version.name} QoS {qos}: {deliveries / count * 1e6:5.2f} µs a delivery"
    if qos:
        text += f", {acknowledgements / count * 1e6:5.2f} µs a PUBACK"
    print(text)
    await edge.stop()
    await log.close()


ORIGIN = Origin("python")


def _packet_id(data: bytes, version: ProtocolVersion) -> int:
    (packet,) = Decoder("client", version=version, expect_handshake=False).feed(data)
    assert isinstance(packet, Publish)
    return packet.packet_id


async def main() -> None:
    for version in (ProtocolVersion.V311, ProtocolVersion.V5):
        for qos in (0, 1):
            await measure(qos, version)


if __name__ == "__main__":
    asyncio.run(main())
