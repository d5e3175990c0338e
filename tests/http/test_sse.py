"""`GET /api/stream`: the wire form, exact resume, slow readers, and an end when asked."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

import httpx
import pytest

from gapless.auth import DevelopmentGate
from gapless.delivery import Cursor
from gapless.event import Event, Origin, Record
from gapless.eventlog import Retention
from gapless.eventlog.memory import MemoryLog
from gapless.transports.http import HttpOptions
from gapless.transports.http.sse import Stream, sse_event
from tests.http.conftest import Site, client, running, stream
from tests.http.test_rest import error_of


async def opened(site: Site, count: int = 1) -> None:
    while site.doors.sse.open_streams != count:
        await asyncio.sleep(0)


async def test_the_wire_form(site: Site, http: httpx.AsyncClient) -> None:
    async with http.stream("GET", "/api/stream?rooms=lead:1") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        text = response.aiter_text()
        start = await anext(text)
        position = f"{site.log.epoch}:0"
        assert start == (
            f': gapless\nretry: 2000\n\nevent: gapless.position\nid: {position}\ndata: {{"position":"{position}"}}\n\n'
        )
        accepted = await site.publish(id="a")
        event = await anext(text)
        assert event.startswith(f'id: {accepted.position}\ndata: {{"id":"a","type":"lead:updated"')
        assert event.endswith("}\n\n")
        assert event.count("\n") == 3


async def test_named_events_carry_their_type(site: Site, http: httpx.AsyncClient) -> None:
    async with stream(http, "rooms=lead:1&named=1") as events:
        await events.next()
        accepted = await site.publish(id="a")
        name, data, own_id = await events.next()
        assert (name, data["id"], own_id) == ("lead:updated", "a", accepted.position)


@pytest.mark.parametrize("event_type", ["a\nid: forged:1", "a\rdata: forged"])
def test_a_type_cannot_forge_lines(event_type: str) -> None:
    event = Event(id="a", type=event_type, topic="t", rooms=("topic:t",), data=b"1", time=0, origin=Origin("rest"))
    text = sse_event(Record(event, 5, "e:5"), named=True)
    assert text.startswith(b"id: e:5\ndata: {")
    assert text.count(b"\n") == 3
    assert b"\r" not in text


@pytest.mark.parametrize("event_type", ["error", "open"])
def test_a_type_is_not_taken_for_news_of_the_connection(event_type: str) -> None:
    """An EventSource dispatches these by itself (HTML Living Standard §9.2.2)."""
    event = Event(id="a", type=event_type, topic="t", rooms=("topic:t",), data=b"1", time=0, origin=Origin("rest"))
    assert b"event:" not in sse_event(Record(event, 5, "e:5"), named=True)


async def test_events_are_encoded_once(site: Site, http: httpx.AsyncClient) -> None:
    event = Event(id="a", type="t", topic="t", rooms=("topic:t",), data=b"1", time=0, origin=Origin("rest"))
    record = Record(event, 5, "e:5")
    assert sse_event(record) is sse_event(record)
    assert sse_event(record, named=True) is sse_event(record, named=True)
    assert sse_event(record) != sse_event(record, named=True)


async def test_last_event_id_resumes_without_a_gap(site: Site, http: httpx.AsyncClient) -> None:
    async with stream(http, "rooms=lead:1") as events:
        await site.publish(id="e0")
        assert (await events.event())["id"] == "e0"
        last_id = events.last_id
    for number in range(1, 4):
        await site.publish(id=f"e{number}")
    # The URL still says what it said at first: what the client has goes before it.
    async with stream(http, "rooms=lead:1&after=start", last_event_id=str(last_id)) as events:
        await site.publish(id="e4")
        assert [(await events.event())["id"] for _ in range(4)] == ["e1", "e2", "e3", "e4"]


async def test_a_client_that_saw_nothing_resumes_from_where_it_began(site: Site, http: httpx.AsyncClient) -> None:
    await site.publish(id="before")
    async with stream(http, "rooms=lead:1") as events:
        await events.next()
        began = events.last_id
    await site.publish(id="missed")
    async with stream(http, "rooms=lead:1", last_event_id=str(began)) as events:
        assert (await events.event())["id"] == "missed"


async def test_after_reads_history_first(site: Site, http: httpx.AsyncClient) -> None:
    first = await site.publish(id="e0")
    await site.publish(id="e1")
    async with stream(http, "rooms=lead:1&after=start") as events:
        assert [(await events.event())["id"] for _ in range(2)] == ["e0", "e1"]
    async with stream(http, f"rooms=lead:1&after={first.position}") as events:
        assert (await events.event())["id"] == "e1"


async def test_an_event_in_several_of_the_rooms_comes_once(site: Site, http: httpx.AsyncClient) -> None:
    async with stream(http, "rooms=note:9,lead:1,org:global") as events:
        await events.next()
        await site.publish(id="a")
        await site.publish(topic="crm/notes/9/collaboration", id="cursor", data={"kind": "awareness"})
        await site.publish(id="b")
        assert [(await events.event())["id"] for _ in range(3)] == ["a", "cursor", "b"]


async def test_ephemeral_events_have_no_id(site: Site, http: httpx.AsyncClient) -> None:
    async with stream(http, "rooms=note:9") as events:
        await events.next()
        began = events.last_id
        await site.publish(topic="crm/notes/9/collaboration", id="cursor", data={"kind": "awareness"})
        _, data, own_id = await events.next()
        assert (data["id"], data["position"], own_id) == ("cursor", None, None)
        assert events.last_id == began


async def test_expired_events_are_left_out(site: Site, http: httpx.AsyncClient) -> None:
    clock = site.ingress.clock
    site.doors.sse._clock = lambda: clock() + 60
    async with stream(http, "rooms=lead:1") as events:
        await events.next()
        await http.post("/api/events", json={"topic": "crm/leads/1/updated", "id": "old", "expires_in": 1})
        await site.publish(id="live")
        assert (await events.event())["id"] == "live"
    async with stream(http, "rooms=lead:1&after=start") as events:
        assert (await events.event())["id"] == "live"


async def test_another_epoch_is_told(site: Site, http: httpx.AsyncClient) -> None:
    await site.publish()
    head = f"{site.log.epoch}:1"
    async with stream(http, "rooms=lead:1", last_event_id="other:7") as events:
        assert await events.next() == ("gapless.incomplete", {"position": head, "complete": False}, head)
        await site.publish(id="next")
        assert (await events.event())["id"] == "next"


async def test_a_position_older_than_what_is_kept_is_told_once() -> None:
    log = MemoryLog(retention=Retention(seconds=0, bytes=None), clock=lambda: 1.0)
    async with running(Site(log=log)) as site:
        for _ in range(3):
            await site.publish()
        await log.trim(now=100.0)
    site = Site(log=log)
    async with running(site), client(site) as http:
        await site.publish(id="e3")
        kept = f"{log.epoch}:3"
        async with stream(http, "rooms=lead:1", last_event_id=f"{log.epoch}:1") as events:
            assert await events.next() == ("gapless.incomplete", {"position": kept, "complete": False}, kept)
            name, data, _ = await events.next()
            assert (name, data["id"]) == ("message", "e3")


async def test_a_quiet_stream_shows_life_and_its_position(site: Site, http: httpx.AsyncClient) -> None:
    async with http.stream("GET", "/api/stream?rooms=lead:1") as response:
        text = response.aiter_text()
        await anext(text)
        site.doors.sse.beat()  # half a heartbeat
        site.doors.sse.beat()  # a whole one
        assert await anext(text) == ":\n"
        elsewhere = await site.publish(data={"leadId": "2"})
        site.doors.sse.beat()
        site.doors.sse.beat()
        position = elsewhere.position
        expected = f'event: gapless.position\nid: {position}\ndata: {{"position":"{position}"}}\n\n'
        assert await anext(text) == expected
        site.doors.sse.beat()
        site.doors.sse.beat()
        assert await anext(text) == ":\n"


async def test_the_heartbeat_beats_by_itself() -> None:
    async with running(Site(options=HttpOptions(stream_heartbeat=0.02))) as site, client(site) as http:
        async with http.stream("GET", "/api/stream?rooms=lead:1") as response:
            text = response.aiter_text()
            await anext(text)
            assert (await anext(text)).startswith(":\n")


async def test_a_token_may_come_in_the_query() -> None:
    async with running(Site(gate=DevelopmentGate("s3cret"))) as site, client(site) as http:
        error_of(await http.get("/api/stream?rooms=lead:1"), 401, "unauthorized")
        error_of(await http.get("/api/stream?rooms=lead:1&token=wrong"), 401, "unauthorized")
        async with stream(http, "rooms=lead:1&token=s3cret") as events:
            assert (await events.next())[0] == "gapless.position"
        async with stream(http, "rooms=lead:1", authorization="Bearer s3cret") as events:
            assert (await events.next())[0] == "gapless.position"


@pytest.mark.parametrize("text", ["nonsense", "a:-5", ":1", "a:"])
async def test_a_bad_last_event_id_is_refused(http: httpx.AsyncClient, text: str) -> None:
    response = await http.get("/api/stream?rooms=lead:1", headers={"last-event-id": text})
    error_of(response, 400, "invalid_position")


async def test_a_bad_switch_is_refused(http: httpx.AsyncClient) -> None:
    error_of(await http.get("/api/stream?rooms=lead:1&named=perhaps"), 400, "invalid_request")


async def test_too_many_streams_are_turned_away() -> None:
    async with running(Site(options=HttpOptions(max_streams=1))) as site, client(site) as http:
        async with stream(http, "rooms=lead:1"):
            error_of(await http.get("/api/stream?rooms=lead:1"), 503, "overloaded")


async def test_a_client_that_leaves_is_forgotten(site: Site, http: httpx.AsyncClient) -> None:
    async with stream(http, "rooms=lead:1,org:global"):
        await opened(site)
    await opened(site, 0)
    assert site.doors.sse._readers._by_room == {}


async def test_stopping_ends_every_stream(site: Site, http: httpx.AsyncClient) -> None:
    async with stream(http, "rooms=lead:1") as first, stream(http, "rooms=lead:2") as second:
        for events in (first, second):
            await events.next()
        await site.publish(id="last")
        await site.doors.stop()
        assert (await first.event())["id"] == "last"
        for events in (first, second):
            with pytest.raises(EOFError):
                await events.next()


class SlowReader:
    """A client that asks for a stream and does not read, until it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, site: Site, query: str) -> SlowReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1024)
        writer.write(f"GET /api/stream?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await opened(site)
        return cls(reader, writer)

    async def ids(self, count: int) -> list[str]:
        """The ids of the next events, control events left out."""
        found: list[str] = []
        pending = b""
        while len(found) < count:
            size = int((await self.reader.readline()).strip() or b"0", 16) if self.started else await self._headers()
            pending += await self.reader.readexactly(size)
            if size:
                await self.reader.readexactly(2)
            while b"\n\n" in pending:
                block, _, pending = pending.partition(b"\n\n")
                lines = [line for line in block.split(b"\n") if line.startswith(b"data: ")]
                if lines and not block.startswith(b"event: gapless"):
                    found.append(json.loads(lines[0][6:])["id"])
        return found

    started = False

    async def _headers(self) -> int:
        while await self.reader.readline() != b"\r\n":
            pass
        self.started = True
        return 0


async def test_a_slow_reader_is_fed_from_the_log_and_slows_nobody() -> None:
    async with running(Site()) as site, client(site) as http:
        slow = await SlowReader.open(site, "rooms=lead:1")
        async with stream(http, "rooms=lead:1") as quick:
            await opened(site, 2)
            total, text = 400, "x" * 40_000  # 16 MB: more than any socket buffer holds
            for number in range(total):
                await site.publish(id=f"e{number}", data={"leadId": "1", "text": text})
                assert (await quick.event())["id"] == f"e{number}"
            held = site.doors.sse.held
            assert held < 200_000  # of both streams
            assert site.doors.sse.fell_behind >= 1
        assert await slow.ids(total) == [f"e{number}" for number in range(total)]
        await site.publish(id="live again")
        assert await slow.ids(1) == ["live again"]
        slow.writer.close()


async def test_stopping_cuts_a_stream_whose_client_does_not_read() -> None:
    async with running(Site()) as site:
        slow = await SlowReader.open(site, "rooms=lead:1")
        for _ in range(400):
            await site.publish(data={"leadId": "1", "text": "x" * 40_000})
        await site.doors.stop()
        assert site.doors.sse.open_streams == 0
        slow.writer.close()


def record(offset: int) -> Record:
    data = b'"' + b"x" * 300 + b'"'
    event = Event(id="a", type="t", topic="t", rooms=("topic:t",), data=data, time=0, origin=Origin("rest"))
    return Record(event, offset, f"e:{offset}" if offset else None)


async def test_a_full_stream_drops_ephemeral_events_first() -> None:
    full = Stream(Cursor(0, live=True), named=False, max_bytes=1500, max_events=100)
    assert full.offer(record(0))
    assert full.offer(record(1))
    assert not full.offer(record(0))
    assert full.offer(record(2))
    assert full.offer(record(3))
    assert not full.offer(record(4))
    assert (full.cursor.live, full.cursor.position) == (False, 3)
    assert not full.offer(record(5))
    text = full.take()
    assert [line for line in text.split(b"\n") if line.startswith(b"id:")] == [b"id: e:1", b"id: e:2", b"id: e:3"]


async def test_a_stream_is_bounded_in_events_too() -> None:
    full = Stream(Cursor(0, live=True), named=False, max_bytes=1 << 20, max_events=3)
    assert [full.offer(record(offset)) for offset in range(1, 6)] == [True, True, True, False, False]
    assert (full.cursor.live, full.cursor.position) == (False, 3)


async def test_readers_that_come_and_go_get_every_event_once_in_order(site: Site, http: httpx.AsyncClient) -> None:
    total = 400

    async def pour() -> None:
        for number in range(total):
            await site.publish(id=f"e{number}")
            await asyncio.sleep(0)

    async def listen(every: int) -> list[str]:
        got: list[str] = []
        last_id = f"{site.log.epoch}:0"
        while len(got) < total:
            async with stream(http, "rooms=lead:1", last_event_id=last_id) as events:
                wanted = min(every, total - len(got))
                got += [(await events.event())["id"] for _ in range(wanted)]
                last_id = str(events.last_id)
        return got

    listeners = [asyncio.create_task(listen(every)) for every in (3, 50, 1000)]
    await pour()
    for got in await asyncio.gather(*listeners):
        assert got == [f"e{number}" for number in range(total)]


@pytest.mark.needs_curl
async def test_curl_reads_the_stream(site: Site) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    process = await asyncio.create_subprocess_exec(
        curl, "-sN", f"{site.url}/api/stream?rooms=lead:1", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await opened(site)
    await site.publish(id="a")
    while not (line := await process.stdout.readline()).startswith(b'data: {"id"'):
        assert line
    document: dict[str, Any] = json.loads(line[6:])
    assert document["id"] == "a"
    await site.doors.stop()
    assert await process.wait() == 0
