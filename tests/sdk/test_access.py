"""Tokens, denied rooms and bad input: an error with a code, and everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gapless.auth import Credentials, Identity
from gapless.config import Settings
from gapless.errors import Unauthorized
from gapless.gateway import Gateway
from gapless.presence import PresenceOptions
from tests.gates import TableGate
from tests.sdk.hybrid import TRANSPORTS, Hybrid, Hybrids
from tests.sdk.pages import served

pytestmark = [pytest.mark.needs_sdk, pytest.mark.asyncio(loop_scope="module")]


class Strict(TableGate):
    """A gate at which a token may be called in."""

    def __init__(self) -> None:
        super().__init__()
        self.called_in: set[str] = set()

    async def authenticate(self, credentials: Credentials) -> Identity:
        if credentials.token in self.called_in:
            raise Unauthorized("the token was called in")
        return await super().authenticate(credentials)

    def call_in(self, token: str) -> None:
        self.called_in.add(token)
        self.revoke(token.partition("@")[0])


@pytest_asyncio.fixture(loop_scope="module")
async def gate() -> Strict:
    gate = Strict()
    gate.hears["ana"] |= {"user:1", "user:2", "crm/users/1/presence", "crm/users/1/notifications/+"}
    gate.says["ana"] |= {"crm/users/1/presence"}
    gate.hears["bob"] |= {"user:1"}
    return gate


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(gate: TableGate) -> AsyncIterator[Gateway]:
    settings = Settings(
        port=0, mqtt_port=None, data=None, presence=PresenceOptions(grace=0.0, interval=0.0, publish="")
    )
    async with Gateway(settings, gate=gate) as gateway:
        yield gateway


async def hears(gateway: Gateway, client: Hybrid, user: int, n: int) -> None:
    """Publish, and wait until the client has heard it."""
    await gateway.publish(topic=f"crm/users/{user}/presence", data={"n": n})
    await client.until(lambda: bool(client.heard) and client.numbers[-1] == n)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_token_that_ended_is_asked_for_anew(
    gateway: Gateway, gate: Strict, hybrids: Hybrids, transport: str
) -> None:
    client = await hybrids.create(gateway.http_url, "user:1", transports=[transport], token="ana@4000000000")
    await client.first("ready")
    await hears(gateway, client, 1, 0)
    said = len(client.messages)
    await client.do("token", token="bad")
    gate.call_in("ana@4000000000")
    await client.until(lambda: any(m.get("error") == "unauthorized" for m in client.messages[said:]))
    await gateway.publish(topic="crm/users/1/presence", data={"n": 1})
    await client.do("token", token="ana@5000000000")
    await client.do("device", signal="online")
    await hears(gateway, client, 1, 2)
    assert client.numbers == [0, 1, 2]


async def test_a_denied_room_leaves_the_others(gateway: Gateway, gate: TableGate, hybrids: Hybrids) -> None:
    for transport in ("socketio", "sse"):
        client = await hybrids.create(
            gateway.http_url, "user:1", "user:9", "nothing:1", transports=[transport], token="ana"
        )
        assert (await client.first("refused", room="user:9"))["code"] == "forbidden"
        assert (await client.first("refused", room="nothing:1"))["code"] == "unknown_room"
        assert {m["room"] for m in client.messages if m["is"] == "error"} == {"user:9", "nothing:1"}
        await hears(gateway, client, 1, 1)
        await client.do("join", room="user:2")
        await client.first("ready", room="user:2")
        gate.take("ana", "user:2")
        assert (await client.first("error", room="user:2"))["code"] == "forbidden"
        await hears(gateway, client, 1, 2)
        gate.hears["ana"].add("user:2")
        await client.do("close")


async def test_a_publication_is_refused_alone(gateway: Gateway, hybrids: Hybrids) -> None:
    client = await hybrids.create(gateway.http_url, "user:1", token="ana")
    topic = "crm/users/1/presence"
    wrong = {
        "payload_too_large": {"topic": topic, "data": "x" * 300_000},
        "forbidden": {"topic": "crm/leads/1/updated"},
        "unknown_topic": {"type": "no:such"},
        "invalid_topic": {"topic": "a/+/b"},
        "invalid_request": {"data": 1},
    }
    for n, publication in enumerate(wrong.values()):
        await client.do("publish", publication=publication)
        await client.do("publish", publication={"topic": topic, "data": {"n": n}, "id": f"good{n}"})
    await client.until(lambda: sum(m["is"] in ("published", "unpublished") for m in client.messages) == 10)
    assert {m["code"] for m in client.messages if m["is"] == "unpublished"} == set(wrong)
    large = next(m for m in client.messages if m.get("code") == "payload_too_large")
    assert large["details"]["size"] > large["details"]["limit"]
    assert [m["id"] for m in client.messages if m["is"] == "published"] == [f"good{n}" for n in range(5)]
    await client.until(lambda: len(client.heard) == 5)
    assert client.numbers == list(range(5))


async def test_wrong_addresses_have_a_code(
    hybrids: Hybrids, tmp_path_factory: pytest.TempPathFactory, unused_tcp_port: int
) -> None:
    with served(tmp_path_factory.mktemp("website")) as website:
        for url, code in ((website, "not_a_gateway"), (f"http://127.0.0.1:{unused_tcp_port}", "network")):
            client = await hybrids.create(url, "user:1")
            assert (await client.first("status", connection="offline"))["error"] == code
            await client.do("publish", publication={"topic": "a", "ephemeral": True})
            assert (await client.first("unpublished"))["code"] == "offline"
            await client.do("close")
    for url in ("", "ftp://example.com", "http://"):
        client = await hybrids.create(url)
        assert (await client.first("thrown"))["code"] == "invalid_request"


async def test_who_is_present_is_told_or_asked_for(gateway: Gateway, hybrids: Hybrids) -> None:
    watchers = [
        await hybrids.create(gateway.http_url, "user:1", transports=[name], token="ana") for name in ("socketio", "sse")
    ]
    for watcher in watchers:
        await watcher.first("ready")
        await watcher.do("watch", room="user:1")
        members = (await watcher.first("present"))["members"]
        assert [member["userId"] for member in members] == ["ana"]
    bob = await hybrids.create(gateway.http_url, "user:1", token="bob")
    told = watchers[0]

    def present() -> set[str]:
        return {member["userId"] for member in [m for m in told.messages if m["is"] == "present"][-1]["members"]}

    await told.until(lambda: present() == {"ana", "bob"})
    await bob.do("close")
    await told.until(lambda: present() == {"ana"})
    await asyncio.gather(*(watcher.do("close") for watcher in watchers))
