"""serve, publish, subscribe and check beside one real gateway, each a process of its own."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gapless.cli import serve
from gapless.cli.output import Output
from gapless.testing import Gateway, free_port, run_gateway
from tests.cli.harness import DOORS, TRANSPORTS, gapless, publish, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with run_gateway() as started:
        yield started


@pytest.fixture
def lead() -> str:
    """A lead of which nobody has heard yet."""
    return f"lead-{next(_numbers)}"


# --- serve


@pytest.mark.parametrize("option", ["--port", "--mqtt-port"])
async def test_a_port_in_use_is_said_so(gateway: Gateway, option: str) -> None:
    other = "--mqtt-port" if option == "--port" else "--port"
    done = await gapless("serve", "--memory", option, str(gateway.http_port), other, "0")
    assert done.code == 2
    assert str(gateway.http_port) in done.err
    assert "in use" in done.err
    assert "Traceback" not in done.err


async def test_a_log_that_another_gateway_has_open_is_refused(gateway: Gateway) -> None:
    done = await gapless("serve", "--port", "0", "--mqtt-port", "0", "--data", str(gateway.data))
    assert done.code == 1
    assert "open" in done.err
    assert "Traceback" not in done.err


# --- publish


@pytest.mark.parametrize("door", DOORS)
async def test_publishing_the_same_id_again_is_one_event(gateway: Gateway, door: str, lead: str) -> None:
    arguments = ("--url", gateway.http, "--topic", f"crm/leads/{lead}/created", "--data", '{"a":1}', "--id", lead)
    for _ in range(2):
        done = await gapless("publish", "--door", door, *arguments, "--json")
        assert done.code == 0, done
        assert done.lines[0]["id"] == lead
    last = await gapless("publish", "--door", door, *arguments[:-1], f"{lead}-end", "--json")
    assert last.code == 0, last
    found = await gapless(
        *("subscribe", "--url", gateway.http, "--rooms", f"lead:{lead}", "--after", "start", "--json"),
        *("--transport", "poll", "--count", "2", "--timeout", "30"),
    )
    assert [line["id"] for line in found.lines] == [lead, f"{lead}-end"]


async def test_data_comes_from_a_file_or_from_standard_input(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "lead.json").write_text('{"leadId":"5"}')
    common = ("publish", "--url", gateway.http, "--type", "lead:created", "--json", "--data")
    from_file = await gapless(*common, f"@{tmp_path / 'lead.json'}")
    from_stdin = await gapless(*common, "-", stdin=b'{"leadId":"6"}')
    assert [done.lines[0]["topic"] for done in (from_file, from_stdin)] == [
        "crm/leads/5/created",
        "crm/leads/6/created",
    ]


async def test_for_people_it_says_what_was_published_where(gateway: Gateway, lead: str) -> None:
    data = json.dumps({"leadId": lead})
    done = await gapless(
        "publish", "--url", gateway.http, "--type", "lead:created", "--data", data, "--id", f"x-{lead}"
    )
    place = re.escape(gateway.epoch) + r":\d+"
    assert re.fullmatch(
        f"published  lead:created  crm/leads/{lead}/created  position {place}  id x-{lead}\n", done.out
    ), done.out


@pytest.mark.parametrize("door", DOORS)
async def test_many_events_arrive_in_order_by_every_door(gateway: Gateway, door: str, lead: str) -> None:
    lines = "".join(f'{{"topic":"crm/leads/{lead}/updated","data":{{"n":{n}}}}}\n' for n in range(1200)).encode()
    done = await gapless("publish", "--url", gateway.http, "--door", door, "--ndjson", "-", stdin=lines)
    assert done.code == 0, done
    assert "published 1,200 events" in done.err
    heard = await gapless(
        *("subscribe", "--url", gateway.http, "--rooms", f"lead:{lead}", "--after", "start", "--json"),
        *("--transport", "sse", "--count", "1200", "--timeout", "30"),
    )
    assert [line["data"]["n"] for line in map(json.loads, heard.out.splitlines())] == list(range(1200))


async def test_a_slow_writers_lines_are_published_as_they_come(gateway: Gateway) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gapless", "publish", "--url", gateway.http),
        *("--type", "lead:created", "--ndjson", "-", "--json"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for number in (1, 2):
        process.stdin.write(b'{"data":{"leadId":"%d"}}\n' % number)
        answer = json.loads(await process.stdout.readline())
        assert answer["topic"] == f"crm/leads/{number}/created"
    process.stdin.close()
    assert await process.wait() == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"data":1}', "line 2 has neither"),
        (b"{", "line 2"),
        (b'{"topic":"a","dta":1}', "dta"),
        (b'{"topic":"a/+","data":1}', "lines 1 to 2"),
    ],
)
async def test_a_bad_line_is_named_and_nothing_of_its_batch_is_published(
    gateway: Gateway, line: bytes, said: str
) -> None:
    done = await gapless(
        "publish", "--url", gateway.http, "--ndjson", "-", stdin=b'{"topic":"a","data":0}\n' + line + b"\n"
    )
    assert done.code == 1
    assert said in done.err
    assert "0 events before were published" in done.err


async def test_what_the_gateway_refuses_is_said_with_its_hint(gateway: Gateway) -> None:
    done = await gapless("publish", "--url", gateway.http, "--type", "no:such", "--data", "1")
    assert done.code == 1
    assert "error: no event type 'no:such'" in done.err
    assert "known: " in done.err


# --- subscribe


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_prints_events_as_they_arrive(gateway: Gateway, transport: str) -> None:
    async with running(
        *("subscribe", "--url", gateway.http, "--rooms", "lead:1,org:global", "--transport", transport),
        *("--count", "2", "--json"),
    ) as subscribing:
        await subscribing.note("subscribed to")
        published = [await publish(gateway, "1"), await publish(gateway, "2")]
        heard = [json.loads(await subscribing.line()) for _ in published]
        assert await subscribing.end() == 0
    for sent, event in zip(published, heard, strict=True):
        assert {name: event[name] for name in ("id", "type", "topic", "position")} == {
            name: sent[name] for name in ("id", "type", "topic", "position")
        }
        assert event["data"]["leadId"] in ("1", "2")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_hears_a_room_that_the_payload_decides(gateway: Gateway, transport: str, lead: str) -> None:
    async with running(
        *("subscribe", "--url", gateway.http, "--rooms", f"lead:{lead}", "--transport", transport),
        *("--count", "1", "--json"),
    ) as subscribing:
        await subscribing.note("subscribed to")
        data = json.dumps({"leadId": lead})
        done = await gapless(
            "publish", "--url", gateway.http, "--topic", f"crm/activities/{lead}/created", "--data", data
        )
        assert done.code == 0, done
        assert json.loads(await subscribing.line())["data"]["leadId"] == lead
        assert await subscribing.end() == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_says_so_when_the_log_is_another_one(gateway: Gateway, transport: str) -> None:
    await publish(gateway, "1")
    async with running(
        *("subscribe", "--url", gateway.http, "--rooms", "org:global", "--transport", transport),
        *("--after", "another:7", "--json", "--count", "1"),
    ) as subscribing:
        await subscribing.note("events are missing")
        sent = await publish(gateway, "2")
        assert json.loads(await subscribing.line())["id"] == sent["id"]


async def test_hears_topic_filters_over_tcp(gateway: Gateway) -> None:
    async with running(
        "subscribe", "--url", gateway.mqtt, "--topic", "crm/leads/+/created", "--topic", "crm/leads/#", "--count", "1"
    ) as subscribing:
        await subscribing.note("subscribed to crm/leads/+/created, crm/leads/#")
        await publish(gateway, "1")
        line = await subscribing.line()
        assert line.endswith('lead:created  crm/leads/1/created  {"leadId":"1"}')
        assert "\x1b" not in line


async def test_why_a_filter_is_refused_is_said(gateway: Gateway) -> None:
    done = await gapless("subscribe", "--url", gateway.http, "--topic", "$room/leads:1")
    assert done.code == 1
    assert "mend it: no room 'leads:1'; rooms look like: lead:{leadId}" in done.err.replace("\n", " ")


async def test_an_unknown_room_is_refused_at_once(gateway: Gateway) -> None:
    for transport in TRANSPORTS:
        done = await gapless("subscribe", "--url", gateway.http, "--rooms", "no", "--transport", transport)
        assert done.code == 1
        assert "no room 'no'" in done.err
        assert "rooms look like" in done.err


async def test_with_count_too_few_events_are_a_failure_and_without_it_the_time_is_just_over(
    gateway: Gateway,
) -> None:
    common = ("subscribe", "--url", gateway.http, "--rooms", "org:global", "--timeout", "0.5")
    assert (await gapless(*common)).code == 0
    few = await gapless(*common, "--count", "1")
    assert few.code == 1
    assert "0 of 1 events came within 0.5 s" in few.err


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_ctrl_c_ends_a_subscription_with_130(gateway: Gateway, transport: str) -> None:
    async with running(
        "subscribe", "--url", gateway.http, "--rooms", "org:global", "--transport", transport
    ) as subscribing:
        await subscribing.note("subscribed to")
        subscribing.process.send_signal(signal.SIGINT)
        assert await subscribing.end() == 130


async def test_a_reader_that_goes_away_ends_it_without_a_traceback(gateway: Gateway) -> None:
    await publish(gateway, "1")
    command = (
        f"{sys.executable} -m gapless subscribe --url {gateway.http} --rooms org:global "
        "--after start --json | true; echo ${PIPESTATUS[0]}"
    )
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert out.decode().strip() == "141"
    assert b"Traceback" not in err


# --- check


async def test_a_gateway_passes_its_own_check(gateway: Gateway) -> None:
    done = await gapless("check", gateway.mqtt_ws, "--json")
    assert done.code == 0, done
    assert done.lines[-1] == {"ok": True, "passed": len(done.lines) - 1, "failed": 0, "warnings": 1}
    assert done.lines[-2]["step"] == "strangers"  # a gateway without [auth], on loopback, is open
    assert done.lines[-2]["warning"] is True
    assert {"qos0", "qos1", "qos2", "retained"} <= {line["step"] for line in done.lines[:-1]}


async def test_a_failing_step_says_how_to_mend_it() -> None:
    done = await gapless("check", f"mqtt://127.0.0.1:{free_port()}")
    assert done.code == 1
    assert "✗ tcp" in done.out
    assert "→" in done.out
    assert "1 of 2 steps failed" in done.out


async def test_checks_the_file_of_a_log_also_while_a_gateway_has_it_open(gateway: Gateway, tmp_path: Path) -> None:
    await publish(gateway, "1")
    done = await gapless("check", "--log", str(gateway.data), "--json")
    assert done.code == 0, done
    assert done.lines[0]["ok"] is True
    assert done.lines[0]["epoch"] == gateway.epoch
    (tmp_path / "events.db").write_bytes(b"no log at all")
    bad = await gapless("check", "--log", str(tmp_path))
    assert bad.code == 1
    assert "Traceback" not in bad.err
    nothing = await gapless("check", "--log", str(tmp_path / "nowhere"))
    assert nothing.code == 1


async def test_the_process_is_tuned_once_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a storm of clients costs twice as much; no test of the gateway itself would notice."""
    before = sys.getswitchinterval(), gc.get_threshold()
    found: list[object] = []

    def announce(*_: object) -> None:
        found.append((sys.getswitchinterval(), gc.get_threshold(), gc.get_freeze_count() > 0))
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "_announce", announce)
    flags = dict.fromkeys(("host", "mqtts_port", "tls", "data", "topic_map", "token", "link")) | {"port": 0}
    try:
        with pytest.raises(KeyboardInterrupt):
            await serve._serve(
                Output(json=True), None, {**flags, "mqtt_port": None}, no_mqtt=True, memory=True, insecure=False
            )
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before[0])
        gc.set_threshold(*before[1])
    assert found == [(0.0005, (20_000, 10, 10), True)]
