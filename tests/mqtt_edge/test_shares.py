"""How many sessions one user, or one address, may have stored."""

from __future__ import annotations

from typing import Any

import pytest

from gapless.auth import DevelopmentGate
from gapless.eventlog import MemoryLog
from gapless.limits import AddressShares, Limits, Shares
from gapless.mqtt import Connack, Connect, Disconnect, Properties, ReasonCode
from tests.gates import TableGate
from tests.mqtt_edge.support import V5, V311, Client, Clock, Node, running_edge
from tests.security.site import limits

SHARE = 2


def few() -> Limits:
    return limits(user=Shares(sessions=SHARE), address=AddressShares(sessions=SHARE))


async def come(
    node: Node, client_id: str, *, user: str = "ann", expiry: int = 60, **options: Any
) -> tuple[Client, Connack]:
    options = {"clean": False, "expiry": expiry, "password": user.encode(), **options}
    return await Client.connect(node.port, client_id, **options)


async def fill(node: Node, **options: Any) -> None:
    for number in range(SHARE):
        client, connack = await come(node, f"phone-{number}", **options)
        assert connack.reason_code is ReasonCode.SUCCESS
        await client.disconnect()


@pytest.mark.parametrize("gate", [TableGate, DevelopmentGate], ids=["of a user", "of an address"])
async def test_one_session_too_many_is_refused_and_says_how_to_mend_it(gate: Any) -> None:
    async with running_edge(gate=gate(), limits=few()) as node:
        await fill(node)
        client, connack = await come(node, "one-more")
        assert connack.reason_code is ReasonCode.QUOTA_EXCEEDED
        assert connack.properties is not None
        assert "stored sessions" in str(connack.properties.reason_string)
        await client.expect_closed()
        named: dict[str, Any] = {"username": "ann", "password": b"ann"} if gate is TableGate else {}
        _, connack = await Client.connect(node.port, "old", V311, clean=False, **named)
        assert connack.reason_code is not ReasonCode.SUCCESS
        assert sum(node.edge.limiter.refusals.values()) == 2
        assert node.edge.stats.sessions_away == SHARE


async def test_sessions_that_end_with_their_connection_and_other_users_are_let_in() -> None:
    async with running_edge(gate=TableGate(), limits=few()) as node:
        await fill(node)
        for client_id, options in (("passing", {"expiry": 0}), ("other", {"user": "bob"})):
            _, connack = await come(node, client_id, **options)
            assert connack.reason_code is ReasonCode.SUCCESS


@pytest.mark.parametrize("clean", [False, True])
async def test_who_returns_to_its_own_session_is_never_refused(clean: bool) -> None:
    """Nor where it begins anew, takes its connection over, or the share has become smaller."""
    log = MemoryLog()
    async with running_edge(gate=TableGate(), limits=few(), log=log) as node:
        await fill(node)
    smaller = limits(user=Shares(sessions=1))
    async with running_edge(gate=TableGate(), limits=smaller, log=log) as node:
        for _ in range(2):
            for number in range(SHARE):
                _, connack = await come(node, f"phone-{number}", clean=clean)
                assert connack.reason_code is ReasonCode.SUCCESS
                assert connack.session_present is not clean
        _, connack = await come(node, "one-more")  # they are counted after a restart too
        assert connack.reason_code is ReasonCode.QUOTA_EXCEEDED


async def test_sessions_that_have_ended_make_room() -> None:
    clock = Clock()
    async with running_edge(gate=TableGate(), limits=few(), clock=clock) as node:
        await fill(node, expiry=1000)
        client, _ = await come(node, "phone-0")
        client.send(Disconnect(properties=Properties(session_expiry_interval=0)))
        await client.expect_closed()
        _, connack = await come(node, "in-its-place")
        assert connack.reason_code is ReasonCode.SUCCESS
        _, connack = await come(node, "one-more")
        assert connack.reason_code is ReasonCode.QUOTA_EXCEEDED
        clock.ahead = 2000  # nothing has cleared phone-1 away yet
        _, connack = await come(node, "one-more")
        assert connack.reason_code is ReasonCode.SUCCESS


async def test_many_at_once_get_no_more_than_the_share() -> None:
    async with running_edge(gate=TableGate(), limits=few()) as node:
        clients = [await Client.open(node.port) for _ in range(10)]
        for number, client in enumerate(clients):
            properties = Properties(session_expiry_interval=60)
            client.send(Connect(f"phone-{number}", V5, clean_start=False, password=b"ann", properties=properties))
        answers = [(await client.expect(Connack)).reason_code for client in clients]
        assert answers.count(ReasonCode.SUCCESS) == SHARE
        assert answers.count(ReasonCode.QUOTA_EXCEEDED) == 10 - SHARE
