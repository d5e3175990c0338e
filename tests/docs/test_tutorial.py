"""The first tutorial and the README, followed as a newcomer does."""

from __future__ import annotations

import ast
import inspect
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gapless.testing import Gateway, run_gateway
from tests.docs.blocks import blocks, shell
from tests.docs.programs import Reader
from tests.docs.test_stock import ADDRESS, POSITION

PAGE = "docs/tutorial.md"

pytestmark = [pytest.mark.needs_curl, pytest.mark.needs_mosquitto_clients, pytest.mark.timeout(120)]


def reader_in(folder: Path) -> Reader:
    """Somebody whose `.venv/bin/gapless` goes to $GATEWAY, as a test's ports are not those of the page."""
    command = folder / ".venv" / "bin" / "gapless"
    command.parent.mkdir(parents=True)
    run = f'exec "{sys.executable}" -m gapless "$@"'
    command.write_text(f'#!/bin/sh\ncase $1 in\nsubscribe|publish) {run} --url "$GATEWAY" ;;\n*) {run} ;;\nesac\n')
    command.chmod(0o755)
    return Reader(folder, {}, {})


def at(reader: Reader, gateway: Gateway) -> Reader:
    addresses = {ADDRESS: gateway.http, "mosquitto_pub": f"mosquitto_pub -p {gateway.mqtt_port}"}
    return reader._replace(addresses=addresses, env={"GATEWAY": gateway.http})


async def test_hear_publish_and_come_back(tmp_path: Path) -> None:
    async with run_gateway() as gateway, AsyncExitStack() as stack:
        reader = at(reader_in(tmp_path), gateway)
        commands = shell(PAGE, "--transport sse").code.splitlines()
        hearers = [
            await stack.enter_async_context(reader.running("bash", "-c", f"exec 2>&1\n{reader.here(command)}"))
            for command in commands
        ]
        for hearer in hearers:
            assert await hearer.line()  # it is subscribed; of curl, how the stream begins
        await reader.shell(shell(PAGE, "publish --type lead:created").code)
        for hearer in hearers:
            await hearer.until("Acme Corp")
        await reader.shell(shell(PAGE, "mosquitto_pub").code)
        for hearer in hearers:
            await hearer.until("lost")
        await gateway.kill()
        await gateway.start()
        printed = await reader.shell(shell(PAGE, '"stage":"offer"').code)
        for hearer in hearers[:3]:  # curl does not come back
            await hearer.until("offer")
        position = POSITION.findall(printed)[0]
        missed = POSITION.sub(position, shell(PAGE, "position=").code)
        async with reader.running("bash", "-c", reader.here(missed)) as program:
            (answer,) = await program.until('"complete":true')  # one document
            assert ("offer" in answer, "lost" in answer) == (False, True)
            assert "lost" in await program.line()


async def test_tokens(tmp_path: Path) -> None:
    start, tokens, use = (shell(PAGE, text).code for text in ("--new-secret", "admin=", "--rooms lead:456"))
    make, export, _ = start.splitlines()
    reader = reader_in(tmp_path)
    secret = await reader.shell(f"{make}\n{export}\nprintf %s $GAPLESS_AUTH__SECRET")
    async with run_gateway(env={"GAPLESS_AUTH__SECRET": secret}) as gateway:
        sales, admin = (await reader.shell(f"{tokens}\nprintf '%s %s' $sales $admin")).split()
        reader = at(reader, gateway)
        reader = reader._replace(env={**reader.env, "sales": sales, "admin": admin})
        refused, heard, publish = use.splitlines()
        assert "you may not hear 'lead:456'" in await reader.shell(f"{refused} 2>&1 || true")
        async with reader.running("bash", "-c", f"exec {heard.removesuffix('&')} 2>&1") as program:
            assert "subscribed" in await program.line()
            await reader.shell(publish)
            assert "lead:updated" in await program.line()


async def test_in_your_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in blocks(PAGE) if block.language == "python"]
    code = block.code.replace("port=8080", "port=0, mqtt_port=None")
    program = compile(code, PAGE, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, object] = {}
    running = eval(program, names)
    assert inspect.iscoroutine(running)
    await running
    assert (tmp_path / "gapless-data").is_dir()
