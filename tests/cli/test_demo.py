"""`gapless demo`, as a person and as a script run it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from gapless.cli.demo import called_as
from gapless.testing import free_port
from tests.cli.harness import gapless, running

CLIENTS = {"socketio", "mqtt", "mqtt-ws", "sse", "poll"}
DOORS = ["REST", "Socket.IO", "MQTT QoS 1", "MQTT QoS 2", "Python"]


async def test_once_every_client_receives_each_event_exactly_once() -> None:
    done = await gapless("demo", "--once", "--json")
    assert done.code == 0, done
    (result,) = map(json.loads, done.out.splitlines())
    assert result["ok"] is True
    assert result["faults"] == []
    assert [event["door"] for event in result["events"]] == DOORS
    for event in result["events"]:
        assert {name: heard["count"] for name, heard in event["received"].items()} == dict.fromkeys(CLIENTS, 1)
    offsets = [int(event["position"].partition(":")[2]) for event in result["events"]]
    assert offsets == sorted(offsets)


async def test_for_people_it_prints_one_table_and_a_verdict_without_colours_when_piped() -> None:
    done = await gapless("demo", "--once")
    assert done.code == 0, done
    assert done.out.count("Lead created: Acme Corp") == 1
    assert done.out.count("×1") == 25
    assert "PASSED: 5 clients received each of 5 events exactly once" in done.out
    assert "\x1b" not in done.out
    assert done.err == ""


async def test_a_second_run_on_the_same_log_is_not_disturbed_by_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        done = await gapless("demo", "--once", "--keep", str(tmp_path), "--json")
        assert done.code == 0, done
    assert (tmp_path / "events.db").exists()


async def test_stays_up_until_ctrl_c_and_names_the_page() -> None:
    port = free_port()
    async with running("demo", "--port", str(port)) as demo:
        while "Watch and publish" not in (line := await demo.line()):
            assert line or not demo.process.stdout or not demo.process.stdout.at_eof()
        assert f"http://127.0.0.1:{port}/" in line
        done = await gapless(
            *("publish", "--url", f"http://127.0.0.1:{port}", "--type", "lead:created"),
            *("--data", '{"leadId":"7"}'),
        )
        assert done.code == 0, done
        demo.process.send_signal(signal.SIGINT)
        assert await demo.end() == 0


async def test_a_port_in_use_is_said_so() -> None:
    async with running("demo", "--json") as first:
        result = json.loads(await first.line())
        port = result["http"].rpartition(":")[2]
        done = await gapless("demo", "--once", "--port", port)
        assert done.code == 2
        assert "in use" in done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize(("path", "called"), [("", ".venv/bin/gapless"), (".venv/bin", "gapless")])
def test_what_is_to_be_copied_names_the_command_as_it_can_be_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, called: str
) -> None:
    command = tmp_path / ".venv" / "bin" / "gapless"
    command.parent.mkdir(parents=True)
    command.touch(0o755)
    monkeypatch.setattr("sys.argv", [".venv/bin/gapless", "demo"])
    monkeypatch.setenv("PATH", str(tmp_path / path))
    assert called_as() == called
