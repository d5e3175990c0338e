"""What a connection does besides the request itself: kept, closed, asked twice at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.http.conftest import Site

_EVENT = b'{"type":"lead:updated","data":{"leadId":"1"}}'
_NAMED = b'{"type":"lead:updated","id":"%b","data":{"leadId":"1"}}'


def post(*headers: bytes, version: bytes = b"1.1", path: bytes = b"/api/events", body: bytes = _EVENT) -> bytes:
    lines = (b"Host: localhost", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *headers)
    return b"POST %b HTTP/%b\r\n%b\r\n\r\n%b" % (path, version, b"\r\n".join(lines), body)


class Wire:
    """A connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def to(cls, site: Site) -> AsyncIterator[Wire]:
        wire = cls(*await asyncio.open_connection("127.0.0.1", site.port))
        try:
            yield wire
        finally:
            wire.writer.transport.abort()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, and the body by its length."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers.get("content-length", "0")))

    async def closed(self) -> bool:
        return await self.reader.read() == b""


@pytest.fixture
async def wire(site: Site) -> AsyncIterator[Wire]:
    async with Wire.to(site) as wire:
        yield wire


async def test_it_is_kept_for_the_next_request(wire: Wire) -> None:
    ids = set()
    for _ in range(2):
        wire.writer.write(post())
        status, headers, body = await wire.answer()
        assert (status, headers["content-type"], headers["cache-control"]) == (201, "application/json", "no-store")
        assert "connection" not in headers
        assert "date" in headers
        ids.add(json.loads(body)["id"])
    assert len(ids) == 2


@pytest.mark.parametrize("request_", [post(b"Connection: close"), post(version=b"1.0")], ids=["asked", "HTTP/1.0"])
async def test_it_is_closed_after_the_answer(wire: Wire, request_: bytes) -> None:
    wire.writer.write(request_)
    status, headers, _ = await wire.answer()
    assert (status, headers["connection"]) == (201, "close")
    assert await wire.closed()


async def test_requests_sent_at_once_are_answered_in_turn(wire: Wire) -> None:
    wire.writer.write(b"".join(post(body=_NAMED % (b"e%d" % n)) for n in range(5)))
    answers = [await wire.answer() for _ in range(5)]
    assert [json.loads(body)["id"] for _, _, body in answers] == [f"e{n}" for n in range(5)]


async def test_who_asks_first_is_told_to_go_on(wire: Wire) -> None:
    head, _, body = post(b"Expect: 100-continue").partition(b"\r\n\r\n")
    wire.writer.write(head + b"\r\n\r\n")
    assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.writer.write(body)
    assert (await wire.answer())[0] == 201


async def test_head_has_the_length_and_no_body(wire: Wire) -> None:
    wire.writer.write(b"HEAD /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" + post())
    head = (await wire.reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 200")
    assert "content-length: 0" not in head.lower()
    assert (await wire.answer())[0] == 201


async def test_an_answer_for_a_client_that_has_gone_harms_nobody(site: Site, wire: Wire) -> None:
    wire.writer.write(post(body=_NAMED % b"gone"))
    wire.writer.transport.abort()
    async with Wire.to(site) as other:
        other.writer.write(post(body=_NAMED % b"here"))
        status, _, body = await other.answer()
    assert (status, json.loads(body)["id"]) == (201, "here")
