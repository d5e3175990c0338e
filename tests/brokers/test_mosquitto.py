"""Mosquitto's dynamic security, on a real Mosquitto."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from gapless.auth import AuthOptions, Gate, Identity, PolicyGate
from gapless.brokers import Judge, Logins
from gapless.brokers.mosquitto import Provision
from gapless.brokers.mosquitto.accounts import Account
from gapless.brokers.mosquitto.control import BrokerUnavailable
from gapless.brokers.options import BrokerAuthOptions, MosquittoOptions
from gapless.errors import ConfigError
from gapless.eventlog import EventLog, MemoryLog
from gapless.link import LinkError
from gapless.testing import Broker, BrokerConfig, run_broker
from gapless.topicmap import crm_map
from tests.brokers.client import PATIENCE, Client
from tests.brokers.desk import KEY, LINK
from tests.gates import Clock, TableGate

pytestmark = [pytest.mark.needs_mosquitto, pytest.mark.needs_dynamic_security]

ADMINISTRATOR = ("control", "control-password")
ADMIN = Identity(user_id="1", roles=frozenset({"ADMIN"}), token_id="t1")
MANAGER = Identity(user_id="2", roles=frozenset({"MANAGER"}), token_id="t2")
SALES = Identity(user_id="7", roles=frozenset({"SALES"}), rooms=("lead:1",), token_id="t7")


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with run_broker(BrokerConfig(dynamic_security=ADMINISTRATOR)) as running:
        yield running


@pytest.fixture
async def log() -> AsyncIterator[EventLog]:
    log = MemoryLog()
    await log.open(lambda records: None)
    yield log
    await log.close()


@asynccontextmanager
async def provision(
    broker: Broker, log: EventLog, gate: Gate | None = None, **options: Any
) -> AsyncIterator[Provision]:
    gate = gate or PolicyGate(crm_map(), AuthOptions(secret=KEY))
    judge = Judge(gate=gate, logins=Logins(gate=gate, log=log), options=BrokerAuthOptions(), link=LINK)
    user, password = ADMINISTRATOR
    told = MosquittoOptions(url=broker.url, username=user, password=password)
    wanted: dict[str, Any] = {"prefix": "gapless", "limit": 100, "keep_seconds": 3600, **options}
    made = Provision(options=told.connection(None), gate=gate, log=log, rights=judge.rights, **wanted)
    await made.start()
    try:
        async with asyncio.timeout(PATIENCE):
            await made.control.wait_ready()
        yield made
    finally:
        await made.stop()


async def make(made: Provision, identity: Identity, device: str = "a", *granted: str) -> Account:
    return await made.account(identity, f"{identity.user_id}~{device}", granted, lifetime=3600)


async def come_in(broker: Broker, made: Provision, account: Account, **options: Any) -> Client:
    password = made.accounts.password(account)
    return await Client.connect(broker.url, account.username, password, account.client_id, **options)


async def names(made: Provision) -> tuple[set[str], set[str]]:
    """Clients and roles at the broker."""
    listing = {"verbose": False, "count": -1, "offset": 0}
    clients, roles = await made.control.do([{"command": "listClients", **listing}, {"command": "listRoles", **listing}])
    return set(clients["clients"]), set(roles["roles"])


async def test_an_account_may_what_its_user_may_and_nothing_else(broker: Broker, log: EventLog) -> None:
    async with provision(broker, log) as made:
        client = await come_in(broker, made, await make(made, SALES))
        granted = ["crm/leads/1/updated", "crm/notifications/+", "crm/users/7/notifications/+", "gapless/replies/7/#"]
        denied = ["#", "+/#", "crm/#", "crm/leads/+/updated", "crm/leads/2/updated", "crm/notifications/#", "$SYS/#"]
        denied += [
            "$CONTROL/#",
            "$share/g/crm/leads/2/updated",
            "gapless/replies/#",
            "gapless/heartbeat",
            "%u",
            "$share/#",
        ]
        assert await client.subscribe(*granted) == [True] * len(granted)
        assert await client.subscribe(*denied) == [False] * len(denied)
        assert await client.publish("crm/users/7/presence")
        assert await client.publish("gapless/history")
        for topic in ("crm/users/8/presence", "crm/leads/1/updated", "$CONTROL/dynamic-security/v1", "elsewhere"):
            assert not await client.publish(topic)
        client.close()


async def test_whoever_may_everything_may_nothing_of_the_brokers_own(broker: Broker, log: EventLog) -> None:
    async with provision(broker, log) as made:
        client = await come_in(broker, made, await make(made, ADMIN))
        assert await client.subscribe("#", "crm/#", "$SYS/#", "$CONTROL/#", "$share/g/#") == [True, True, *[False] * 3]
        assert await client.publish("anything/at/all")
        assert not await client.publish("$CONTROL/dynamic-security/v1", b'{"commands":[{"command":"listClients"}]}')
        client.close()


async def test_an_account_is_good_for_its_own_client_id_alone(broker: Broker, log: EventLog) -> None:
    async with provision(broker, log) as made:
        account = await make(made, SALES)
        password = made.accounts.password(account)
        for username, word, client_id in (
            (account.username, password, "8~a"),
            (account.username, "guess", account.client_id),
            ("7", password, account.client_id),
        ):
            with pytest.raises(LinkError):
                await Client.connect(broker.url, username, word, client_id)


async def test_what_is_asked_for_again_costs_the_broker_nothing(broker: Broker, log: EventLog) -> None:
    async with provision(broker, log) as made:
        first = await make(made, SALES)
        before = made.control.commands
        again = await make(made, SALES)
        assert made.accounts.password(again) == made.accounts.password(first)
        assert made.control.commands == before
        fresh = msgspec.structs.replace(SALES, token_id="t7b", expires=time.time() + 900)
        renewed = await make(made, fresh)
        assert made.accounts.password(renewed) == made.accounts.password(first)
        assert made.control.commands == before
        other = await make(made, SALES, "b")  # another client: its roles are there already
        assert made.control.commands == before + 1
        assert other.username != first.username


async def test_users_with_the_same_rights_share_roles(broker: Broker, log: EventLog) -> None:
    async with provision(broker, log) as made:
        for user in ("20", "21", "22"):
            await make(made, Identity(user_id=user, roles=frozenset({"MANAGER"}), token_id=user))
        _, roles = await names(made)
        assert len([name for name in roles if name.startswith("gapless-")]) == 1 + 1 + 3  # last, shared, one each


async def test_the_end_of_the_access_ends_the_connection(broker: Broker, log: EventLog) -> None:
    gate = TableGate()
    gate.hears["7"] = {"a/b"}
    async with provision(broker, log, gate) as made:
        account = await make(made, Identity(user_id="7", token_id="t"))
        client = await come_in(broker, made, account)
        assert await client.subscribe("a/b") == [True]
        gate.revoke("7")
        await client.wait_ended()
        with pytest.raises(LinkError):
            await come_in(broker, made, account)
        assert len(made.accounts) == 0
        assert account.username not in (await names(made))[0]


async def test_an_account_ends_with_its_token_or_its_own_lifetime(broker: Broker, log: EventLog) -> None:
    clock = Clock()
    gate = TableGate(clock)
    gate.hears["7"] = {"a/b"}
    async with provision(broker, log, gate, clock=clock) as made:
        short = await made.account(Identity(user_id="7", token_id="1", expires=1_100.0), "7~a", (), lifetime=600)
        longer = await made.account(Identity(user_id="7", token_id="2", expires=9_000.0), "7~b", (), lifetime=600)
        assert (short.identity.expires, longer.identity.expires) == (1_100.0, 1_600.0)
        client, other = await come_in(broker, made, short), await come_in(broker, made, longer)
        clock.now = 1_101.0
        gate.leases.expire()
        await client.wait_ended()
        assert await other.subscribe("a/b") == [True]
        clock.now = 1_601.0
        gate.leases.expire()
        await other.wait_ended()
        with pytest.raises(LinkError):
            await come_in(broker, made, short)
        clock.now = 1_102.0 + 3600
        await made.keep_house()
        assert await names(made) == ({"control", "gapless-7~b"}, {"admin", *made._roles._present})


async def test_a_session_outlives_the_end_of_its_token_and_a_fresh_one_takes_it_up(
    broker: Broker, log: EventLog
) -> None:
    clock = Clock()
    gate = TableGate(clock)
    gate.hears["7"] = {"a/b", "a/c"}
    gate.says["1"] = {"a/b", "a/c"}
    async with provision(broker, log, gate, clock=clock) as made:
        first = await make(made, Identity(user_id="7", token_id="1", expires=1_100.0))
        client = await come_in(broker, made, first, keep=True)
        assert await client.subscribe("a/b", "a/c") == [True, True]
        clock.now = 1_101.0
        gate.leases.expire()
        await client.wait_ended()
        publisher = await come_in(broker, made, await make(made, Identity(user_id="1", token_id="p")))
        for topic in ("a/b", "a/c"):
            assert await publisher.publish(topic, b"while it was away")
        gate.hears["7"] = {"a/c"}
        fresh = await make(made, Identity(user_id="7", token_id="2", expires=2_000.0))
        assert made.accounts.password(fresh) != made.accounts.password(first)
        client = await come_in(broker, made, fresh, keep=True)
        assert client.connection.connack.session_present
        await client.hear("a/c")
        await publisher.publish("a/b", b"now")
        await publisher.publish("a/c", b"now")
        await client.hear("a/c", b"now")
        assert {message.topic for message in client.heard} == {"a/c"}
        publisher.close()
        client.close()


async def test_rights_that_shrink_end_the_connection_and_the_session_goes_on_with_what_is_left(
    broker: Broker, log: EventLog
) -> None:
    gate = TableGate()
    gate.hears["7"] = {"a/b", "a/c"}
    gate.says["1"] = {"a/b", "a/c"}
    async with provision(broker, log, gate) as made:
        account = await make(made, Identity(user_id="7", token_id="t"))
        client = await come_in(broker, made, account, keep=True)
        assert await client.subscribe("a/b", "a/c") == [True, True]
        gate.take("7", "a/b")
        await client.wait_ended()
        client = await come_in(broker, made, account, keep=True)  # with the same credentials
        publisher = await come_in(broker, made, await make(made, Identity(user_id="1", token_id="p")))
        for topic in ("a/b", "a/c"):
            assert await publisher.publish(topic)
        await client.hear("a/c")
        assert {message.topic for message in client.heard} == {"a/c"}
        assert await client.subscribe("a/b") == [False]
        publisher.close()
        client.close()


async def test_what_the_application_granted_is_looked_at_again(broker: Broker, log: EventLog) -> None:
    gate = TableGate()
    gate.asks["a/b"] = True
    async with provision(broker, log, gate) as made:
        account = await make(made, Identity(user_id="7", token_id="t"), "a", "a/b")
        client = await come_in(broker, made, account)
        assert await client.subscribe("a/b") == [True]
        gate.asks["a/b"] = False
        made.look_again(account.username)
        await client.wait_ended()


async def test_a_gateway_that_starts_again_takes_its_accounts_up_and_removes_what_it_does_not_know(
    broker: Broker, log: EventLog
) -> None:
    async with provision(broker, log) as made:
        account = await make(made, SALES)
        client = await come_in(broker, made, account)
        # As if a gateway had been killed between the broker's answer and its own note, or the other way round.
        await made.control.do(
            [
                {"command": "createRole", "rolename": "gapless-stale"},
                {"command": "createClient", "username": "gapless-stale", "password": "x"},
                {"command": "createClient", "username": "of-others", "password": "x"},
                {"command": "createRole", "rolename": "role-of-others"},
            ]
        )
        lost = await make(made, MANAGER)
        await made.control.do([{"command": "deleteClient", "username": lost.username}])
    async with provision(broker, log) as made:
        clients, roles = await names(made)
        assert clients == {"control", "of-others", account.username, lost.username}
        assert "gapless-stale" not in roles
        assert "role-of-others" in roles
        assert await client.subscribe("crm/leads/1/updated") == [True]  # it was never disconnected
        (await come_in(broker, made, lost)).close()
        assert made.accounts.password(await make(made, SALES)) == made.accounts.password(account)
        client.close()


async def test_a_broker_that_forgot_everything_is_told_again(log: EventLog, tmp_path: Any) -> None:
    config = BrokerConfig(dynamic_security=ADMINISTRATOR)
    async with run_broker(config, folder=tmp_path) as broker, provision(broker, log) as made:
        account = await make(made, SALES)
        await broker.kill()
        async with asyncio.timeout(PATIENCE):
            while made.control.ready:
                await asyncio.sleep(0)
        with pytest.raises(BrokerUnavailable):
            await make(made, MANAGER)
        assert "refused" in made.problem or "lost" in made.problem
        (tmp_path / "dynamic-security.json").unlink()
        broker._write_configuration()
        await broker.start()
        async with asyncio.timeout(PATIENCE):
            await made.control.wait_ready()
        assert made.problem == ""
        (await come_in(broker, made, account)).close()


async def test_an_account_that_may_not_administer_is_named(broker: Broker, log: EventLog) -> None:
    async with provision(broker, log) as made:
        account = await make(made, SALES)
        told = MosquittoOptions(url=broker.url, username=account.username, password=made.accounts.password(account))
        gate = TableGate()
        other = Provision(
            options=told.connection(None),
            gate=gate,
            log=log,
            rights=gate.rights,
            prefix="other",
            limit=1,
            keep_seconds=1,
        )
        other.control.start()
        async with asyncio.timeout(PATIENCE):
            while other.problem == "not connected yet":
                await asyncio.sleep(0.01)
        assert "let this client in" in other.problem or "may not administer" in other.problem
        await other.stop()


async def test_the_number_of_accounts_is_bounded(broker: Broker, log: EventLog) -> None:
    async with provision(broker, log, limit=2) as made:
        await make(made, SALES, "a")
        await make(made, SALES, "b")
        with pytest.raises(BrokerUnavailable, match="too many"):
            await make(made, SALES, "c")


async def test_what_somebody_else_removed_is_made_anew(broker: Broker, log: EventLog) -> None:
    async with provision(broker, log) as made:
        account = await make(made, SALES)
        _, roles = await names(made)
        ours = [{"command": "deleteRole", "rolename": name} for name in roles if name.startswith("gapless-")]
        await made.control.do([{"command": "deleteClient", "username": account.username}, *ours])
        more = msgspec.structs.replace(SALES, rooms=("lead:1", "lead:2"))
        client = await come_in(broker, made, await make(made, more))
        assert await client.subscribe("crm/leads/2/updated", "crm/notifications/+") == [True, True]
        client.close()


async def test_two_questions_for_one_client_at_once_get_one_account(broker: Broker, log: EventLog) -> None:
    async with provision(broker, log) as made:
        one, other = await asyncio.gather(make(made, SALES), make(made, SALES))
        assert made.accounts.password(one) == made.accounts.password(other)
        (await come_in(broker, made, other)).close()


async def test_many_at_once(broker: Broker, log: EventLog) -> None:
    async with provision(broker, log) as made:
        began = time.perf_counter()
        users = [Identity(user_id=str(n), roles=frozenset({"SALES"}), token_id=str(n)) for n in range(60)]
        accounts = await asyncio.gather(*(make(made, user) for user in users))
        print(f"{(time.perf_counter() - began) / 60 * 1000:.1f} ms an account")
        clients, _ = await names(made)
        assert {account.username for account in accounts} <= clients


def test_options_that_cannot_work_stop_the_start() -> None:
    with pytest.raises(ConfigError, match="where"):
        MosquittoOptions(username="a", password="b").connection(None)
    with pytest.raises(ConfigError, match="prefix"):
        MosquittoOptions(username="a", password="b", prefix="a-b")
    with pytest.raises(ConfigError, match="mosquitto"):
        BrokerAuthOptions(credentials="mosquitto")
    assert "pass-word" not in repr(MosquittoOptions(username="a", password="pass-word"))
