"""How fast returning MQTT clients are fed what they missed: `python -m bench.mqtt_catch_up`.

The server, with its log in a file, runs in this process; the client is a process of its own that
acknowledges whatever it reads at once. Figures: messages a second, and the server's CPU for each.

    python -m bench.mqtt_catch_up --messages 100000 --windows 20,100,1000
    python -m bench.mqtt_catch_up --clients 1000 --messages 100
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import selectors
import socket
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from gapless.config import Settings
from gapless.envelope import Envelope
from gapless.event import Origin
from gapless.gateway import Gateway
from gapless.ingress import Publication
from gapless.mqtt import Connect, Properties, ProtocolVersion, Subscribe, SubscriptionRequest, encode

TOPIC = "crm/leads/7/updated"
PAYLOAD = b"x" * 200
WEEK = 7 * 86400


class Phone:
    """One client with a session that waits for it: every message, in order, acknowledged at once.

    Args:
        singly: one write to the socket for each PUBACK, as many clients do it.
    """

    def __init__(self, port: int, name: str, window: int, *, singly: bool) -> None:
        self.count = 0
        self._singly = singly
        self._rest = b""
        self._next = 0
        self.socket = socket.create_connection(("127.0.0.1", port))
        properties = Properties(session_expiry_interval=WEEK, receive_maximum=window)
        self.socket.sendall(
            encode(Connect(name, ProtocolVersion.V5, clean_start=False, properties=properties), ProtocolVersion.V5)
        )

    def subscribe(self) -> None:
        """Subscribe, and leave with the session in place."""
        packet = Subscribe(1, [SubscriptionRequest("crm/leads/+/updated", 1)])
        self.socket.sendall(encode(packet, ProtocolVersion.V5) + b"\xe0\x00")
        while self.socket.recv(4096):
            pass
        self.socket.close()

    def read(self) -> None:
        """Take what is there."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise SystemExit(f"closed after {self.count} messages")
        data = self._rest + data
        acks = bytearray()
        pos, end = 0, len(data)
        while end - pos > 5:
            size = shift = 0
            start = pos + 1
            while True:
                byte = data[start]
                start += 1
                size |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
            stop = start + size
            if stop > end:
                break
            if data[pos] & 0xF0 == 0x30:
                where = start + 2 + (data[start] << 8 | data[start + 1])
                acks += b"\x40\x02" + data[where : where + 2]
                number = data.find(b'"n":', where, stop) + 4
                if int(data[number : data.find(b",", number, stop)]) != self._next:
                    raise SystemExit(f"message {self._next} did not come in its place")
                self._next += 1
                self.count += 1
            pos = stop
        self._rest = data[pos:]
        step = 4 if self._singly else len(acks) or 1
        for start in range(0, len(acks), step):
            self.socket.sendall(acks[start : start + step])


def client(port: int, clients: int, messages: int, window: int, *, singly: bool) -> None:
    """The client process: a line `subscribed`, and once told to go on, the seconds it took."""
    for number in range(clients):
        Phone(port, f"phone{number}", window, singly=singly).subscribe()
    print("subscribed", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    selector = selectors.DefaultSelector()
    for number in range(clients):
        phone = Phone(port, f"phone{number}", window, singly=singly)
        selector.register(phone.socket, selectors.EVENT_READ, phone)
    behind = clients
    while behind:
        for key, _ in selector.select():
            phone = key.data
            before = phone.count
            phone.read()
            behind -= before < messages <= phone.count
    print(time.perf_counter() - started, flush=True)


async def measure(clients: int, messages: int, window: int, *, recent: int, singly: bool) -> None:
    """One case, on a log of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(port=0, mqtt_port=0, data=Path(folder), recent_events=recent)
        async with Gateway(settings) as gateway:
            assert gateway.mqtt_url is not None
            port = gateway.mqtt_url.rpartition(":")[2]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.mqtt_catch_up", "--client", port),
                *("--clients", str(clients), "--messages", str(messages), "--windows", str(window)),
                *(["--singly"] if singly else []),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            assert await process.stdout.readline() == b"subscribed\n"
            for start in range(0, messages, 1000):
                await gateway.ingress.submit_many(
                    [
                        Publication(
                            envelope=Envelope(data=b'{"n":%d,"x":"%s"}' % (n, PAYLOAD)),
                            origin=Origin("python"),
                            topic=TOPIC,
                        )
                        for n in range(start, min(start + 1000, messages))
                    ]
                )
            before = resident()
            cpu = time.process_time()
            process.stdin.write(b"go\n")
            answer = await process.stdout.readline()
            cpu = time.process_time() - cpu
            await process.wait()
            seconds = float(answer)
    total = clients * messages
    how = ", acknowledged singly" if singly else ""
    print(
        f"{clients} clients, {messages} messages each, receive maximum {window}{how}: {total / seconds:,.0f} messages/s"
        f" ({seconds:.2f} s), {cpu / total * 1e6:.1f} µs CPU each, {(resident() - before) >> 20:+} MiB",
        flush=True,
    )


def resident() -> int:
    """Most bytes of memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--windows", default="20,65535", help="receive maximums, one case each")
    parser.add_argument("--recent", type=int, default=5_000, help="events that the gateway keeps in memory")
    parser.add_argument("--singly", action="store_true", help="a write to the socket for each PUBACK")
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    windows = [int(window) for window in arguments.windows.split(",")]
    if arguments.client is not None:
        client(arguments.client, arguments.clients, arguments.messages, windows[0], singly=arguments.singly)
        return
    for window in windows:
        case = measure(arguments.clients, arguments.messages, window, recent=arguments.recent, singly=arguments.singly)
        uvloop.run(case)


if __name__ == "__main__":
    main()
