"""The hybrid client against the real gateway, over links that are cut."""

from __future__ import annotations

import asyncio
import inspect
import runpy
from pathlib import Path

import pytest

from gapless.client import Client, ClientEvent, NetworkError, Subscription, TransportName
from gapless.config import Settings
from gapless.errors import InvalidRequest, PayloadTooLarge
from gapless.gateway import Gateway
from gapless.testing import Link, free_port, run_gateway

ROOT = Path(__file__).parents[3]


async def numbers(stream: Subscription, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        event = await anext(stream)
        assert isinstance(event, ClientEvent)
        found.append(event.data["n"])
    return found


async def test_each_transport_resumes_the_same_cursor(tmp_path: Path) -> None:
    store = tmp_path / "client.sqlite"
    transports: list[TransportName] = ["socketio", "mqtt", "sse", "poll"]
    async with run_gateway() as gateway, Link.to(gateway.http) as link:
        sent = 0

        async def publish(rt: Client, count: int) -> None:
            nonlocal sent
            for _ in range(count):  # by turns in the lead's room by their topic, and by their payload alone
                kind = "lead:updated" if sent % 2 else "activity:created"
                await rt.publish(kind, {"leadId": "1", "activityId": f"{sent}", "n": sent})
                sent += 1

        for transport in transports:
            first = sent
            async with Client(link.url("http"), store=store, transports=[transport]) as rt:
                if sent:
                    await publish(rt, 2)  # while nothing is heard
                stream = rt.subscribe("lead:1")
                await rt.ready(timeout=30)
                assert rt.status.transport == transport
                await publish(rt, 3)
                await link.cut()
                await publish(rt, 2)
                assert await numbers(stream, sent - first) == list(range(first, sent))


async def test_publications_outlive_a_client_that_was_never_connected(tmp_path: Path) -> None:
    store = tmp_path / "client.sqlite"
    async with run_gateway() as gateway, Link.to(gateway.http) as link:
        link.refuse()
        async with Client(link.url("http"), store=store) as rt:
            for n in range(5):
                publication = await rt.enqueue("note:collaboration", {"noteId": "1", "n": n})
                assert publication.is_stored
            with pytest.raises(NetworkError):
                await rt.ready()
        link.restore()
        async with Client(link.url("http"), store=store, after="start") as rt:
            assert await numbers(rt.subscribe("note:1"), 5) == list(range(5))
            with pytest.raises(PayloadTooLarge):
                await rt.publish("note:collaboration", {"noteId": "1", "text": "x" * 300_000})
            with pytest.raises(InvalidRequest):
                await rt.publish("no such type", {})


async def test_publications_at_the_same_time_each_have_their_answer(tmp_path: Path) -> None:
    async with run_gateway() as gateway, Client(gateway.http, store=tmp_path / "client.sqlite") as rt:
        work = [rt.publish("note:collaboration", {"noteId": "1", "n": n}, id=f"n-{n}") for n in range(300)]
        answers = await asyncio.gather(*work)
        assert [answer.id for answer in answers] == [f"n-{n}" for n in range(300)]
        assert rt.status.queue_length == 0


async def test_nothing_listens_there() -> None:
    async with Client(f"http://127.0.0.1:{free_port('127.0.0.1')}") as rt:
        with pytest.raises(NetworkError):
            await rt.ready()


async def test_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "clients" / "python.md").read_text()
    blocks = [rest.split("```")[0] for rest in text.split("```python\n")[1:]]
    script = tmp_path / "guide.py"
    monkeypatch.chdir(tmp_path)
    async with Gateway(Settings(port=0, mqtt_port=None, data=None)) as gateway, asyncio.timeout(30):
        for block in blocks:
            script.write_text(block)
            main = runpy.run_path(str(script))["main"]
            await (
                main(gateway.http_url)
                if inspect.iscoroutinefunction(main)
                else asyncio.to_thread(main, gateway.http_url)
            )
    assert capsys.readouterr().out.count("lead:updated {'leadId': '123', 'name': 'Acme Corp'}") == len(blocks) == 2
