"""The helper's own behaviour, shown with a small stand-in; the real gateway has tests of its own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from gapless.testing import Gateway, ProcessFailed, run_gateway
from gapless.testing.ports import free_port

COMMAND = (sys.executable, str(Path(__file__).parent / "fake_gateway.py"))


def behave(how: str, **options: Any) -> Any:
    return run_gateway("--behave", how, command=COMMAND, **options)


async def starts_of(gateway: Gateway) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    try:
        return int(await reader.read())
    finally:
        writer.close()
        await writer.wait_closed()


async def test_it_starts_and_says_where() -> None:
    async with run_gateway(command=COMMAND) as gateway:
        assert gateway.http == f"http://127.0.0.1:{gateway.http_port}"
        assert gateway.ws == f"ws://127.0.0.1:{gateway.http_port}"
        assert gateway.mqtt == f"mqtt://127.0.0.1:{gateway.mqtt_port}"
        assert gateway.mqtt_ws == f"ws://127.0.0.1:{gateway.http_port}/mqtt"
        assert gateway.epoch == "e1"
        assert await starts_of(gateway) == 1


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_it_comes_back_on_the_same_ports_and_data(end: str) -> None:
    async with run_gateway(command=COMMAND) as gateway:
        before = (gateway.http, gateway.mqtt, gateway.pid)
        await getattr(gateway, end)()
        assert not gateway.is_running()
        await gateway.start()
        assert (gateway.http, gateway.mqtt) == before[:2]
        assert gateway.pid != before[2]
        assert await starts_of(gateway) == 2


async def test_pause_and_resume() -> None:
    async with run_gateway(command=COMMAND) as gateway:
        gateway.pause()
        asked = asyncio.create_task(starts_of(gateway))
        gateway.resume()
        assert await asked == 1


async def test_a_given_data_folder_is_kept(tmp_path: Path) -> None:
    for expected in (1, 2):
        async with run_gateway(command=COMMAND, data=tmp_path) as gateway:
            assert await starts_of(gateway) == expected


async def test_its_own_data_folder_is_removed() -> None:
    async with run_gateway(command=COMMAND) as gateway:
        assert gateway.data.is_dir()
    assert not gateway.data.exists()


async def test_without_the_mqtt_port() -> None:
    async with run_gateway(command=COMMAND, mqtt=False) as gateway:
        with pytest.raises(RuntimeError, match="without its MQTT port"):
            _ = gateway.mqtt


async def test_environment_and_stderr() -> None:
    async with run_gateway(command=COMMAND, env={"FAKE_NOTE": "hello"}) as gateway:
        await gateway.stop()
        assert gateway.stderr_tail() == "listening, start 1, hello"


async def test_an_early_end_carries_its_output() -> None:
    with pytest.raises(ProcessFailed, match="on fire") as caught:
        async with behave("fail"):
            pytest.fail("it must not start")
    assert caught.value.exit_code == 2


async def test_a_gateway_that_never_gets_ready_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Gateway, "ready_within", 0.5)
    gateway = Gateway("--behave", "silent", data=tmp_path, command=COMMAND)
    with pytest.raises(ProcessFailed, match="was not ready within"):
        await gateway.start()
    assert not gateway.is_running()


async def test_an_unclean_exit_is_an_error() -> None:
    with pytest.raises(ProcessFailed, match="did not exit cleanly") as caught:
        async with behave("dirty"):
            pass
    assert caught.value.exit_code == 3


async def test_one_that_does_not_stop_is_killed_and_reported() -> None:
    async with behave("deaf") as gateway:
        with pytest.raises(ProcessFailed, match="did not stop within"):
            await gateway.stop(within=0.2)
        assert not gateway.is_running()


async def test_a_crash_in_the_block_is_reported_at_its_end() -> None:
    # At the end of the block the exit may not have been seen yet: then it is an unclean stop.
    with pytest.raises(ProcessFailed, match="ended by itself|did not exit cleanly") as caught:
        async with behave("crash") as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
            assert await reader.read() == b""
            writer.close()
    assert caught.value.exit_code == 9


async def test_an_end_that_was_waited_for_is_no_error() -> None:
    async with behave("crash") as gateway:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
        assert await gateway.wait_end() == 9
        writer.close()


async def test_an_error_in_the_block_takes_the_output_along_and_leaves_nothing_running() -> None:
    with pytest.raises(KeyError) as caught:
        async with run_gateway(command=COMMAND) as gateway:
            raise KeyError("the test's own")
    assert not gateway.is_running()
    assert any("listening, start 1" in note for note in caught.value.__notes__)


async def test_a_port_taken_meanwhile_is_tried_again_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    taken = free_port()
    server = await asyncio.start_server(ignore, "127.0.0.1", taken)
    ports = iter([taken, free_port(), free_port(), free_port()])
    monkeypatch.setattr("gapless.testing.gateway.free_port", lambda host: next(ports))
    try:
        async with run_gateway(command=COMMAND, data=tmp_path) as gateway:
            assert gateway.http_port != taken
    finally:
        server.close()


async def test_use_before_start_and_twice(tmp_path: Path) -> None:
    gateway = Gateway(data=tmp_path, command=COMMAND)
    with pytest.raises(RuntimeError, match="not started"):
        _ = gateway.http
    with pytest.raises(ProcessFailed, match="not started"):
        await gateway.kill()
    async with gateway:
        with pytest.raises(RuntimeError, match="running already"):
            await gateway.start()
