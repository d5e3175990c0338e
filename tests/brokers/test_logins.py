"""Whom a broker means, over restarts of the gateway and to the end of the token."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gapless.auth import Identity
from gapless.brokers import Logins
from gapless.brokers.names import is_own_client_id, is_own_username, name_of
from gapless.eventlog import MemoryLog, SqliteLog, StateKind
from tests.brokers.desk import Desk, token
from tests.gates import Clock, TableGate

ASKED = {"username": "7", "clientid": "7~a", "topic": "crm/leads/1/updated", "action": "subscribe"}


async def test_a_gateway_that_was_restarted_knows_who_is_connected(tmp_path: Path) -> None:
    login = {"username": "7", "password": token("7", "SALES", rooms=["lead:1"]), "clientid": "7~a"}
    async with Desk(log=SqliteLog(tmp_path / "events.db")) as desk:
        assert (await desk.json("/emqx/authenticate", login)).json()["result"] == "allow"
    async with Desk(log=SqliteLog(tmp_path / "events.db")) as desk:
        assert (await desk.json("/emqx/authorize", ASKED)).json() == {"result": "allow"}
        assert (await desk.json("/emqx/authorize", {**ASKED, "clientid": "7~b"})).json() == {"result": "deny"}


async def test_a_revoked_token_is_denied_at_once_and_forgotten() -> None:
    gate = TableGate()
    gate.hears["7"] = {"crm/leads/1/updated"}
    async with Desk(gate=gate) as desk:
        await desk.json("/emqx/authenticate", {"username": "7", "password": "7", "clientid": "7~a"})
        assert (await desk.json("/emqx/authorize", ASKED)).json() == {"result": "allow"}
        gate.revoke("7")
        assert (await desk.json("/emqx/authorize", ASKED)).json() == {"result": "deny"}
        assert await desk.log.all_state(StateKind.BROKER_LOGIN) == {}


async def test_who_is_revoked_while_the_application_is_asked_is_denied() -> None:
    gate = TableGate()
    gate.asks = {"crm/leads/1/updated": True}
    gate.may_answer.clear()
    async with Desk(gate=gate) as desk:
        await desk.json("/emqx/authenticate", {"username": "7", "password": "7", "clientid": "7~a"})
        for action in ("subscribe", "publish"):
            gate.asking.clear()
            asked = asyncio.create_task(desk.json("/emqx/authorize", {**ASKED, "action": action}))
            await gate.asking.wait()
            gate.revoke("7")
            gate.revoked.clear()
            gate.may_answer.set()
            assert (await asked).json() == {"result": "deny"}
            gate.may_answer.clear()
            gate.forget("crm/leads/1/updated")
            await desk.json("/emqx/authenticate", {"username": "7", "password": "7", "clientid": "7~a"})


async def test_what_expired_while_no_gateway_ran_is_gone() -> None:
    clock, log = Clock(), MemoryLog()
    await log.open(lambda records: None)
    logins = Logins(gate=TableGate(clock), log=log)
    await logins.start()
    await logins.remember("7", "7~a", Identity(user_id="7", expires=1_010.0))
    await logins.stop()
    clock.now = 2_000.0
    gate = TableGate(clock)
    logins = Logins(gate=gate, log=log)
    await logins.start()
    gate.leases.expire()
    assert logins.find("7", "7~a") == []
    assert await log.all_state(StateKind.BROKER_LOGIN) == {}
    await log.close()


async def test_the_number_of_clients_is_bounded() -> None:
    log = MemoryLog()
    await log.open(lambda records: None)
    logins = Logins(gate=TableGate(), log=log, limit=3)
    await logins.start()
    for number in range(5):
        await logins.remember("7", f"7~{number}", Identity(user_id="7"))
    assert len(logins) == 3
    assert logins.forgotten == 2
    assert logins.find("7", "7~0") == []
    assert len(logins.find("7", None)) == 3
    assert len(await log.all_state(StateKind.BROKER_LOGIN)) == 3
    await log.close()


def test_names_are_nobody_elses() -> None:
    seven, tilde, colon = (Identity(user_id=user) for user in ("7", "7~x", "a:b"))
    service = Identity(service=True, token_id="7")
    assert [name_of(each) for each in (seven, tilde, colon, service, Identity())] == ["7", "7%7Ex", "a%3Ab", "~7", ""]
    assert is_own_client_id(seven, "7~x")
    assert not is_own_client_id(seven, "7%7Ex~phone")
    assert not is_own_client_id(seven, "~7~phone")
    assert is_own_client_id(service, "~7~phone")
    assert not is_own_client_id(Identity(), "7~x")
    assert is_own_username(seven, "7")
    assert not is_own_username(seven, "77")
    assert not is_own_username(Identity(), "7")
