"""The gateway is killed while it tells a real Mosquitto who may do what; started again, everything is whole."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from gapless.brokers.mosquitto.accounts import Accounts
from gapless.brokers.mosquitto.control import Control
from gapless.brokers.options import MosquittoOptions
from gapless.eventlog import SqliteLog
from gapless.testing import Broker, BrokerConfig, ProcessFailed, run_broker
from gapless.testing.gateway import Gateway
from tests.brokers.client import PATIENCE, Client
from tests.brokers.desk import KEY, token

pytestmark = [pytest.mark.needs_mosquitto, pytest.mark.needs_dynamic_security]

ADMINISTRATOR = ("control", "control-password")
USERS = 6
CONFIG = """
[auth]
secret = "{key}"
[broker_auth]
credentials = "mosquitto"
urls = ["{url}"]
[broker_auth.mosquitto]
url = "{url}"
username = "{user}"
password = "{password}"
"""


def shown(user: str) -> str:
    """Each user has a lead of its own, and so a role of its own."""
    return token(user, "SALES", rooms=[f"lead:{user}"])


class Caller:
    """Asks the gateway over HTTP, as somebody."""

    def __init__(self, gateway: Gateway, http: httpx.AsyncClient) -> None:
        self._gateway = gateway
        self._http = http

    async def get(self, path: str, shown: str) -> httpx.Response:
        return await self._http.get(f"{self._gateway.http}{path}", headers={"authorization": f"Bearer {shown}"})

    async def connect(self, user: str) -> dict[str, Any]:
        """What `/api/connect` says of the broker. Each user has a lead of its own, and so a role of its own."""
        shown = token(user, "SALES", rooms=[f"lead:{user}"])
        answer = await self.get(f"/api/connect?client=phone&broker=1&rooms=lead:{user}", shown)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["broker"]
        assert found["credentials"], found
        return found

    async def in_line(self) -> None:
        """Until the gateway has brought the broker into line."""
        async with asyncio.timeout(PATIENCE):
            while (await self.get("/readyz", token("1", "ADMIN"))).json()["components"]["broker_auth"] != "ok":
                await asyncio.sleep(0.02)

    async def commands(self) -> float:
        """How many this process has sent to the broker."""
        lines = (await self.get("/metrics", token("1", "ADMIN"))).text.splitlines()
        return float(next(line for line in lines if line.startswith("gapless_broker_commands_total")).split()[1])


async def everything(broker: Broker) -> tuple[dict[str, Any], dict[str, Any]]:
    """All clients at the broker with their roles, and all roles with what they say."""
    user, password = ADMINISTRATOR

    async def nothing() -> None: ...

    options = MosquittoOptions(url=broker.url, username=user, password=password, prefix="test").connection(None)
    control = Control(options, nothing)
    control.start()
    try:
        async with asyncio.timeout(PATIENCE):
            await control.wait_ready()
        listing = {"verbose": True, "count": -1, "offset": 0}
        clients, roles = await control.do([{"command": "listClients", **listing}, {"command": "listRoles", **listing}])
    finally:
        await control.stop()
    return (
        {each["username"]: each for each in clients["clients"]},
        {each["rolename"]: each for each in roles["roles"]},
    )


async def accounts_in(data: Path) -> set[str]:
    """The accounts that the log's database keeps, while no gateway runs."""
    log = SqliteLog(data / "events.db")
    await log.open(lambda records: None)
    try:
        accounts = Accounts(log)
        await accounts.load()
        return {each.username for each in accounts.list()}
    finally:
        await log.close()


async def may(broker: Broker, answer: dict[str, Any], user: str) -> None:
    """The account hears what its user may, and nothing of the next one's."""
    shown = answer["credentials"]
    client = await Client.connect(broker.url, shown["username"], shown["password"], shown["client_id"])
    try:
        wanted = answer["filters"]
        assert f"crm/leads/{user}/updated" in wanted
        assert await client.subscribe(*wanted) == [True] * len(wanted)
        other = f"crm/leads/{user}x/updated"
        assert await client.subscribe(other, "crm/leads/+/updated", "#") == [False, False, False]
    finally:
        client.close()


async def test_killed_while_it_provisions_nothing_is_half_there(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(run_broker(BrokerConfig(dynamic_security=ADMINISTRATOR)))
        user, password = ADMINISTRATOR
        config = tmp_path / "gapless.toml"
        config.write_text(CONFIG.format(key=KEY, url=broker.url, user=user, password=password))
        gateway = Gateway(
            "--config",
            str(config),
            data=tmp_path,
            mqtt=False,
            command=(sys.executable, str(Path(__file__).with_name("dying.py")), "serve"),
            env={"DIE_AT": f"stored:{USERS // 2}"},
        )
        await stack.enter_async_context(gateway)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE, trust_env=False))
        caller = Caller(gateway, http)
        await caller.in_line()
        users = [str(number) for number in range(100, 100 + USERS)]
        answers = await asyncio.gather(*map(caller.connect, users), return_exceptions=True)
        assert await gateway.wait_end() == -signal.SIGKILL
        clients, _ = await everything(broker)
        kept = await accounts_in(tmp_path)
        assert kept - clients.keys()  # one was stored, and the broker was not told

        gateway._env = {"DIE_AT": "sent:1"}  # killed once more while it mends that
        with contextlib.suppress(ProcessFailed):
            await gateway.start()
        assert await gateway.wait_end() == -signal.SIGKILL

        gateway._env = {}
        await gateway.start()
        await caller.in_line()
        clients, _ = await everything(broker)
        assert clients.keys() == {user, *kept}
        for each, answer in zip(users, answers, strict=True):
            assert isinstance(answer, dict | httpx.HTTPError)
            if isinstance(answer, dict):  # what was handed out before holds
                await may(broker, answer, each)
            await may(broker, await caller.connect(each), each)
        clients, roles = await everything(broker)
        assert clients.keys() == {user, *(f"gapless-{each}~phone" for each in users)}
        used = {role["rolename"] for each in clients.values() for role in each["roles"]}
        assert used == roles.keys()  # no role is missing, and none is left over
        assert all(role["acls"] for role in roles.values())
        assert not any(each.get("disabled") for each in clients.values())

        await gateway.kill()
        await gateway.start()
        await caller.in_line()
        assert await caller.commands() == 2  # it looks, and finds everything as it should be
        assert await everything(broker) == (clients, roles)
