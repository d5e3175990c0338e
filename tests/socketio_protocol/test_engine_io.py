"""Engine.IO 4, over raw HTTP and raw WebSocket. Each part names its section of the protocol document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.socketio_protocol.servers import echo_engine
from tests.socketio_protocol.wire import Poll, Wire, until_closed, wire

GOOD = {"EIO": "4", "transport": "polling"}


@pytest.fixture
async def echo() -> AsyncIterator[Wire]:
    async with wire(echo_engine()) as echo:
        yield echo


async def upgraded(session: Poll) -> None:
    async with session.websocket() as websocket:
        await websocket.send("2probe")
        assert await websocket.recv() == "3probe"
        await websocket.send("5")


# --- Transports, HTTP long-polling: request path, query parameters


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", {"transport": "polling"}),
        ("GET", {"EIO": "3", "transport": "polling"}),
        ("GET", {"EIO": "abc", "transport": "polling"}),
        ("GET", {"EIO": "4"}),
        ("GET", {"EIO": "4", "transport": "abc"}),
        ("GET", {"EIO": "4", "transport": "websocket"}),
        ("GET", GOOD | {"sid": "unknown"}),
        ("POST", GOOD),
        ("POST", GOOD | {"sid": "unknown"}),
        ("PUT", GOOD),
        ("DELETE", GOOD),
        ("HEAD", GOOD),
    ],
    ids=str,
)
async def test_a_request_that_is_none_is_refused(echo: Wire, method: str, query: dict[str, str]) -> None:
    assert (await echo.request(method, query)).status_code == 400
    assert not echo.engine.sockets


async def test_a_refusal_says_why_as_nodes_server_does(echo: Wire) -> None:
    refusal = await echo.request("GET", GOOD | {"sid": "unknown"})
    assert refusal.json() == {"code": 1, "message": "Session ID unknown"}


@pytest.mark.parametrize("missing", ["EIO", "transport"])
async def test_every_request_names_protocol_and_transport(echo: Wire, missing: str) -> None:
    session = await echo.open()
    query = {name: value for name, value in session.query.items() if name != missing}
    assert (await echo.request("POST", query, "4hello")).status_code == 400
    assert (await session.post("4hello")).text == "ok"  # and the session goes on


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_refused_and_harm_no_session(echo: Wire, method: str) -> None:
    session = await echo.open()
    assert (await echo.request(method, session.query)).status_code == 400
    assert (await session.post("4hello")).status_code == 200


# --- Sending data


async def test_a_post_is_answered_ok(echo: Wire) -> None:
    session = await echo.open()
    answer = await session.post("4hello")
    assert (answer.status_code, answer.text) == (200, "ok")
    assert (await session.get()).text == "4hello"


async def test_two_posts_at_once_end_the_session() -> None:
    engine = echo_engine()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold(sid: str, data: str) -> None:
        entered.set()
        await leave.wait()

    engine.on("message", hold)
    async with wire(engine) as held:
        session = await held.open()
        first = asyncio.create_task(session.post("4one"))
        await entered.wait()
        assert (await session.post("4two")).status_code == 400
        leave.set()
        assert (await first).status_code == 400
        assert await session.is_over()


async def test_a_post_that_breaks_off_is_not_taken_for_whole(echo: Wire) -> None:
    session = await echo.open()
    host, port = echo.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    target = f"/engine.io/?EIO=4&transport=polling&sid={session.sid}"
    writer.write(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n4hel".encode())
    await writer.drain()
    while not session.socket.posted:
        await asyncio.sleep(0)
    writer.close()
    sid, _ = await echo.ended.get()
    assert sid == session.sid
    assert await session.is_over()


async def test_a_post_of_unknown_length_is_read_to_its_end(echo: Wire) -> None:
    session = await echo.open()

    async def parts() -> AsyncIterator[bytes]:
        for part in (b"4he", b"llo\x1e", b"4world"):
            yield part

    assert (await session.post(parts())).text == "ok"
    assert await session.packets(2) == ["4hello", "4world"]


async def test_a_post_larger_than_max_payload_ends_the_session() -> None:
    async with wire(echo_engine(max_http_buffer_size=100)) as small:
        session = await small.open()
        assert session.handshake["maxPayload"] == 100
        assert (await session.post("4" + "x" * 99)).status_code == 200
        assert (await session.post("4" + "x" * 100)).status_code == 413
        assert await session.is_over()


# --- Receiving data


async def test_two_polls_at_once_end_the_session(echo: Wire) -> None:
    session = await echo.open()
    answers = await asyncio.gather(session.get(), session.get())
    # the one that waited is told that the session is closed
    assert sorted((answer.status_code, answer.text[:1]) for answer in answers) == [(200, "1"), (400, "{")]
    assert await session.is_over()


async def test_a_client_that_leaves_its_poll_ends_the_session(echo: Wire) -> None:
    session = await echo.open()
    host, port = echo.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /engine.io/?EIO=4&transport=polling&sid={session.sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    while not session.socket.polled:
        await asyncio.sleep(0)
    writer.close()
    assert await echo.ended.get() == (session.sid, "transport close")
    assert await session.is_over()


async def test_a_poll_waits_until_there_is_a_packet(echo: Wire) -> None:
    session = await echo.open()
    async with session.waiting() as poll:
        await session.post("4hello")
        assert (await poll).text == "4hello"


async def test_a_large_response_is_compressed_where_the_client_takes_it(echo: Wire) -> None:
    session = await echo.open()
    for accepted, encoding in (("gzip", "gzip"), ("identity", None)):
        await session.post("4" + "x" * 5000)
        response = await session.get(**{"accept-encoding": accepted})
        assert response.text == "4" + "x" * 5000
        assert response.headers.get("content-encoding") == encoding


# --- Transports, WebSocket


@pytest.mark.parametrize(
    "query",
    [
        {"transport": "websocket"},
        {"EIO": "abc", "transport": "websocket"},
        {"EIO": "4"},
        {"EIO": "4", "transport": "abc"},
        {"EIO": "4", "transport": "polling"},
        {"EIO": "4", "transport": "websocket", "sid": "unknown"},
    ],
    ids=str,
)
async def test_a_websocket_that_is_none_is_refused(echo: Wire, query: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await echo.websocket(**query)
    assert refused.value.response.status_code == 400
    assert not echo.engine.sockets


async def test_a_second_websocket_of_a_session_is_closed(echo: Wire) -> None:
    session = await echo.open()
    async with session.websocket() as first:
        await first.send("2probe")
        assert await first.recv() == "3probe"
        async with session.websocket() as second:  # while the first is upgrading
            assert await until_closed(second) == []
        await first.send("5")
        await first.send("4hello")
        assert await first.recv() == "4hello"
        async with session.websocket() as third:  # and after
            assert await until_closed(third) == []
        await first.send("4again")
        assert await first.recv() == "4again"


# --- Protocol, handshake


async def test_handshake_on_polling() -> None:
    async with wire(echo_engine(ping_interval=0.3, ping_timeout=0.25)) as echo:
        handshake = (await echo.open()).handshake
        assert isinstance(handshake.pop("sid"), str)
        assert handshake == {
            "upgrades": ["websocket"],
            "pingInterval": 300,
            "pingTimeout": 250,
            "maxPayload": 1_000_000,
        }


async def test_handshake_on_websocket(echo: Wire) -> None:
    async with echo.websocket(EIO="4", transport="websocket") as websocket:
        opened = str(await websocket.recv())
    assert opened[0] == "0"
    handshake = json.loads(opened[1:])
    assert handshake["upgrades"] == []
    assert set(handshake) == {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}


async def test_without_upgrades_none_is_offered_or_made() -> None:
    async with wire(echo_engine(allow_upgrades=False)) as echo:
        session = await echo.open()
        assert session.handshake["upgrades"] == []
        with pytest.raises(InvalidStatus):
            await session.websocket()
        assert (await session.post("4hello")).status_code == 200


async def test_a_transport_that_is_switched_off_is_refused() -> None:
    async with wire(echo_engine(transports=["websocket"])) as echo:
        assert (await echo.request("GET", GOOD)).status_code == 400
        async with echo.open_websocket():
            pass


# --- Protocol, heartbeat


async def test_pings_and_pongs_on_polling() -> None:
    async with wire(echo_engine(ping_interval=0.01, ping_timeout=20)) as echo:
        session = await echo.open()
        for _ in range(3):
            assert (await session.get()).text == "2"
            assert (await session.post("3")).status_code == 200


async def test_pings_and_pongs_on_websocket() -> None:
    async with wire(echo_engine(ping_interval=0.01, ping_timeout=20)) as echo, echo.open_websocket() as websocket:
        for _ in range(3):
            assert await websocket.recv() == "2"
            await websocket.send("3")


async def test_a_polling_client_that_answers_no_ping_is_gone() -> None:
    async with wire(echo_engine(ping_interval=0.01, ping_timeout=0.01)) as echo:
        session = await echo.open()
        assert await echo.ended.get() == (session.sid, "ping timeout")
        assert await session.is_over()
        assert (await session.post("3")).status_code == 400


async def test_a_poll_that_waits_is_told_of_the_ping_timeout(echo: Wire) -> None:
    session = await echo.open()
    async with session.waiting() as poll:
        await session.socket.expire()
        assert (await poll).text == "1"
    assert await session.is_over()


async def test_a_websocket_that_answers_no_ping_is_closed() -> None:
    async with wire(echo_engine(ping_interval=0.01, ping_timeout=0.01)) as echo, echo.open_websocket() as websocket:
        assert (await until_closed(websocket))[0] == "2"
        assert not echo.engine.sockets


# --- Protocol, upgrade


async def test_an_upgrade_ends_the_poll_that_waits_and_keeps_every_message(echo: Wire) -> None:
    session = await echo.open()
    async with session.waiting() as poll, session.websocket() as websocket:
        await websocket.send("2probe")
        assert await websocket.recv() == "3probe"
        assert (await poll).text == "6"
        assert (await session.get()).text == "6"  # and so does any other meanwhile
        await session.post("4while upgrading")
        await websocket.send("5")
        await websocket.send("4after")
        assert await websocket.recv() == "4while upgrading"
        assert await websocket.recv() == "4after"


async def test_after_the_upgrade_http_is_refused_and_the_websocket_goes_on(echo: Wire) -> None:
    session = await echo.open()
    async with session.websocket() as websocket:
        await websocket.send("2probe")
        assert await websocket.recv() == "3probe"
        await websocket.send("5")
        await websocket.send("4hello")
        assert await websocket.recv() == "4hello"
        assert (await session.get()).status_code == 400
        assert (await session.post("4no")).status_code == 400
        await websocket.send("4still here")
        assert await websocket.recv() == "4still here"


@pytest.mark.parametrize("packets", [["4hello"], ["2"], ["2probe", "4hello"], ["2probe"], [b"2probe"]], ids=str)
async def test_where_an_upgrade_fails_polling_goes_on(echo: Wire, packets: list[str | bytes]) -> None:
    session = await echo.open()
    async with session.websocket() as websocket:
        for packet in packets:
            await websocket.send(packet)
        if packets == ["2probe"]:  # and the client gives up
            assert await websocket.recv() == "3probe"
        else:
            await until_closed(websocket)
    while session.socket.upgrading:
        await asyncio.sleep(0)
    await session.post("4hello")
    assert (await session.get()).text == "4hello"
    await upgraded(session)  # another attempt may succeed


# --- Protocol, message; packet encoding


@pytest.mark.parametrize("text", ["4hello", "4", "4€ é 🎉", '4[1,2]{"a":', "4123", "4true", "4b"])
async def test_text_comes_back_as_it_was(echo: Wire, text: str) -> None:
    session = await echo.open()
    await session.post(text.encode())
    assert (await session.get()).text == text
    async with echo.open_websocket() as websocket:
        await websocket.send(text)
        assert await websocket.recv() == text


async def test_several_packets_of_one_request_stay_in_order(echo: Wire) -> None:
    session = await echo.open()
    await session.post(b"4one\x1ebAQIDBA==\x1e4\xe2\x82\xac")
    assert await session.packets(3) == ["4one", "bAQIDBA==", "4€"]


async def test_a_burst_of_any_number_of_packets_is_taken(echo: Wire) -> None:
    session = await echo.open()
    burst = [f"4{number}" for number in range(20_000)]
    assert (await session.post("\x1e".join(burst))).text == "ok"
    assert await session.packets(len(burst)) == burst


async def test_binary_is_sent_as_it_is_on_websocket(echo: Wire) -> None:
    async with echo.open_websocket() as websocket:
        for payload in (b"\x01\x02\x03\x04", b"", b"4text"):
            await websocket.send(payload)
            assert await websocket.recv() == payload


async def test_one_binary_packet_to_both_transports(echo: Wire) -> None:
    session = await echo.open()
    async with echo.open_websocket() as websocket:
        (other,) = set(echo.engine.sockets) - {session.sid}
        for receivers in ([session.sid, other], [other, session.sid]):
            for receiver in receivers:
                await echo.engine.send(receiver, b"\x01\x02\x03\x04")
            assert await websocket.recv() == b"\x01\x02\x03\x04"
            assert (await session.get()).text == "bAQIDBA=="


INVALID = ["abc", "7", "9hello", "", "0{}", "2", "5", "bnot base64!", "bA"]
"""No packets, or packets that a client may not send here (`2` and `5`: a ping and an upgrade)."""


@pytest.mark.parametrize("packet", [*INVALID, "4ok\x1eabc", "4ok\x1e", b"4\xff"], ids=repr)
async def test_a_malformed_post_is_refused_and_ends_the_session(echo: Wire, packet: str | bytes) -> None:
    session = await echo.open()
    async with session.waiting() as poll:
        assert (await session.post(packet)).status_code == 400
        assert (await poll).text[-1] == "1"
    assert await session.is_over()


@pytest.mark.parametrize("packet", INVALID, ids=repr)
async def test_a_malformed_packet_closes_the_websocket(echo: Wire, packet: str) -> None:
    async with echo.open_websocket() as websocket:
        await websocket.send(packet)
        await until_closed(websocket)
        assert not echo.engine.sockets


async def test_noop_means_nothing(echo: Wire) -> None:
    session = await echo.open()
    assert (await session.post("6\x1e4hello")).status_code == 200
    assert (await session.get()).text == "4hello"


# --- Protocol, close


async def test_close_on_polling(echo: Wire) -> None:
    session = await echo.open()
    async with session.waiting() as poll:
        assert (await session.post("1")).text == "ok"
        assert (await poll).text == "6"
    assert await echo.ended.get() == (session.sid, "client disconnect")
    assert await session.is_over()


async def test_close_on_websocket(echo: Wire) -> None:
    async with echo.open_websocket() as websocket:
        await websocket.send("1")
        await until_closed(websocket)
    assert (await echo.ended.get())[1] == "client disconnect"


async def test_what_follows_a_close_is_not_heard(echo: Wire) -> None:
    session = await echo.open()
    async with session.waiting() as poll:
        await session.post("4before\x1e1\x1e4after")
        assert (await poll).text.split("\x1e")[0] == "4before"
        assert "after" not in (await poll).text


async def test_the_server_closes_both_transports(echo: Wire) -> None:
    session = await echo.open()
    async with session.waiting() as poll, echo.open_websocket() as websocket:
        await echo.engine.close_all()
        assert (await poll).text == "1"
        await until_closed(websocket)
    assert not echo.engine.sockets


# --- Headers: other sites (CORS)


async def test_requests_of_other_sites_are_taken_from_those_allowed() -> None:
    async with wire(echo_engine(cors_allowed_origins=["https://good.example"])) as echo:
        good, bad = {"Origin": "https://good.example"}, {"Origin": "https://bad.example"}
        preflight = await echo.request("OPTIONS", GOOD, headers=good)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://good.example"
        opened = await echo.request("GET", GOOD, headers=good)
        assert opened.headers["access-control-allow-origin"] == "https://good.example"
        assert (await echo.request("GET", GOOD, headers=bad)).status_code == 400
