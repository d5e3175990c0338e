"""Short runs of the whole: `gapless torture` as users run it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import pytest

from gapless.testing import run_gateway
from gapless.torture.gateway import CLOCK, set_clock
from gapless.torture.world import TortureFailed, find_modules
from tests.cli.harness import Finished, gapless

JS = Path(__file__).parents[1] / "js" / "node_modules"


@pytest.mark.needs_node
@pytest.mark.timeout(180)
async def test_a_short_run_with_every_kind_of_client_has_no_violation(tmp_path: Path) -> None:
    folder = tmp_path / "history"
    done = await gapless(
        *("torture", "--seed", "1", "--seconds", "8", "--events", "600"),
        *("--node-modules", str(JS), "--keep", str(folder), "--json"),
    )
    assert_passed(done)
    [result] = done.lines
    assert result["clients"] == 14
    assert result["faults"]
    again = await gapless("torture", "--check", str(folder), "--json")
    assert_passed(again)
    assert {key: again.lines[0][key] for key in again.lines[0]} == {key: result[key] for key in again.lines[0]}


@pytest.mark.timeout(180)
async def test_without_javascript_and_in_words(tmp_path: Path) -> None:
    empty = {"NODE_PATH": ""}
    arguments = ("torture", "--seed", "4", "--seconds", "3", "--clients", "5", "--events", "200")
    done = await gapless(*arguments, env=empty, cwd=tmp_path)
    assert done.code == 0, done
    assert "no JavaScript clients" in done.err
    assert "PASSED" in done.out
    assert "lost 0, duplicated 0, reordered 0, invented 0" in done.out
    assert list(tmp_path.iterdir()) == []


def assert_passed(done: Finished) -> None:
    assert done.code == 0, (done.out[-5000:], done.err)
    assert done.lines[0]["ok"] is True


async def test_a_folder_that_holds_no_run_is_named(tmp_path: Path) -> None:
    done = await gapless("torture", "--check", str(tmp_path))
    assert done.code == 1
    assert str(tmp_path) in done.err.replace("\n", "")


def test_missing_packages_are_named(tmp_path: Path) -> None:
    with pytest.raises(TortureFailed, match="lacks"):
        find_modules(tmp_path)


async def test_the_gateways_clock_jumps_when_it_is_told_to(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    await asyncio.to_thread(set_clock, str(clock), 0.0)
    command = (sys.executable, "-m", "gapless.torture.gateway", "serve")
    async with run_gateway(command=command, env={CLOCK: str(clock)}) as gateway:
        async with httpx.AsyncClient(base_url=gateway.http) as http:

            async def year() -> str:
                await http.post("/api/events", json={"topic": "crm/leads/1/updated", "data": 1})
                page = (await http.get("/api/events", params={"rooms": "lead:1", "after": "start"})).json()
                return str(page["events"][-1]["time"][:4])

            now = int(await year())
            await asyncio.to_thread(set_clock, str(clock), 2 * 366 * 86400.0)
            assert int(await year()) == now + 2
            await asyncio.to_thread(set_clock, str(clock), 0.0)
            assert int(await year()) == now
