"""Rooms denied, tokens refused and renewed, URLs that are wrong: a code, and the rest keeps working."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest

from gapless.auth import Credentials, Identity
from gapless.client import Client, ClientEvent, NetworkError, NotAGateway, TokenFailed, TransportName
from gapless.client.hybrid.tokens import claims_of
from gapless.config import Settings
from gapless.errors import ConfigError, Forbidden, GaplessError, Unauthorized
from gapless.gateway import Gateway
from gapless.testing import free_port
from tests.client.hybrid.support import LADDER, NOTE, application, number
from tests.gates import TableGate


class ClaimsGate(TableGate):
    """Believes what a token in the form of a JWT says, unless it is revoked."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[str | None] = []
        self.refused: set[str | None] = set()

    async def authenticate(self, credentials: Credentials) -> Identity:
        claims = claims_of(credentials.token)
        if claims.sub is None or credentials.token in self.refused:
            raise Unauthorized("the token is missing or wrong")
        self.tokens.append(credentials.token)
        return Identity(user_id=claims.sub, expires=claims.exp, token_id=credentials.token)


def token_of(user: str, serial: int, *, seconds: float) -> str:
    """One that ends in so many seconds. What is renewed at 80 % of its life began long ago: that is now."""
    now = time.time()
    claims = {"sub": user, "iat": now - 1000, "exp": now + seconds, "jti": serial}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


@pytest.fixture
async def gate() -> ClaimsGate:
    gate = ClaimsGate()
    gate.hears["ana"] |= {"note:1", "note:3", "$room/note:1", "crm/notes/1/#"}
    gate.says["ana"].add("crm/notes/1/collaboration")
    return gate


@pytest.fixture
async def gateway(gate: ClaimsGate) -> AsyncIterator[Gateway]:
    async with Gateway(Settings(port=0, mqtt_port=None, data=None), gate=gate) as gateway:
        yield gateway


async def test_a_denied_room_is_told_and_the_others_are_heard(gateway: Gateway, gate: ClaimsGate) -> None:
    told: list[tuple[str, str | None]] = []
    client = Client(
        gateway.http_url,
        token=token_of("ana", 0, seconds=3600),
        on_error=lambda error, room: told.append((error.code, room)),
    )
    async with client as rt, asyncio.timeout(30):
        both = rt.subscribe("note:1", "note:2")
        denied = rt.subscribe("note:2")
        for stream in (both, denied):
            with pytest.raises(Forbidden):
                await stream.ready()
        with pytest.raises(Forbidden):
            await anext(denied)
        await rt.publish(NOTE, number(1))
        event = await anext(both)
        assert isinstance(event, ClientEvent)
        assert event.data["n"] == 1
        assert told == [("forbidden", "note:2")]
        gate.hears["ana"].add("note:2")
        rt.reconnect()  # it asks again for what was refused
        await denied.ready()
        await gateway.publish(topic="crm/notes/2/collaboration", data={"n": 2})
        event = await anext(denied)
        assert isinstance(event, ClientEvent)
        assert event.data["n"] == 2
        assert told == [("forbidden", "note:2")]


@pytest.mark.parametrize("transport", ["socketio", "sse", "poll"])
async def test_a_room_that_is_taken_away_is_told_to_its_stream(
    transport: TransportName, gateway: Gateway, gate: ClaimsGate
) -> None:
    told: list[str | None] = []
    client = Client(
        gateway.http_url,
        token=token_of("ana", 0, seconds=3600),
        transports=[transport],
        on_error=lambda _, room: told.append(room),
    )
    async with client as rt, asyncio.timeout(30):
        kept, taken = rt.subscribe("note:1"), rt.subscribe("note:3")
        await kept.ready()
        await taken.ready()
        await rt.ready()
        gate.take("ana", "note:3")
        with pytest.raises(Forbidden):
            await anext(taken)
        assert told == ["note:3"]
        await rt.publish(NOTE, number(1))
        assert isinstance(await anext(kept), ClientEvent)


async def test_a_refused_token_is_asked_for_again_and_what_waits_is_sent_then(
    gateway: Gateway, gate: ClaimsGate
) -> None:
    tokens = (token_of("ana", serial, seconds=3600) for serial in count())
    shown: list[str] = []

    async def token() -> str:
        shown.append(next(tokens))
        if len(shown) < 3:
            gate.refused.add(shown[-1])
        return shown[-1]

    async with Client(gateway.http_url, token=token) as rt, asyncio.timeout(30):
        with pytest.raises(Unauthorized):
            await rt.ready()
        assert rt.status.error is not None
        assert (rt.status.error.code, rt.status.connection) == ("unauthorized", "offline")
        publication = await rt.enqueue(NOTE, number(1))
        stream = rt.subscribe("note:1")
        await stream.ready()
        await publication
        assert len(shown) == 3


