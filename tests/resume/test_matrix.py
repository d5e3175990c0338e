"""One cursor on every transport: from each to each, while events go on being published."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack

import pytest

from tests.resume.clients import CLIENTS, RETURNING, Publishing, Site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.needs_node, pytest.mark.needs_mosquitto]

_leads = itertools.count(1)

LIVE, MISSED = 20, 60
"""Events that a client hears before it drops, and after it is back; events published meanwhile."""


def whole(numbers: list[int], last: int) -> bool:
    """Whether each event is there once and in order, from the first heard on."""
    return numbers == list(range(numbers[0], last))


@pytest.mark.parametrize("second", CLIENTS)
@pytest.mark.parametrize("first", CLIENTS)
async def test_what_was_missed_comes_once_and_in_order(site: Site, first: str, second: str) -> None:
    lead = f"m{next(_leads)}"
    async with AsyncExitStack() as stack:
        publishing = await stack.enter_async_context(Publishing(site.gateway, lead))
        client = await stack.enter_async_context(CLIENTS[first](site, lead))
        await client.open()
        heard = await client.take(LIVE)
        await client.drop()
        cursor = heard[-1]
        await publishing.reach(cursor.number + MISSED)
        if first == second:
            await client.come_back()
        else:
            client = await stack.enter_async_context(RETURNING[second](site, lead))
            await client.open(cursor.position)
        heard += await client.take(MISSED + LIVE)
        last = await publishing.stop()
        await client.take_until(last - 1, heard)
        assert whole([event.number for event in heard], last)


@pytest.mark.parametrize("transport", CLIENTS)
async def test_it_is_whole_when_the_gateway_was_killed_meanwhile(site: Site, transport: str) -> None:
    lead = f"k{next(_leads)}"
    async with Publishing(site.gateway, lead) as publishing, CLIENTS[transport](site, lead) as client:
        await client.open()
        heard = await client.take(LIVE)
        await client.drop()
        await publishing.reach(heard[-1].number + MISSED)
        await site.gateway.kill()
        await site.gateway.start()
        await client.come_back()
        heard += await client.take(MISSED + LIVE)
        last = await publishing.stop()
        await client.take_until(last - 1, heard)
        assert whole([event.number for event in heard], last)
