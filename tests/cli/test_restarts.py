"""The gateway stopped, killed and started again under the command line's feet."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gapless.testing import Gateway, run_gateway
from tests.cli.harness import DOORS, TRANSPORTS, Running, gapless, publish, running


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with run_gateway() as started:
        yield started


async def test_with_json_its_only_output_is_the_ready_line(tmp_path: Path) -> None:
    async with running("serve", "--port", "0", "--mqtt-port", "0", "--data", str(tmp_path), "--json") as serve:
        ready = json.loads(await serve.line())
        assert ready["ready"] is True
        assert ready["pid"] == serve.process.pid
        assert ready["http"].startswith("http://127.0.0.1:")
        assert ready["mqtt"].startswith("mqtt://127.0.0.1:")
        assert await serve.note("NO AUTHENTICATION")
        serve.process.send_signal(signal.SIGTERM)
        assert await serve.end() == 0
        assert await serve.line() == ""


async def test_ctrl_c_stops_it_cleanly_and_it_says_where_its_doors_are() -> None:
    async with running("serve", "--port", "0", "--mqtt-port", "0", "--memory", "--token", "s3cret") as serve:
        assert "mqtt://127.0.0.1:" in await serve.note("MQTT")
        assert await serve.note("ONLY A DEVELOPMENT TOKEN")
        serve.process.send_signal(signal.SIGINT)
        assert await serve.note("stopping")
        assert await serve.end() == 0


async def test_the_same_log_is_there_after_a_restart(gateway: Gateway) -> None:
    first = await publish(gateway, "1")
    await gateway.kill()
    await gateway.start()
    again = await publish(gateway, "1", "--id", first["id"])
    assert again == {**first, "duplicate": True}


async def test_logs_are_json_lines_where_asked_for() -> None:
    async with running(
        "serve", "--port", "0", "--no-mqtt", "--memory", "--json", "--log-format", "json", "--log-level", "warning"
    ) as serve:
        ready = json.loads(await serve.line())
        assert ready["mqtt"] is None
        line = json.loads(await serve.note("NO AUTHENTICATION"))
        assert (line["level"], line["logger"]) == ("warning", "gapless.cli")


async def test_without_the_token_nothing_is_published_by_any_door() -> None:
    async with run_gateway("--token", "s3cret") as gateway:
        await asyncio.gather(*(needs_the_token(gateway, door) for door in DOORS))


async def needs_the_token(gateway: Gateway, door: str) -> None:
    arguments = ("publish", "--topic", "a", "--data", "1", "--door", door)
    refused = await gapless(*arguments, "--url", gateway.http)
    assert refused.code == 1
    assert "trying again" not in refused.err
    wrong = await gapless(*arguments, "--url", gateway.http, "--token", "wr0ng")
    assert wrong.code == 1
    assert "wr0ng" not in wrong.err
    done = await gapless(*arguments, "--url", gateway.http, env={"GAPLESS_TOKEN": "s3cret"})
    assert done.code == 0, done


async def test_logs_hold_no_payloads_and_no_tokens_at_any_level() -> None:
    async with run_gateway("--log-level", "debug", "--token", "t0ken-in-question") as gateway:
        for door in DOORS:
            event = ("--topic", "crm/leads/1/created", "--data", '{"secret":"payl0ad-in-question"}', "--door", door)
            done = await gapless("publish", *event, "--url", gateway.http, "--token", "t0ken-in-question")
            assert done.code == 0, done
        for transport in TRANSPORTS:
            heard = await gapless(
                *("subscribe", "--rooms", "lead:1", "--transport", transport, "--after", "start", "--count", "3"),
                *("--url", gateway.http, "--token", "t0ken-in-question", "--json"),
            )
            assert heard.out.count("payl0ad-in-question") == 3
        await gateway.stop()
        logged = gateway.stderr_tail(10_000)
    assert "DEVELOPMENT TOKEN" in logged
    assert "in-question" not in logged


async def test_publishing_waits_for_a_gateway_that_is_coming(gateway: Gateway) -> None:
    await gateway.stop()
    async with running(
        *("publish", "--url", gateway.http, "--type", "lead:created", "--data", '{"leadId":"1"}'),
        *("--retry-for", "50", "--json"),
    ) as publishing:
        await publishing.note("trying again")
        await gateway.start()
        assert json.loads(await publishing.line())["topic"] == "crm/leads/1/created"
        assert await publishing.end() == 0


async def test_each_transport_resumes_where_it_was_when_the_gateway_comes_back_after_sigkill(gateway: Gateway) -> None:
    async with AsyncExitStack() as stack:
        subscribers: list[Running] = []
        for transport in TRANSPORTS:
            arguments = ("--rooms", "org:global", "--transport", transport, "--count", "3", "--json")
            started = running("subscribe", "--url", gateway.http, *arguments)
            subscribers.append(await stack.enter_async_context(started))
        for each in subscribers:
            await each.note("subscribed to")
        published = [await publish(gateway, "1")]
        heard = [[json.loads(await each.line())] for each in subscribers]
        await gateway.kill()
        for each in subscribers:
            await each.note("trying again")
        await gateway.start()
        published += [await publish(gateway, "2"), await publish(gateway, "3")]
        for each, events in zip(subscribers, heard, strict=True):
            events += [json.loads(await each.line()) for _ in range(2)]
            assert await each.end() == 0
    ids = [sent["id"] for sent in published]
    assert [[event["id"] for event in events] for events in heard] == [ids] * len(TRANSPORTS)
