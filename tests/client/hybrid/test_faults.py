"""The client against a real gateway and faults of every kind: each event once and in order, or an error with a code."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import pytest

from gapless.client import Client, Published, TransportName
from gapless.config import Settings
from gapless.errors import GaplessError
from gapless.gateway import Gateway
from gapless.testing import Link, run_gateway
from tests.client.hybrid.support import BOUNDS, LADDER, NOTE, Application, application, links, number, numbers

LADDERS = [order[turn:] + order[:turn] for order in (LADDER, LADDER[::-1]) for turn in range(4)]


async def lose_all_in_turn(app: Application, ladder: tuple[TransportName, ...], fault: str) -> None:
    """Take one transport after the other away while it is in use, the last one too; then give all back."""
    for name in ladder:
        await app.connected(name)
        await app.hears_more()
        if fault == "killed":
            app.links[name].refuse()
            await app.links[name].cut()
        else:
            app.links[name].blackhole()
    seen = len(app.statuses)
    await app.until(lambda: any(status.transport is None for status in app.statuses[seen - 1 :]))
    for link in app.links.values():
        await link.cut()  # a network that has forgotten its connections meanwhile
        link.restore()
    await app.connected()
    await app.hears_more()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("fault", ["killed", "blackholed"])
async def test_each_transport_in_the_middle_of_a_stream(
    fault: Literal["killed", "blackholed"], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(Gateway(Settings(port=0, mqtt_port=None, data=None)))
        link_up = await stack.enter_async_context(links(gateway.http_url, monkeypatch))

        async def publish(n: int) -> None:
            await gateway.publish(type=NOTE, data=number(n))

        apps = []
        for ladder in LADDERS:
            client = Client(gateway.http_url, transports=ladder, bounds=BOUNDS)
            mine = await link_up(client)
            app = await stack.enter_async_context(application(client))
            app.links = mine
            apps.append(app)
        await asyncio.gather(*(app.connected() for app in apps))
        async with numbers(publish) as stream:
            await asyncio.gather(*map(lose_all_in_turn, apps, LADDERS, [fault] * len(apps)))
        await publish(stream.published)
        for app in apps:
            await app.until(lambda app=app: app.numbers[-1] == stream.published)  # type: ignore[misc]
            assert app.numbers == list(range(stream.published + 1))
            assert app.client.status.failovers >= 3


@pytest.mark.timeout(120)
async def test_the_gateway_killed_and_started_again(tmp_path: Path) -> None:
    async with run_gateway() as gateway, AsyncExitStack() as stack:
        apps = [
            await stack.enter_async_context(application(Client(gateway.http, transports=[name], bounds=BOUNDS)))
            for name in LADDER
        ]
        await asyncio.gather(*(app.connected() for app in apps))
        publisher = await stack.enter_async_context(Client(gateway.http, store=tmp_path / "outbox.sqlite"))
        answers = []

        async def publish(n: int) -> None:
            answers.append(await publisher.enqueue(NOTE, number(n)))

        async with numbers(publish) as stream:
            await asyncio.gather(*(app.hears_more() for app in apps))
            await gateway.kill()
            await asyncio.gather(*(app.until(lambda app=app: not app.client.status.is_whole) for app in apps))  # type: ignore[misc]
            await gateway.start()
            await asyncio.gather(*(app.hears_more() for app in apps))
        positions = [(await answer).position for answer in answers]
        assert len(set(positions)) == stream.published
        for app in apps:
            await app.until(lambda app=app: app.numbers[-1:] == [stream.published - 1])  # type: ignore[misc]
            assert app.numbers == list(range(stream.published))


ENQUEUE = """
import asyncio, sys
from gapless.client import Client

async def main(url, store):
    async with Client(url, store=store) as rt:
        for n in range(5):
            publication = await rt.enqueue("note:collaboration", {"noteId": "1", "n": n}, id=f"n-{n}")
            assert publication.is_stored
        print("stored", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("moment", ["before anything was sent", "before the answer came"])
async def test_a_client_killed_between_enqueue_and_answer(moment: str, tmp_path: Path) -> None:
    store = tmp_path / "client.sqlite"
    async with Gateway(Settings(port=0, mqtt_port=None, data=None)) as gateway, Link.to(gateway.http_url) as link:
        if moment == "before anything was sent":
            link.refuse()
        else:
            link.blackhole("to_client")
        command = [sys.executable, "-c", ENQUEUE, link.url("http"), str(store)]
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert await child.stdout.readline() == b"stored\n"
        async with application(Client(gateway.http_url, after="start")) as app:
            if moment == "before the answer came":
                await app.until(lambda: app.numbers == [0])  # sent alone: the others wait for its answer
            child.kill()
            await child.wait()
            await link.cut()
            link.restore()
            sent: dict[str, Published | GaplessError] = {}
            async with Client(link.url("http"), store=store, on_sent=sent.__setitem__) as rt:
                # The next one goes out behind what was left over.
                await rt.publish(NOTE, number(5))
                assert rt.status.queue_length == 0
            await app.until(lambda: app.numbers[-1:] == [5])
            assert app.numbers == list(range(6))
    known = {name for name, answer in sent.items() if isinstance(answer, Published) and answer.duplicate}
    assert list(sent) == [f"n-{n}" for n in range(5)]
    assert known == ({"n-0"} if moment == "before the answer came" else set())


async def test_what_is_too_large_or_unknown_is_refused_and_the_rest_goes_on() -> None:
    async with Gateway(Settings(port=0, mqtt_port=None, data=None)) as gateway:
        async with application(Client(gateway.http_url)) as app:
            await app.connected()
            rt = app.client
            calls = [
                rt.publish(NOTE, number(0)),
                rt.publish(NOTE, number(1) | {"text": "x" * 300_000}),
                rt.publish("no such type", {}),
                rt.publish(NOTE, number(2)),
                rt.publish(NOTE, {"no": {"number": object()}}),
                rt.publish(),
                rt.publish(NOTE, number(3), ephemeral=True),
            ]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            codes = [each.code if isinstance(each, GaplessError) else None for each in answers]
            wrong = "invalid_request"
            assert codes == [None, "payload_too_large", "unknown_topic", None, wrong, wrong, None]
            await app.until(lambda: len(app.items) == 3)
            assert sorted(app.numbers) == [0, 2, 3]
            assert rt.status.is_whole
            assert rt.status.queue_length == 0
