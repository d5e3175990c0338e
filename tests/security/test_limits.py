"""Every limit of `[limits]`, by connection, user and address, on the doors of the web.

By a clock of the tests: nothing waits.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from gapless.auth import AuthOptions
from gapless.gateway import Gateway
from gapless.limits import AddressShares, Limits, Rates, Shares
from gapless.presence import PresenceOptions
from tests.matrix.people import SECRET, token
from tests.security.rawsocketio import Refused, SocketIo, socketio_client
from tests.security.site import NOBODY, running, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on the loopback")

TRANSPORTS = pytest.mark.parametrize("transport", ["websocket", "polling"])
HERE, THERE = "127.0.0.1", "127.0.0.2"
EVENT = {"topic": "crm/leads/1/updated", "data": {}}


def only(scope: str, **limit: float) -> Limits:
    """This limit, and no other. A second's worth may come at once."""
    tables: dict[str, Any] = {
        "connection": {"requests_per_second": 0, "bytes_per_second": 0},
        "user": {"connections": 0, "subscriptions": 0, "requests_per_second": 0, "bytes_per_second": 0},
    }
    tables["address"] = dict(tables["user"])
    tables[scope] |= limit
    return Limits(
        exempt=NOBODY,
        burst_seconds=1,
        connection=Rates(**tables["connection"]),
        user=Shares(**tables["user"]),
        address=AddressShares(**tables["address"]),
    )


@asynccontextmanager
async def limited(scope: str, **limit: float) -> AsyncIterator[Gateway]:
    """A gateway with one limit, on which time stands still."""
    async with running(limits=only(scope, **limit), presence=PresenceOptions(publish="")) as gateway:
        gateway.limiter.clock = lambda: 1000.0
        yield gateway


def somebody_else(scope: str) -> dict[str, str]:
    """Whom a limit of the scope does not hold for, when it was used up by Ann from here."""
    return {"user": "bob", "source": HERE} if scope != "address" else {"user": "ann", "source": THERE}


# --- Socket.IO


@TRANSPORTS
@pytest.mark.parametrize("scope", ["user", "address"])
async def test_socketio_connections(transport: str, scope: str) -> None:
    # Long polling takes up to two TCP connections besides its session.
    most = 2 if scope == "user" or transport == "websocket" else 7
    async with limited(scope, connections=most) as gateway, AsyncExitStack() as stack:
        with pytest.raises(Refused) as refused:
            for _ in range(10):
                await stack.enter_async_context(socketio_client(gateway, transport, "ann"))
        assert refused.value.args[0] in ("rate_limited", 429)
        other = somebody_else(scope)
        await stack.enter_async_context(socketio_client(gateway, transport, other["user"], source=other["source"]))
        assert gateway.limiter.refusals[scope, "connections"] >= 1  # type: ignore[index]
        assert gateway.socketio.connections >= 2


@TRANSPORTS
@pytest.mark.parametrize("scope", ["user", "address"])
async def test_socketio_subscriptions(transport: str, scope: str) -> None:
    async with limited(scope, subscriptions=3) as gateway, AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(socketio_client(gateway, transport, "ann")) for _ in range(2)]
        assert (await one.call("subscribe", {"rooms": ["lead:1", "lead:2"]}))["ok"]
        refused = await two.call("subscribe", {"rooms": ["lead:1", "lead:2"]})
        assert refused["error"]["code"] == "rate_limited"
        assert (await two.call("subscribe", {"rooms": ["lead:1"]}))["ok"]
        other = somebody_else(scope)
        third = await stack.enter_async_context(
            socketio_client(gateway, transport, other["user"], source=other["source"])
        )
        assert (await third.call("subscribe", {"rooms": ["lead:1", "lead:2"]}))["ok"]
        assert (await one.call("unsubscribe", {"rooms": ["lead:1", "lead:2"]}))["ok"]
        assert (await two.call("subscribe", {"rooms": ["lead:1", "lead:2", "lead:3"]}))["ok"]


@TRANSPORTS
@pytest.mark.parametrize("scope", ["connection", "user", "address"])
async def test_socketio_publishes(transport: str, scope: str) -> None:
    async with limited(scope, requests_per_second=40) as gateway, AsyncExitStack() as stack:
        one = await stack.enter_async_context(socketio_client(gateway, transport, "ann"))
        other = somebody_else(scope)
        two = await stack.enter_async_context(
            socketio_client(gateway, transport, other["user"], source=other["source"])
        )
        accepted = 0
        while (answer := await published(one))["ok"]:
            accepted += 1
        assert answer["error"]["code"] == "rate_limited"
        assert answer["error"]["details"]["limit_of"] == scope or transport == "polling"
        # Of an address each HTTP request is one too.
        assert 41 >= accepted >= (10 if transport == "polling" or scope == "address" else 40)
        assert (await two.call("publish", EVENT))["ok"]
        gateway.limiter.clock = lambda: 1002.0
        assert (await one.call("publish", EVENT))["ok"]
        # By long polling it may be the acknowledgement of one more that had to wait.
        assert gateway.hub.head - accepted in ((2, 3) if transport == "polling" else (2,))


async def published(client: SocketIo) -> Any:
    """The acknowledgement. By long polling the request that brings a packet may be refused before it."""
    try:
        return await client.call("publish", EVENT)
    except Refused as refused:
        return {"ok": False, "error": {"code": {429: "rate_limited"}[refused.args[0]], "details": {"limit_of": None}}}


