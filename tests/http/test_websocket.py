"""The server's end of a WebSocket, byte by byte: handshake (RFC 6455 §4.2), and an ASGI application behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from gapless.gateway.http_server import HttpServer
from gapless.limits import Limiter, Limits, Networks
from gapless.transports.lending import SCOPE_KEY
from gapless.transports.listener import bind
from gapless.transports.raw_websocket import LendingWebSocket
from tests.frames import BINARY, CLOSE, PING, PONG, TEXT, frame, split
from tests.security.site import Wire, running, until, upgrade, wire

App = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
PATH = "/socket.io/?EIO=4&transport=websocket"
# RFC 6455 §1.3: of the key that `upgrade` sends
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@asynccontextmanager
async def serving(app: App, *, compression: bool = False) -> AsyncIterator[str]:
    listener = bind("127.0.0.1", 0, "port")
    server = HttpServer(
        app, largest_message=1000, limiter=Limiter(Limits()), proxies=Networks(()), compression=compression
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await server.listening.wait()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def frames(connection: Wire, count: int) -> list[tuple[int, bytes]]:
    data = b""
    async with asyncio.timeout(10):
        while len(split(data)[0]) < count:
            data += await connection.reader.read(65536) or pytest.fail("the connection ended")
    return split(data)[0]


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "headers": [(b"x-mine", b"yes")]})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})


# --- the handshake


async def test_it_is_accepted() -> None:
    async with running() as gateway, wire(gateway.http_url) as connection:
        connection.send(upgrade(PATH))
        status, headers = await connection.head()
        assert status == 101
        assert headers["sec-websocket-accept"] == ACCEPT
        assert (headers["upgrade"].lower(), headers["connection"].lower()) == ("websocket", "upgrade")
        assert "sec-websocket-protocol" not in headers
        assert "sec-websocket-extensions" not in headers
        assert (await frames(connection, 1))[0][1].startswith(b'0{"sid":')


async def test_a_subprotocol_is_chosen_from_all_headers_that_offer_some() -> None:
    async with running() as gateway, wire(gateway.http_url) as connection:
        offers = b"Sec-WebSocket-Protocol: mqttv3.1, other\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        connection.send(upgrade("/mqtt").removesuffix(b"\r\n") + offers)
        status, headers = await connection.head()
        assert (status, headers["sec-websocket-protocol"]) == (101, "mqtt")


@pytest.mark.parametrize(
    ("old", "new", "status", "code"),
    [
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ=", 400, "bad_handshake"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"not base64 at all!!", 400, "bad_handshake"),
        (b"Sec-WebSocket-Key", b"X-Key", 400, "bad_handshake"),
        (b"GET ", b"POST ", 400, "bad_handshake"),
        (b"Host:", b"Content-Length: 5\r\nHost:", 400, "bad_handshake"),
        (b"Version: 13", b"Version: 8", 426, "unsupported_websocket_version"),
        (b"Sec-WebSocket-Version: 13", b"X-Version: 13", 426, "unsupported_websocket_version"),
    ],
)
async def test_what_is_no_handshake_is_refused(old: bytes, new: bytes, status: int, code: str) -> None:
    async with running() as gateway, wire(gateway.http_url) as connection:
        connection.send(upgrade(PATH).replace(old, new))
        if status == 426:  # RFC 6455 §4.4, RFC 9110 §15.5.22
            found, headers = await connection.head()
            assert (headers["sec-websocket-version"], headers["upgrade"]) == ("13", "websocket")
            body = await connection.reader.readexactly(int(headers["content-length"]))
            assert (found, code.encode() in body) == (status, True)
        else:
            found, error = await connection.error()
            assert (found, error["code"]) == (status, code)
        assert await connection.ended() == b""


async def test_blanks_behind_values_count_for_nothing() -> None:
    async with running() as gateway, wire(gateway.http_url) as connection:
        connection.send(upgrade(PATH).replace(b": 13", b": 13 ").replace(b": websocket", b": websocket "))
        assert (await connection.head())[0] == 101


async def test_one_behind_an_answer_that_goes_on_ends_the_connection() -> None:
    """Both would write to it, and the stream would never learn that its client is gone."""
    async with running() as gateway, wire(gateway.http_url) as connection:
        connection.send(b"GET /api/stream?rooms=org:global HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await connection.head())[0] == 200
        assert gateway.http.sse.open_streams == 1
        connection.send(upgrade(PATH))
        assert b"101" not in await connection.ended()
        await until(lambda: gateway.http.sse.open_streams == 0)


async def test_another_protocol_is_not_upgraded_to_and_its_body_is_no_request() -> None:
    """Java's own client asks for HTTP/2 in this way. The parser takes nothing after such a head for its body."""
    ask = b"Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    async with running() as gateway:
        async with wire(gateway.http_url) as connection:
            connection.send(b"GET /healthz HTTP/1.1\r\n" + ask + b"\r\n")
            status, headers = await connection.head()
            assert (status, headers["connection"]) == (200, "close")
            connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP/1.1" not in await connection.ended()
        async with wire(gateway.http_url) as connection:
            body = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
            connection.send(b"POST /api/events HTTP/1.1\r\n" + ask + b"Content-Length: %d\r\n\r\n" % len(body))
            connection.send(body)
            status, error = await connection.error()
            assert (status, error["code"]) == (400, "unsupported_upgrade")
            assert b"HTTP/1.1" not in await connection.ended()


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", "server_no_context_takeover"),
        ("permessage-deflate; client_max_window_bits", "server_no_context_takeover"),
        ("permessage-deflate; server_max_window_bits=99, permessage-deflate", None),
        ("x-unknown", None),
        ("permessage-deflate; ;;", None),
    ],
)
async def test_compression_is_negotiated_or_declined(offer: str, answer: str | None) -> None:
    async with serving(echo, compression=True) as url, wire(url) as connection:
        header = f"Sec-WebSocket-Extensions: {offer}\r\n\r\n".encode()
        connection.send(upgrade("/").removesuffix(b"\r\n") + header)
        status, headers = await connection.head()
        assert status == 101
        assert (answer or "") in headers.get("sec-websocket-extensions", "")
        assert ("sec-websocket-extensions" in headers) == (answer is not None)
        connection.send(frame(TEXT, b"plain"))
        assert await frames(connection, 1) == [(TEXT, b"plain")]


