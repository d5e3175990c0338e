"""Socket.IO 5, over raw WebSocket and raw HTTP. Each part names its section of the protocol document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import socketio
from websockets.asyncio.client import ClientConnection

from gapless.transports.socketio.packets import MAX_ATTACHMENTS
from gapless.transports.socketio.server import Server
from tests.socketio_protocol.servers import echo_server
from tests.socketio_protocol.wire import Wire, until_closed, wire


@pytest.fixture
async def echo() -> AsyncIterator[Wire]:
    async with wire(echo_server()) as echo:
        yield echo


async def answered(websocket: ClientConnection) -> None:
    """The connection is there, and the main namespace answers."""
    await websocket.send('42["message","there?"]')
    assert await websocket.recv() == '42["message-back","there?"]'


# --- Exchange protocol, connection to a namespace


@pytest.mark.parametrize(
    ("connect", "prefix", "auth"),
    [
        ("40", "", "{}"),
        ('40{"token":"123"}', "", '{"token":"123"}'),
        ("40/custom,", "/custom,", "{}"),
        ("40/custom", "/custom,", "{}"),
        ('40/custom,{"token":"abc"}', "/custom,", '{"token":"abc"}'),
    ],
)
async def test_connect_is_answered_before_any_event(echo: Wire, connect: str, prefix: str, auth: str) -> None:
    async with echo.open_websocket() as websocket:
        await websocket.send(connect)
        answer = str(await websocket.recv())
        assert answer.startswith(f"40{prefix}{{")
        handshake = json.loads(answer.removeprefix(f"40{prefix}"))
        assert set(handshake) == {"sid"}
        assert await websocket.recv() == f'42{prefix}["auth",{auth}]'  # what the connect handler emitted


async def test_everything_emitted_before_connect_follows_it_in_order() -> None:
    server = echo_server()

    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        for number in range(3):
            await server.emit("number", number, to=sid)
        await server.emit("everybody", skip_sid="another")

    server.on("connect", connect)
    async with wire(server) as echo, echo.open_websocket() as websocket:
        await websocket.send("40")
        got = [str(await websocket.recv()) for _ in range(5)]
        assert got[0].startswith("40{")
        assert got[1:] == ['42["number",0]', '42["number",1]', '42["number",2]', '42["everybody"]']


async def test_connect_on_polling(echo: Wire) -> None:
    session = await echo.open()
    assert (await session.post('40{"token":"123"}\x1e42["message","at once"]')).text == "ok"
    connected, auth, back = await session.packets(3)
    assert connected.startswith('40{"sid":')
    assert (auth, back) == ('42["auth",{"token":"123"}]', '42["message-back","at once"]')


async def test_an_unknown_namespace_is_refused_with_a_message(echo: Wire) -> None:
    async with echo.open_websocket() as websocket:
        await websocket.send("40/random")
        assert await websocket.recv() == '44/random,{"message":"Invalid namespace"}'
        await websocket.send("40")  # the connection may be used for others
        assert str(await websocket.recv()).startswith("40{")


async def test_a_refusal_carries_message_and_data_and_nothing_that_was_emitted() -> None:
    server = echo_server()

    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        await server.emit("secret", to=sid)
        raise socketio.exceptions.ConnectionRefusedError("Not authorized", {"code": 7})

    server.on("connect", connect, namespace="/custom")
    async with wire(server) as echo, echo.connected() as websocket:
        await websocket.send("40/custom,")
        assert await websocket.recv() == '44/custom,{"message":"Not authorized","data":{"code":7}}'
        await answered(websocket)


async def test_several_namespaces_of_one_connection(echo: Wire) -> None:
    async with echo.connected() as websocket:
        await websocket.send("40/custom,")
        assert str(await websocket.recv()).startswith("40/custom,")
        assert await websocket.recv() == '42/custom,["auth",{}]'
        await websocket.send('42/custom,["message","a"]')
        await websocket.send('42["message","b"]')
        assert {await websocket.recv(), await websocket.recv()} == {
            '42/custom,["message-back","a"]',
            '42["message-back","b"]',
        }


async def test_a_second_connect_is_refused_and_the_first_stays(echo: Wire) -> None:
    async with echo.connected() as websocket:
        await websocket.send("40")
        assert await websocket.recv() == '44{"message":"Already connected"}'
        await answered(websocket)


@pytest.mark.parametrize("packet", ['2["message"]', '2/custom,["message"]', "31[]", '51-["message"]', "1", "abc", ""])
async def test_what_comes_before_connect_closes_the_connection(echo: Wire, packet: str) -> None:
    async with echo.open_websocket() as websocket:
        await websocket.send("4" + packet)
        assert await until_closed(websocket) == []
    session = await echo.open()
    assert (await session.post("4" + packet)).status_code == 400
    assert await session.is_over()


async def test_a_connection_that_is_never_used_is_closed() -> None:
    async with wire(echo_server(connect_within=0.01)) as echo, echo.open_websocket() as websocket:
        assert await until_closed(websocket) == []
        assert not echo.engine.sockets


async def test_so_is_one_that_was_refused_and_tries_no_more() -> None:
    async with wire(echo_server(connect_within=0.01)) as echo, echo.open_websocket() as websocket:
        await websocket.send("40/random")
        await until_closed(websocket)
        assert not echo.engine.sockets


async def test_a_client_that_leaves_while_it_connects_is_forgotten() -> None:
    server = echo_server()
    entered, leave = asyncio.Event(), asyncio.Event()
    left: asyncio.Queue[str] = asyncio.Queue()

    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        entered.set()
        await leave.wait()

    server.on("connect", connect)
    server.on("disconnect", lambda sid, reason: left.put_nowait(reason))
    async with wire(server) as echo:
        session = await echo.open()
        connecting = asyncio.create_task(session.post("40"))
        await entered.wait()
        await session.socket.close(reason="transport close")
        leave.set()
        assert await left.get() == "transport close"
        assert (await connecting).status_code == 400
        assert not list(server.manager.get_participants("/", None))


# --- Exchange protocol, sending and receiving data; packet encoding


@pytest.mark.parametrize(
    ("sent", "back"),
    [
        ('42["message",1,"2",{"3":[true]}]', '42["message-back",1,"2",{"3":[true]}]'),
        ('42["message"]', '42["message-back"]'),
        ('42["message",null]', '42["message-back",null]'),
        ('42456["message-with-ack",1,"2",{"3":[false]}]', '43456[1,"2",{"3":[false]}]'),
        ('420["message-with-ack"]', "430[]"),
        ('450-["message","none"]', '42["message-back","none"]'),
    ],
)
async def test_events_and_acknowledgements(echo: Wire, sent: str, back: str) -> None:
    async with echo.connected() as websocket:
        await websocket.send(sent)
        assert await websocket.recv() == back


PLACEHOLDERS = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}'


@pytest.mark.parametrize(
    ("sent", "back"),
    [
        (f'452-["message",{PLACEHOLDERS}]', f'452-["message-back",{PLACEHOLDERS}]'),
        (f'452-789["message-with-ack",{PLACEHOLDERS}]', f"462-789[{PLACEHOLDERS}]"),
    ],
)
async def test_binary_events_and_acknowledgements(echo: Wire, sent: str, back: str) -> None:
    async with echo.connected() as websocket:
        for packet in (sent, b"\x01\x02\x03", b"\x04\x05\x06"):
            await websocket.send(packet)
        assert [await websocket.recv() for _ in range(3)] == [back, b"\x01\x02\x03", b"\x04\x05\x06"]
    session = await echo.open()
    await session.post("40\x1e" + sent + "\x1ebAQID\x1ebBAUG")
    assert (await session.packets(5))[2:] == [back, "bAQID", "bBAUG"]


async def test_an_event_that_is_too_complex_is_acknowledged_with_an_error(echo: Wire) -> None:
    deep = "[" * 5000 + "]" * 5000
    async with echo.connected() as websocket:
        await websocket.send(f"42{deep}")  # nobody asks for an answer
        for sent, attachments in ((f"427{deep}", 0), (f"451-8{deep}", 1)):
            await websocket.send(sent)
            for _ in range(attachments):
                await websocket.send(b"attachment")
        for number in (7, 8):
            answer = str(await websocket.recv())
            assert answer.startswith(f"43{number}[")
            refused = json.loads(answer.removeprefix(f"43{number}"))[0]
            assert refused["ok"] is False
            assert (refused["error"]["code"], refused["error"]["retryable"]) == ("invalid_payload", False)
        await answered(websocket)
    session = await echo.open()
    await session.post(f"40\x1e429{deep}")
    assert (await session.packets(3))[2].startswith('439[{"ok":false')


@pytest.mark.parametrize(
    "packets",
    [
        ["4abc"],
        ["42{}"],
        ["42[]"],
        ["42"],
        ["42[{}]"],
        ['42abc["message-with-ack"]'],
        ['42["message"'],
        ["43[]"],
        ["47"],
        ['44{"message":"no"}'],
        ['42["connect",{}]'],
        ['42["disconnect","me"]'],
        ['42/custom,["message"]'],
        [b"no packet announced this"],
        ['451-["message",{"_placeholder":true,"num":0}]', '42["message"]'],
        ['451-["message",{"_placeholder":true,"num":1}]', b"\x01"],
        ['451-["message",{"_placeholder":true,"num":-1}]', b"\x01"],
        [f'45{MAX_ATTACHMENTS + 1}-["message"]'],
        ['45["message"]'],
    ],
    ids=lambda packets: repr(packets)[:60],
)
async def test_what_is_no_packet_closes_the_connection(echo: Wire, packets: list[str | bytes]) -> None:
    async with echo.connected() as websocket:
        for packet in packets:
            await websocket.send(packet)
        assert await until_closed(websocket) == []
    assert not echo.engine.sockets


async def test_no_client_can_raise_the_servers_own_events() -> None:
    server, disconnected = echo_server(), asyncio.Queue[str]()
    server.on("disconnect", lambda sid, reason: disconnected.put_nowait(reason))
    async with wire(server) as echo, echo.connected() as websocket:
        await websocket.send('42["disconnect","made up"]')
        await until_closed(websocket)
        assert await disconnected.get() == "transport error"
        assert disconnected.empty()


@pytest.mark.parametrize(("name", "heard"), [('"*"', "*"), ('"any"', "any"), ("7", "7")])
async def test_an_event_may_have_any_other_name(name: str, heard: str) -> None:
    server = echo_server()

    async def anything(event: str, sid: str, *args: Any) -> tuple[Any, ...]:
        return event, *args

    server.on("*", anything)
    async with wire(server) as echo, echo.connected() as websocket:
        await websocket.send(f'421[{name},"x"]')
        assert await websocket.recv() == f'431["{heard}","x"]'


async def test_a_polling_client_that_sends_no_packet_is_told_and_closed(echo: Wire) -> None:
    session = await echo.open()
    await session.post("40")
    await session.packets(2)
    async with session.waiting() as poll:
        assert (await session.post('42["message","good"]\x1e42{}')).status_code == 400
        assert (await poll).text[-1] == "1"
    assert await session.is_over()


# --- Exchange protocol, acknowledgement (of the client)


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (["43%d[]"], None),
        (['43%d["bar"]'], "bar"),
        (['43%d["bar",1]'], ("bar", 1)),
        (['461-%d[{"_placeholder":true,"num":0}]', b"\x01\x02"], b"\x01\x02"),
    ],
    ids=str,
)
async def test_the_server_gets_its_acknowledgement(answer: list[str | bytes], result: Any) -> None:
    server = echo_server()
    connected: asyncio.Queue[str] = asyncio.Queue()

    async def message(sid: str) -> None:
        connected.put_nowait(sid)

    server.on("message", message)
    async with wire(server) as echo, echo.connected() as websocket:
        await websocket.send('42["message"]')
        calling = asyncio.create_task(server.call("foo", to=await connected.get()))
        asked = str(await websocket.recv())
        assert asked.startswith("42")
        assert asked.endswith('["foo"]')
        identifier = int(asked[2:].removesuffix('["foo"]'))
        await websocket.send("4399[]")  # one that nobody asked for means nothing
        for packet in answer:
            await websocket.send(packet % identifier if isinstance(packet, str) else packet)
        assert await calling == result


# --- Exchange protocol, disconnection from a namespace


async def test_disconnect_from_one_namespace_leaves_the_other(echo: Wire) -> None:
    async with echo.connected() as websocket:
        await websocket.send("40/custom")
        assert str(await websocket.recv()).startswith("40/custom,")
        assert await websocket.recv() == '42/custom,["auth",{}]'
        await websocket.send("41/custom")
        await answered(websocket)


async def test_disconnect_from_the_main_namespace_keeps_the_connection(echo: Wire) -> None:
    async with echo.connected() as websocket:
        await websocket.send("41")
        await websocket.send("40")
        assert str(await websocket.recv()).startswith("40{")


async def test_the_server_may_disconnect_a_client() -> None:
    server: Server = echo_server()

    async def message(sid: str) -> None:
        await server.disconnect(sid)

    server.on("message", message)
    async with wire(server) as echo, echo.connected() as websocket:
        await websocket.send('42["message"]')
        assert await websocket.recv() == "41"
