"""The recipes of docs/clients/stock.md: the very blocks, at a gateway that asks for tokens."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio

from gapless.testing import Gateway, find_node, run_gateway
from tests.docs.blocks import files, shell
from tests.docs.programs import Reader

PAGE = "docs/clients/stock.md"
FILES = files(PAGE)
ADDRESS = "http://127.0.0.1:8080"
# A place in the log, as documents write it.
POSITION = re.compile(r"\b[a-z0-9]{8}:\d+\b")

pytestmark = pytest.mark.asyncio(loop_scope="module")
NODE = pytest.mark.needs_node
MOSQUITTO = pytest.mark.needs_mosquitto_clients
CURL = pytest.mark.needs_curl


class Site:
    """A gateway with a secret, and a trusted publisher."""

    def __init__(self, gateway: Gateway, secret: str) -> None:
        self.gateway = gateway
        self._secret = secret

    def token(self, user: str, role: str) -> str:
        now = int(time.time())
        return jwt.encode({"sub": user, "roles": [role], "iat": now, "exp": now + 3600}, self._secret, "HS256")

    async def publish(self, name: str) -> str:
        """Change the lead's name; the position."""
        event = {"type": "lead:updated", "data": {"leadId": "123", "name": name}}
        return str((await self._ask("POST", "/api/events", json=event))["position"])

    async def names(self) -> list[tuple[str, str]]:
        """The id and the name of all changes so far."""
        events = (await self._ask("GET", "/api/events?rooms=lead:123&after=start&limit=1000"))["events"]
        return [(event["id"], event["data"]["name"]) for event in events]

    async def position(self) -> str:
        return str((await self._ask("GET", "/api/events?rooms=lead:123"))["position"])

    async def _ask(self, method: str, path: str, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token('1', 'ADMIN')}"}
        async with httpx.AsyncClient() as client:
            answer = await client.request(method, self.gateway.http + path, headers=headers, **more)
        return answer.raise_for_status().json()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    secret = secrets.token_hex(32)
    async with run_gateway(env={"GAPLESS_AUTH__SECRET": secret}) as gateway:
        yield Site(gateway, secret)


@pytest.fixture
def reader(site: Site, tmp_path: Path) -> Reader:
    gateway = site.gateway
    addresses = {
        ADDRESS: gateway.http,
        "ws://127.0.0.1:8080": gateway.ws,
        '"127.0.0.1", 1883': f'"127.0.0.1", {gateway.mqtt_port}',
        "-p 1883": f"-p {gateway.mqtt_port}",
    }
    reader = Reader(tmp_path, addresses, {"GAPLESS_TOKEN": site.token("7", "MANAGER")})
    if find_node():
        reader.link_packages("tests/js")
    reader.save("token.mjs", FILES["token.mjs"].code)
    return reader


def printed(name: str) -> list[str]:
    """The lines that the document says a program prints."""
    prints = FILES[name].prints
    assert prints is not None, f"{PAGE} does not say what {name} prints"
    return prints.splitlines(keepends=True)


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=NODE) for name in ("socketio-hear.mjs", "mqtt-hear.mjs", "sse-hear.mjs")),
        *("socketio_hear.py", "mqtt_hear.py"),
    ],
)
async def test_hears_and_goes_on_after_a_kill(site: Site, reader: Reader, name: str) -> None:
    hearing, changed = printed(name)
    reader.save(name, FILES[name].code)
    async with reader.running(name) as program:
        assert await program.line() == hearing
        await site.publish("Acme Corp")
        assert await program.line() == changed
    await site.publish("Globex")
    async with reader.running(name) as program:
        await site.publish("Initech")
        lines = await program.until(changed.replace("Acme Corp", "Initech"))
    lines = [line for line in lines if line != hearing]
    missed = [changed.replace("Acme Corp", "Globex"), changed.replace("Acme Corp", "Initech")]
    # Killed before it had kept, or acknowledged, the one it printed, it hears that again. Nothing is missing.
    assert lines in (missed, [changed, *missed])


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=NODE) for name in ("socketio-publish.mjs", "mqtt-publish.mjs")),
        *("socketio_publish.py", "mqtt_publish.py"),
    ],
)
async def test_publishes_once(site: Site, reader: Reader, name: str) -> None:
    code = FILES[name].code
    reader.save(name, code)
    for _ in range(2):
        out = await reader.run(name)
        assert POSITION.sub("k3x9a2bq:42", out) == "".join(printed(name))
    (identity,) = re.findall(r"change-\d", code)
    assert (await site.names()).count((identity, "Acme Corp")) == 1


@NODE
@pytest.mark.parametrize("name", ["socketio-hear.mjs", "mqtt-hear.mjs"])
async def test_says_why_it_is_refused(site: Site, reader: Reader, name: str) -> None:
    code = FILES[name].code.replace("console.error", "console.log")
    reader.save(name, code)
    reader = reader._replace(env={"GAPLESS_TOKEN": "wrong"})
    async with reader.running(name) as program:
        assert re.match(r"unauthorized |\d+ Connection refused", await program.line())


@MOSQUITTO
async def test_mosquitto_clients(site: Site, reader: Reader) -> None:
    session = shell(PAGE, "phone -E")
    assert await reader.shell(session.code) == session.prints
    position = await site.position()
    await reader.shell(session.code.replace("change-5", "change-7"))
    for containing in ("updated \\\n  -D subscribe", "$room/"):
        start = shell(PAGE, containing)
        assert await reader.shell(start.code, POSITION=position) == start.prints


@CURL
async def test_curl_publishes_and_reads(site: Site, reader: Reader) -> None:
    publish = shell(PAGE, "change-6")
    assert POSITION.sub("k3x9a2bq:42", await reader.shell(publish.code)) + "\n" == publish.prints
    assert '"duplicate":true' in await reader.shell(publish.code)
    assert ("change-6", "Acme Corp") in await site.names()
    assert '"change-6"' in await reader.shell(shell(PAGE, "after=start").code)
    position = await site.position()
    await site.publish("Globex")
    answer = await reader.shell(
        shell(PAGE, 'curl -s "http://127.0.0.1:8080/api/events?rooms=lead:123&after=$P').code, POSITION=position
    )
    assert '"complete":true' in answer
    assert "Globex" in answer


@CURL
async def test_curl_polls_and_streams(site: Site, reader: Reader) -> None:
    (changed,) = printed("poll.sh")
    globex = changed.replace("Acme Corp", "Globex")
    reader.save("poll.sh", FILES["poll.sh"].code)
    position = await site.position()
    (reader.folder / "position").write_text(position)
    async with reader.running("poll.sh") as program:
        await site.publish("Acme Corp")
        assert await program.line() == changed
    await site.publish("Globex")
    async with reader.running("poll.sh") as program:
        assert await program.until(globex) in ([globex], [changed, globex])
    stream = reader.here(shell(PAGE, "curl -sN").code).replace("$POSITION", position)
    async with reader.running("bash", "-c", f"exec {stream}") as program:
        lines = await program.until("Globex")
    data = [line for line in lines if line.startswith("data:")]
    assert "Acme Corp" in data[-2]
    assert "Globex" in data[-1]