# --- an application that does not take it over


async def test_an_application_sends_and_receives() -> None:
    async with serving(echo) as url, wire(url) as connection:
        connection.send(upgrade("/any?x=1"))
        assert (await connection.head())[1]["x-mine"] == "yes"
        connection.send(frame(TEXT, b"one") + frame(BINARY, b"two") + frame(PING, b"still?") + frame(TEXT, b"three"))
        received = await frames(connection, 4)
        assert [each for each in received if each[0] != PONG] == [(TEXT, b"one"), (BINARY, b"two"), (TEXT, b"three")]
        assert (PONG, b"still?") in received
        connection.send(frame(CLOSE, b"\x03\xe8"))
        assert split(await connection.ended())[0] == [(CLOSE, b"\x03\xe8")]


async def test_nothing_follows_the_close() -> None:
    async with serving(echo) as url, wire(url) as connection:
        connection.send(upgrade("/"))
        await connection.head()
        connection.send(frame(PING, b"1") + frame(TEXT, b"last") + frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"late"))
        received = split(await connection.ended())[0]
        assert received[0] == (PONG, b"1")
        assert received[-1] == (CLOSE, b"\x03\xe8")
        assert (TEXT, b"late") not in received


async def test_what_follows_an_error_counts_for_nothing() -> None:
    taker = Taker()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        scope["extensions"][SCOPE_KEY].take_over(taker)

    async with serving(app) as url, wire(url) as connection:
        connection.send(upgrade("/"))
        await connection.head()
        connection.send(frame(TEXT, b"good") + frame(TEXT, b"\xff") + frame(TEXT, b"too late"))
        assert split(await connection.ended())[0] == [(CLOSE, (1007).to_bytes(2, "big"))]
    assert taker.told == ["good"]


