"""What an account at Mosquitto's dynamic security costs, and how others wait: `python -m bench.mosquitto_accounts`.

A real Mosquitto on loopback; accounts of the reference domain's sales people, three leads each, made as
`GET /api/connect?broker=1` does. Meanwhile one client sends a PINGREQ and waits for the answer, again and again.

    python -m bench.mosquitto_accounts --accounts 2000 --step 250
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from gapless.auth import AuthOptions, Identity, PolicyGate
from gapless.brokers import BrokerAuthOptions, Judge, Logins
from gapless.brokers.mosquitto import Provision
from gapless.brokers.options import MosquittoOptions
from gapless.eventlog import MemoryLog
from gapless.link import LinkOptions
from gapless.mqtt import Connect, Pingreq, ProtocolVersion, encode
from gapless.testing import BrokerConfig, run_broker
from gapless.topicmap import crm_map


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def user(number: int) -> Identity:
    """A sales person with three leads."""
    rooms = tuple(f"lead:{number * 3 + each}" for each in range(3))
    return Identity(user_id=str(number), roles=frozenset({"SALES"}), rooms=rooms, token_id=str(number))


async def ping(port: int, account: tuple[str, str, str], waits: list[float]) -> None:
    """Add the seconds that each answer took, until cancelled."""
    username, password, client_id = account
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connect = Connect(client_id, ProtocolVersion.V311, username=username, password=password.encode(), keep_alive=60)
    writer.write(encode(connect, ProtocolVersion.V311))
    await reader.readexactly(4)
    packet = encode(Pingreq(), ProtocolVersion.V311)
    try:
        while True:
            began = time.perf_counter()
            writer.write(packet)
            await reader.readexactly(2)
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)
    finally:
        writer.close()


async def run(accounts: int, step: int) -> None:
    """Make accounts, some at a time, and print what they cost."""
    log = MemoryLog()
    await log.open(lambda records: None)
    gate = PolicyGate(crm_map(), AuthOptions(secret="a-secret-of-the-benchmark-alone-here"))
    with tempfile.TemporaryDirectory() as folder:
        config = BrokerConfig(dynamic_security=("control", "control-password"))
        async with run_broker(config, folder=Path(folder)) as broker:
            link = LinkOptions(url=broker.url)
            judge = Judge(gate=gate, logins=Logins(gate=gate, log=log), options=BrokerAuthOptions(), link=link)
            told = MosquittoOptions(url=broker.url, username="control", password="control-password")
            made = Provision(
                options=told.connection(None),
                gate=gate,
                log=log,
                rights=judge.rights,
                prefix="gapless",
                limit=accounts + 1,
                keep_seconds=3600,
            )
            await made.start()
            await made.control.wait_ready()
            bystander = await made.account(Identity(user_id="x", token_id="x"), "x~1", (), lifetime=3600)
            waits: list[float] = []
            account = (bystander.username, made.accounts.password(bystander), bystander.client_id)
            pinging = asyncio.create_task(ping(broker.port, account, waits))
            print("accounts  ms  broker CPU ms  gateway CPU ms  commands  file KiB  PINGRESP p50 p99 ms")
            for first in range(0, accounts, step):
                waits.clear()
                began, commands = time.perf_counter(), made.control.commands
                broker_cpu, own_cpu = cpu_seconds(broker.pid), time.process_time()
                await asyncio.gather(
                    *(made.account(user(n), f"{n}~a", (), lifetime=3600) for n in range(first, first + step))
                )
                each = (time.perf_counter() - began) / step * 1000
                broker_each = (cpu_seconds(broker.pid) - broker_cpu) / step * 1000
                own_each = (time.process_time() - own_cpu) / step * 1000
                told_each = (made.control.commands - commands) / step
                size = (Path(folder) / "dynamic-security.json").stat().st_size / 1024
                marks = statistics.quantiles(waits, n=100) if len(waits) > 1 else [0.0] * 99
                waited = f"{marks[49] * 1000:8.1f} {marks[98] * 1000:8.1f}"
                print(
                    f"{first:6d} {each:8.1f} {broker_each:8.1f} {own_each:8.2f} {told_each:6.2f} {size:8.0f} {waited}"
                )
            began = time.perf_counter()
            for number in range(step):
                await made.account(user(number), f"{number}~a", (), lifetime=3600)
            print(f"asked for again: {(time.perf_counter() - began) / step * 1000:.2f} ms each")
            pinging.cancel()
            await asyncio.wait([pinging])
            await made.stop()
    await log.close()


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--step", type=int, default=250)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.accounts, arguments.step))


if __name__ == "__main__":
    main()
