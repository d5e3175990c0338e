"""The gateway, which kills itself at a point of its work with Mosquitto that the variable `DIE_AT` names.

`stored:3`: the third account is in the log's database, and the broker knows nothing of it.
`sent:1`: the broker was sent the first account, and has not answered.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from gapless.brokers.mosquitto.accounts import Account, Accounts
from gapless.brokers.mosquitto.control import TOPIC
from gapless.cli import main
from gapless.link.connection import Connection
from gapless.mqtt import Publish

point, _, count = os.environ.get("DIE_AT", "never:0").partition(":")
left = int(count)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def reached(name: str) -> bool:
    global left
    left -= name == point
    return name == point and left == 0


async def put(self: Accounts, account: Account) -> None:
    await stored(self, account)
    if reached("stored"):
        die()


def send(self: Connection, packet: Any) -> None:
    sent(self, packet)
    about_accounts = isinstance(packet, Publish) and packet.topic == TOPIC and b"createClient" in packet.payload
    if about_accounts and reached("sent"):
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, die)  # once it is written


stored, sent = Accounts.put, Connection.send
Accounts.put, Connection.send = put, send  # type: ignore[method-assign]
main()