async def test_a_client_that_leaves_while_it_upgrades_fails_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as gateway, wire(gateway.http_url) as polling, wire(gateway.http_url) as connection:
        polling.send(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n\r\n")
        opened = await polling.reader.readuntil(b"}")
        connection.send(upgrade(f"{PATH}&sid={msgspec.json.decode(opened[opened.index(b'{') :])['sid']}"))
        assert (await connection.head())[0] == 101
        connection.send(frame(TEXT, b"2probe") + frame(CLOSE))
        await connection.ended()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(BINARY, b"x" * 1001), 1009),
        (frame(7), 1002),
        (frame(TEXT, b"x", masked=False), 1002),
    ],
)
async def test_what_is_no_message_ends_the_connection_with_the_reason(sent: bytes, code: int) -> None:
    ended: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        ended.append(await receive())

    async with serving(app) as url, wire(url) as connection:
        connection.send(upgrade("/"))
        await connection.head()
        connection.send(sent)
        assert split(await connection.ended())[0][-1][1][:2] == code.to_bytes(2, "big")
    assert [event["type"] for event in ended] == ["websocket.disconnect"]


async def test_the_close_of_an_application_waits_for_the_client() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})

    async with serving(app) as url, wire(url) as connection:
        connection.send(upgrade("/"))
        await connection.head()
        assert await frames(connection, 1) == [(CLOSE, b"\x0f\xa0enough")]
        connection.send(frame(TEXT, b"too late") + frame(CLOSE, b"\x0f\xa0"))
        assert await connection.ended() == b""


@pytest.mark.parametrize(
    ("messages", "status", "body"),
    [
        ([{"type": "websocket.close"}], 403, b""),
        (
            [
                {"type": "websocket.http.response.start", "status": 404, "headers": [(b"x-why", b"gone")]},
                {"type": "websocket.http.response.body", "body": b"nothing here"},
            ],
            404,
            b"nothing here",
        ),
        ([], 500, b""),
    ],
)
async def test_an_application_may_refuse(messages: list[dict[str, Any]], status: int, body: bytes) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(message)

    async with serving(app) as url, wire(url) as connection:
        connection.send(upgrade("/"))
        assert (await connection.head())[0] == status
        assert await connection.ended() == body


async def test_an_application_that_fails_answers_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        raise RuntimeError("planted")

    async with serving(app) as url, wire(url) as connection:
        connection.send(upgrade("/"))
        assert (await connection.head())[0] == 500
    assert "planted" in caplog.text


async def test_an_application_learns_that_its_client_is_gone() -> None:
    told = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert await receive() == {"type": "websocket.disconnect", "code": 1005, "reason": ""}
        with pytest.raises(OSError):
            await send({"type": "websocket.send", "text": "anybody?"})
        told.set()

    async with serving(app) as url:
        async with wire(url) as connection:
            connection.send(upgrade("/"))
            await connection.head()
        async with asyncio.timeout(10):
            await told.wait()


async def test_the_end_of_the_server_is_told() -> None:
    connected = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        connected.set()
        assert (await receive())["code"] == 1012

    async with serving(app) as url:
        opened = wire(url)
        connection = await opened.__aenter__()
        connection.send(upgrade("/"))
        await connection.head()
        await connected.wait()
    assert await frames(connection, 1) == [(CLOSE, (1012).to_bytes(2, "big"))]
    await opened.__aexit__(None, None, None)


# --- taken over


class Taker:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str | bytes] = []
        self.lost = asyncio.Event()

    def message(self, data: str | bytes) -> None:
        self.told.append(data)

    def writer_paused(self) -> None: ...

    def writer_resumed(self) -> None: ...

    def writer_lost(self) -> None:
        self.lost.set()


async def test_what_came_before_it_was_taken_over_comes_first() -> None:
    taker, taken = Taker(), asyncio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raw: LendingWebSocket = scope["extensions"][SCOPE_KEY]
        while len(raw._came or ()) < 1:
            await asyncio.sleep(0)
        raw.take_over(taker)
        taken.set()

    async with serving(app) as url, wire(url) as connection:
        connection.send(upgrade("/"))
        await connection.head()
        connection.send(frame(TEXT, b"early"))
        await taken.wait()
        connection.send(frame(TEXT, "sp\u00e4ter".encode(), fin=False) + frame(0, b"!") + frame(BINARY, b"\x00"))
        connection.send(frame(CLOSE))
        async with asyncio.timeout(10):
            await taker.lost.wait()
    assert taker.told == ["early", "sp\u00e4ter!", b"\x00"]
