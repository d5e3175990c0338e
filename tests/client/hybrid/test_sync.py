"""The client without asyncio: threads, time-outs, closing from elsewhere, Ctrl-C."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gapless.client import Client, ClientEvent, ClientOptions, Closed, Gap, NetworkError, SyncClient, TokenFailed
from gapless.config import Settings
from gapless.errors import ConfigError, InvalidRequest, UnknownRoom
from gapless.gateway import Gateway
from gapless.testing import free_port

NOTE = "note:collaboration"


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(Settings(port=0, mqtt_port=None, data=None)) as gateway:
        yield gateway


async def blocking(work: Callable[[SyncClient], Any], gateway: Gateway, **options: Any) -> Any:
    """What an application's thread does with a client."""

    def thread() -> Any:
        with SyncClient(gateway.http_url, **options) as rt:
            return work(rt)

    async with asyncio.timeout(30):
        return await asyncio.to_thread(thread)


def n_of(item: ClientEvent | Gap | None) -> int:
    assert isinstance(item, ClientEvent)
    n: int = item.data["n"]
    return n


def test_it_takes_what_the_other_takes() -> None:
    names = set(inspect.signature(Client).parameters)
    assert set(ClientOptions.__annotations__) == names - {"url"}


async def test_threads_publish_while_another_one_iterates(gateway: Gateway) -> None:
    def work(rt: SyncClient) -> list[int]:
        events = rt.subscribe("note:1")
        events.ready()
        assert rt.status.is_whole
        with ThreadPoolExecutor(4) as pool:
            for answer in pool.map(lambda n: rt.publish(NOTE, {"noteId": "1", "n": n}), range(20)):
                assert answer.position is not None
        rest = [rt.enqueue(NOTE, {"noteId": "1", "n": n}, id=f"n-{n}") for n in (20, 21)]
        assert [each.result(20).id for each in rest] == ["n-20", "n-21"]
        found: list[int] = []
        for event in events:
            found.append(n_of(event))
            if len(found) == 22:
                break
        return found

    found = await blocking(work, gateway)
    assert sorted(found[:20]) == list(range(20))
    assert found[20:] == [20, 21]


async def test_a_time_out_loses_nothing(gateway: Gateway) -> None:
    def work(rt: SyncClient) -> None:
        with rt.subscribe("note:1") as events:
            events.ready()
            for n in range(3):
                with pytest.raises(TimeoutError):
                    events.get(timeout=0)
                rt.publish(NOTE, {"noteId": "1", "n": n})
                assert n_of(events.get(timeout=20)) == n
        assert events.get() is None
        assert list(events) == []

    await blocking(work, gateway)


async def test_closing_from_another_thread_ends_iterations_and_refuses_calls(gateway: Gateway) -> None:
    def work(rt: SyncClient) -> None:
        events = rt.subscribe("note:1")
        events.ready()
        with ThreadPoolExecutor(4) as pool:
            hearing = pool.submit(list, events)
            watching = pool.submit(lambda: [each.connection for each in rt.changes()])
            pool.submit(rt.close).result(20)
            assert hearing.result(20) == []
            assert watching.result(20)[-1] == "closed"
        for call in (lambda: rt.publish(NOTE, {}), rt.ready, lambda: rt.subscribe("note:2"), lambda: rt.enqueue(NOTE)):
            with pytest.raises(Closed):
                call()
        rt.close()
        events.close()
        assert rt.status.connection == "closed"

    await blocking(work, gateway)


def test_a_publication_without_an_answer_is_refused_when_another_thread_closes(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    with SyncClient(url, store=tmp_path / "client.sqlite") as rt:
        waiting = rt.enqueue(NOTE, {"noteId": "1"})
        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(rt.publish, NOTE, {"noteId": "2"})
            for status in rt.changes():
                if status.queue_length == 2:
                    break
            rt.close()
            with pytest.raises(Closed):
                publishing.result(20)
        with pytest.raises(Closed):
            waiting.result(20)
    with SyncClient(url, store=tmp_path / "client.sqlite") as rt:
        assert rt.status.queue_length == 2


def test_it_says_how_to_use_it() -> None:
    url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    with pytest.raises(ConfigError):
        SyncClient("mqtt://127.0.0.1")
    rt = SyncClient(url)
    rt.close()
    for call in (rt.ready, lambda: rt.publish(NOTE), rt.reconnect, lambda: rt.status):
        with pytest.raises(InvalidRequest, match="not opened"):
            call()
    with rt:
        with pytest.raises(NetworkError):
            rt.ready()
        rt.reconnect()
        rt.network_changed()
        with pytest.raises(InvalidRequest, match="opened before"):
            rt.__enter__()


def test_what_fails_at_the_opening_is_raised_and_leaves_no_thread() -> None:
    def token() -> str:
        raise OSError("no keyring")

    before = threading.active_count()
    with pytest.raises(TokenFailed, match="no keyring"), SyncClient("http://127.0.0.1:9", token=token):
        pass
    assert threading.active_count() == before


async def test_a_callback_that_calls_its_client_is_told_instead_of_waiting_for_ever(gateway: Gateway) -> None:
    raised: list[BaseException] = []

    def work(rt: SyncClient) -> None:
        clients.append(rt)
        with rt.subscribe("no-such-kind:1") as events, pytest.raises(UnknownRoom):
            events.ready()

    def on_error(*_: object) -> None:
        for call in (clients[0].ready, clients[0].close):
            try:
                call()
            except InvalidRequest as error:
                raised.append(error)

    clients: list[SyncClient] = []
    await blocking(work, gateway, on_error=on_error)
    assert len(raised) == 2


INTERRUPTED = """
import sys
from gapless.client import SyncClient
with SyncClient(sys.argv[1], store=sys.argv[2]) as rt:
    events = rt.subscribe("note:1")
    events.ready()
    print("ready", flush=True)
    try:
        for event in events:
            print(event.data["n"], flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    rt.publish("note:collaboration", {"noteId": "1", "n": 2})
    print(events.get(timeout=20).data["n"], flush=True)
    sys.stdin.read()
"""


async def test_ctrl_c_interrupts_an_iteration_which_may_go_on_and_ends_a_program(
    gateway: Gateway, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", INTERRUPTED, gateway.http_url, str(tmp_path / "client.sqlite")]
    child = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    async with asyncio.timeout(30):
        assert await child.stdout.readline() == b"ready\n"
        await gateway.publish(type=NOTE, data={"noteId": "1", "n": 1})
        assert await child.stdout.readline() == b"1\n"
        child.send_signal(signal.SIGINT)
        assert await child.stdout.readline() == b"interrupted\n"
        assert await child.stdout.readline() == b"2\n"
        child.send_signal(signal.SIGINT)
        said = await child.stderr.read()
        assert await child.wait() == -signal.SIGINT
    assert said.rstrip().endswith(b"KeyboardInterrupt"), said.decode()
    # The second one left `with` by an exception: the event in hand was not handled.
    async with Client(gateway.http_url, store=tmp_path / "client.sqlite") as rt:
        assert n_of(await anext(rt.subscribe("note:1"))) == 2