async def test_a_fixed_token_that_is_refused_is_an_error_with_a_code(gateway: Gateway) -> None:
    async with Client(gateway.http_url, token="nonsense") as rt:
        with pytest.raises(Unauthorized) as caught:
            await rt.ready()
        assert caught.value.code == "unauthorized"


async def test_why_it_is_not_connected_is_logged_once(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """A program that only waits for events would show nothing else."""
    async with Client(gateway.http_url, token="nonsense") as rt:
        for _ in range(2):
            with pytest.raises(Unauthorized):
                await rt.ready()
            rt.reconnect()
    assert caplog.messages.count("not connected, tries again: unauthorized: the token is missing or wrong") == 1
    caplog.clear()
    async with Client(gateway.http_url, token="nonsense", on_error=lambda error, room: None) as rt:
        with pytest.raises(Unauthorized):
            await rt.ready()
    assert caplog.messages == []


def test_a_traceback_shows_how_to_mend_it() -> None:
    with pytest.raises(ConfigError) as caught:
        Client("127.0.0.1:8080")
    assert caught.value.__notes__ == ["mend it: use http://HOST:PORT or https://HOST"]


async def test_an_empty_token_is_none() -> None:
    """As of a variable that is not set."""
    async with Gateway(Settings(port=0, mqtt_port=None, data=None)) as gateway, asyncio.timeout(30):
        for token in ("", lambda: ""):
            async with Client(gateway.http_url, token=token) as rt:
                await rt.ready()


SHOWN: dict[TransportName, int] = {"socketio": 1, "mqtt": 2, "sse": 2, "poll": 3}
"""How often a fresh token is shown until nothing stands on the old one: described, opened, polled again."""


async def test_a_token_is_renewed_before_its_end_and_nobody_notices(gateway: Gateway, gate: ClaimsGate) -> None:
    async def one(transport: TransportName) -> None:
        shown: list[str] = []

        def token() -> str:
            # The first one is to be renewed at once, those after it in an hour.
            shown.append(token_of("ana", len(shown), seconds=15 if not shown else 36_000))
            return shown[-1]

        client = Client(gateway.http_url, token=token, transports=[transport])
        async with application(client) as app:
            await app.connected()
            await app.until(lambda: len(app.items) >= 5)
            while shown[-1] == shown[0] or gate.tokens.count(shown[-1]) < SHOWN[transport]:
                await app.hears_more(1)
            # As when the old one ends: whoever still stands on it is cut off.
            gate.refused.add(shown[0])
            await app.hears_more(5)
            assert {status.error for status in app.statuses} == {None}, transport
            assert app.numbers == list(range(app.numbers[0], app.numbers[0] + len(app.numbers))), transport
            assert len(shown) == 2

    async with asyncio.timeout(50), asyncio.TaskGroup() as group:

        async def publish() -> None:
            for n in count():
                await gateway.publish(topic="crm/notes/1/collaboration", data={"n": n})
                await asyncio.sleep(0.02)

        publishing = group.create_task(publish())
        await asyncio.gather(*map(one, LADDER))
        publishing.cancel()


async def test_without_a_token_nobody_knows_whose_store_it_is_unless_a_user_is_named(gateway: Gateway) -> None:
    fails = True

    def token() -> str:
        if fails:
            raise OSError("the server of tokens is away")
        return token_of("ana", 0, seconds=3600)

    with pytest.raises(TokenFailed, match="away"):
        async with Client(gateway.http_url, token=token):
            pass
    async with Client(gateway.http_url, token=token, user="ana") as rt, asyncio.timeout(30):
        with pytest.raises(TokenFailed):
            await rt.ready()
        publication = await rt.enqueue(NOTE, number(1))
        fails = False
        assert (await publication).position is not None


@asynccontextmanager
async def something_else(answer: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


HTML = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>"
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
NOT_HTTP = b"SSH-2.0-OpenSSH_9.2\r\n"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(HTML, NotAGateway), (JSON, NotAGateway), (NOT_HTTP, NetworkError)],
    ids=["html", "json", "ssh"],
)
async def test_something_else_answers_at_the_url(answer: bytes, kind: type[GaplessError]) -> None:
    async with something_else(answer) as url, Client(url) as rt, asyncio.timeout(30):
        with pytest.raises(kind):
            await rt.ready()
        assert rt.status.error is not None
        assert rt.status.error.retryable
        assert rt.status.retry_at is not None


async def test_a_gateway_that_comes_late_is_found() -> None:
    port = free_port("127.0.0.1")
    async with Client(f"http://127.0.0.1:{port}") as rt, asyncio.timeout(40):
        stream = rt.subscribe("note:1")
        publication = await rt.enqueue(NOTE, number(1))
        with pytest.raises(NetworkError):
            await rt.ready()
        async with Gateway(Settings(port=port, mqtt_port=None, data=None)):
            await stream.ready()
            assert (await publication).position is not None
