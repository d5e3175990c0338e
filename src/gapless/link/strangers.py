"""What somebody without an account may do at a broker: connect, read everything, publish."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from typing import NamedTuple

from gapless.link.address import BrokerAddress
from gapless.link.connection import Connection
from gapless.link.errors import LinkError
from gapless.link.probe import Probe
from gapless.mqtt import Connect, ProtocolVersion, Publish

_COMES_WITHIN = 2.0  # seconds for a message that the broker does deliver


class Findings(NamedTuple):
    """What a stranger could do.

    Attributes:
        connects: it was let in without user name and password.
        reads_all: it was granted `#`, and got a message by it.
        publishes: what it published arrived.
    """

    connects: bool
    reads_all: bool = False
    publishes: bool = False

    def say(self) -> tuple[str, str]:
        """In a line, and what to do about it; nothing where there is nothing to do."""
        if not self.connects:
            return "nobody connects without an account", ""
        if not (self.reads_all or self.publishes):
            return "anybody connects without an account, but hears and says nothing of ours", _HINT
        does = [text for text, holds in (("READ EVERYTHING", self.reads_all), ("PUBLISH", self.publishes)) if holds]
        return f"ANYBODY WHO REACHES THIS BROKER MAY {' AND '.join(does)} HERE, without an account", _HINT


_HINT = (
    "refuse anonymous clients (Mosquitto: allow_anonymous false), and give accounts rights: docs/security.md, Brokers"
)


async def find_out(
    address: BrokerAddress,
    tls: ssl.SSLContext | None,
    version: ProtocolVersion,
    *,
    friend: Probe,
    topic: str,
    timeout: float,
) -> Findings:
    """Come without an account, and try.

    Args:
        friend: a client with an account, which is subscribed to `topic/#`.
        topic: below it messages are published.
        timeout: seconds for each answer.

    Raises:
        LinkError: the broker cannot be reached any more.
    """
    stranger = Probe(timeout=timeout)
    connection = Connection(address, Connect(f"stranger-{secrets.token_hex(6)}", version, keep_alive=30), stranger)
    try:
        await connection.open(tls, timeout=timeout)
    except LinkError as error:
        if error.stage != "connect":
            raise
        return Findings(connects=False)
    try:
        stranger.use(connection)
        publishes = await _publishes(stranger, friend, f"{topic}/stranger")
        reads_all = await _reads_all(stranger, friend, f"{topic}/friend")
        return Findings(True, reads_all, publishes)
    finally:
        if not connection.closed:
            connection.disconnect()


async def _publishes(stranger: Probe, friend: Probe, topic: str) -> bool:
    try:
        await stranger.publish(topic, b"", qos=0)
        async with asyncio.timeout(_COMES_WITHIN):
            await friend.wait(Publish, lambda p: p.topic == topic)
    except (LinkError, TimeoutError):
        return False
    return True


async def _reads_all(stranger: Probe, friend: Probe, topic: str) -> bool:
    """Some brokers grant a subscription and deliver nothing by it: so a message must come, any message."""
    try:
        await stranger.subscribe("#", qos=0)
        await friend.publish(topic, b"", qos=0)
        async with asyncio.timeout(_COMES_WITHIN):
            await stranger.wait(Publish)
    except (LinkError, TimeoutError):
        return False
    return True