@TRANSPORTS
@pytest.mark.parametrize("scope", ["connection", "user", "address"])
async def test_socketio_bytes(transport: str, scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond the rate is handled late, and nothing of it is lost."""
    now = [1000.0]

    async def sleep(seconds: float, result: Any = None) -> None:
        now[0] += seconds
        await real_sleep(0)

    real_sleep = asyncio.sleep
    async with limited(scope, bytes_per_second=10_000) as gateway, AsyncExitStack() as stack:
        one = await stack.enter_async_context(socketio_client(gateway, transport, "ann"))
        gateway.limiter.clock = lambda: now[0]
        monkeypatch.setattr(asyncio, "sleep", sleep)
        numbers = [await one.ask("publish", {**EVENT, "data": "x" * 10_000}) for _ in range(5)]
        for number in numbers:
            assert (await one.answer(number))["ok"]
        assert gateway.limiter.refusals[scope, "bytes_per_second"] >= 3  # type: ignore[index]
        assert now[0] >= 1003
        assert gateway.hub.head == 5


# --- server-sent events and long poll


READERS = pytest.mark.parametrize("path", ["/api/stream?rooms={}", "/api/events?rooms={}&wait=20"], ids=["sse", "poll"])


@asynccontextmanager
async def reading(gateway: Gateway, path: str, rooms: str, client: httpx.AsyncClient) -> AsyncIterator[int]:
    """A stream, or a poll that waits; the status, 200 while it does."""
    url = path.format(rooms)
    if "stream" in path:
        async with client.stream("GET", url) as answer:
            yield answer.status_code
        return
    before = gateway.http.polling.waiting
    polling = asyncio.create_task(client.get(url))
    try:
        await until(lambda: polling.done() or gateway.http.polling.waiting > before)
        yield polling.result().status_code if polling.done() else 200
    finally:
        polling.cancel()
        await asyncio.wait([polling])


@READERS
@pytest.mark.parametrize("scope", ["user", "address"])
@pytest.mark.parametrize("kind", ["connections", "subscriptions"])
async def test_readers(path: str, scope: str, kind: str) -> None:
    async with signed_in(scope, **{kind: 3}) as (gateway, client_of), AsyncExitStack() as stack:

        async def read(user: str, source: str = HERE, rooms: str = "lead:1") -> int:
            client = await stack.enter_async_context(client_of(user, source))
            return await stack.enter_async_context(reading(gateway, path, rooms, client))

        assert [await read("ann") for _ in range(4)] == [200, 200, 200, 429]
        other = somebody_else(scope)
        assert await read(other["user"], other["source"]) == 200
        if kind == "subscriptions":
            assert await read(other["user"], other["source"], "lead:1,lead:2,lead:3") == 429


@pytest.mark.parametrize(
    "path",
    [
        "/api/stream?rooms=lead:1",
        "/api/events?rooms=lead:1&wait=20",
        "/api/events?rooms=lead:1",
        "/api/presence?room=lead:1",
        "/api/connect",
    ],
)
@pytest.mark.parametrize("scope", ["connection", "user", "address"])
async def test_requests_that_read(path: str, scope: str) -> None:
    async with signed_in(scope, requests_per_second=20) as (gateway, client_of), AsyncExitStack() as stack:
        client = await stack.enter_async_context(client_of("ann", HERE))
        statuses: list[int] = []
        while 429 not in statuses:
            if "wait" in path:
                await gateway.publish(topic="crm/leads/1/updated", data={})  # so that it does not wait
                url = path + "&after=start"
            else:
                url = path
            async with client.stream("GET", url) as answer:
                statuses.append(answer.status_code)
                if "stream" not in path:
                    await answer.aread()
                if answer.status_code == 429:
                    await answer.aread()
                    assert answer.json()["error"]["details"] == {"limit_of": scope, "retry_after": 1}
                    assert answer.headers["retry-after"] == "1"
            assert len(statuses) < 30 or scope == "connection"
            if scope == "connection" and "stream" in path and len(statuses) > 30:
                return  # each stream takes a connection of its own
        assert len(statuses) > 5
        other = somebody_else(scope)
        elsewhere = await stack.enter_async_context(client_of(other["user"], other["source"]))
        async with elsewhere.stream("GET", path.replace("&wait=20", "")) as answer:
            assert answer.status_code == 200


@pytest.mark.parametrize("scope", ["connection", "user", "address"])
@pytest.mark.parametrize("kind", ["requests_per_second", "bytes_per_second"])
async def test_rest(scope: str, kind: str) -> None:
    limit = {"requests_per_second": 20.0} if kind == "requests_per_second" else {"bytes_per_second": 20_000.0}
    event = EVENT if kind == "requests_per_second" else {**EVENT, "data": "x" * 5000}
    async with signed_in(scope, **limit) as (gateway, client_of), AsyncExitStack() as stack:
        client = await stack.enter_async_context(client_of("ann", HERE))
        statuses = []
        while 429 not in statuses:
            statuses.append((await client.post("/api/events", json=event)).status_code)
            assert len(statuses) < 30
        assert 3 <= statuses.count(201) == gateway.hub.head
        other = somebody_else(scope)
        elsewhere = await stack.enter_async_context(client_of(other["user"], other["source"]))
        assert (await elsewhere.post("/api/events", json=EVENT)).status_code == 201


@asynccontextmanager
async def signed_in(scope: str, **limit: float) -> AsyncIterator[tuple[Gateway, Any]]:
    """A gateway with keys and one limit; and clients with their users' tokens, from an address."""

    def client_of(user: str, source: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=gateway.http_url,
            headers={"authorization": f"Bearer {token(user=user, roles=['ADMIN'])}"},
            transport=httpx.AsyncHTTPTransport(local_address=source),
            timeout=30,
        )

    async with running(limits=only(scope, **limit), auth=AuthOptions(secret=SECRET)) as gateway:
        gateway.limiter.clock = lambda: 1000.0
        yield gateway, client_of
