"""What a link says last, whenever it is stopped."""

from __future__ import annotations

import asyncio

import pytest

from gapless.mqtt import Connect, Disconnect, Puback, Publish, Suback, Subscribe
from tests.link.scripted import scripted
from tests.link.support import Side, options


@pytest.mark.parametrize("again", [False, True])
async def test_nothing_follows_offline_where_the_stop_comes_before_suback(again: bool) -> None:
    """`online` is retained: it would be said of a gateway that is gone."""
    async with scripted(session_present=True) as broker:
        gateway = Side(options(broker.url, status_topic="status"))
        if again:
            await gateway.start()
            broker.subscribes = False
            broker.sessions[0].close()
        else:
            broker.subscribes = False
            await gateway.start(connected=False)
        session = await broker.session(int(again))
        subscribe = await session.get(Subscribe)
        broker.acknowledges = False
        stopping = asyncio.create_task(gateway.stop())
        offline = await session.get(Publish)
        assert b"offline" in offline.payload
        session.send(Suback(subscribe.packet_id, [broker.granted] * len(subscribe.subscriptions)))
        session.send(Puback(offline.packet_id))
        await stopping
        await session.get(Disconnect)
        assert [type(packet) for packet in session.packets] == [Connect, Subscribe, Publish, Disconnect]


async def test_a_link_is_started_once() -> None:
    async with scripted() as broker:
        gateway = Side(options(broker.url))
        await gateway.start()
        with pytest.raises(RuntimeError, match="once"):
            await gateway.link.start()
        await gateway.link.stop()
        with pytest.raises(RuntimeError, match="once"):
            await gateway.link.start()
        await gateway.log.close()
