"""Help, wrong usage, and exit codes: what needs no gateway."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from gapless import __version__
from gapless.testing import free_port
from tests.cli.harness import gapless, here


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """The commands run in this process set up its logs."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


COMMANDS = ["serve", "demo", "publish", "subscribe", "check", "token", "revoke", "torture"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_no_colours_when_piped(command: str) -> None:
    done = here(command, "--help")
    assert done.code == 0
    assert f"gapless {command}" in done.out.partition("Examples")[2]
    assert "\x1b" not in done.out


def test_the_bare_command_names_all_others() -> None:
    done = here()
    assert done.code in (0, 2)
    assert all(command in done.out + done.err for command in COMMANDS)


async def test_prints_its_version() -> None:
    done = await gapless("--version")
    assert (done.code, done.out) == (0, f"gapless {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "fly"),
        (["serve", "--prot", "1"], "--prot"),
        (["serve", "--port", "many"], "valid integer"),
        (["serve", "--port", "70000"], "70000"),
        (["serve", "--no-mqtt", "--mqtt-port", "0"], "both given"),
        (["serve", "--memory", "--data", "x"], "both given"),
        (["serve", "--host", "0.0.0.0"], "--insecure"),
        (["serve", "--broker-user", "ann"], "--broker"),
        (["serve", "--broker", "tcp://x"], "tcp"),
        (["serve", "--config", "/nowhere.toml"], "/nowhere.toml"),
        (["serve", "--topic-map", "/nowhere.toml", "--memory", "--port", "0", "--no-mqtt"], "/nowhere.toml"),
        (["publish", "--type", "lead:created"], "nothing to publish"),
        (["publish", "--type", "lead:created", "--data", "1", "--ndjson", "-"], "both given"),
        (["publish", "--data", "1"], "neither a type nor a topic"),
        (["publish", "--topic", "a", "--data", "{not json"], "not JSON"),
        (["publish", "--topic", "a", "--data", "@/nowhere"], "/nowhere"),
        (["publish", "--topic", "a", "--ndjson", "/nowhere"], "/nowhere"),
        (["publish", "--type", "lead:created", "--data", "1", "--door", "mqtt"], "topic"),
        (["publish", "--topic", "a", "--data", "1", "--door", "rest", "--url", "mqtt://h"], "http://"),
        (["publish", "--topic", "a", "--data", "1", "--url", "127.0.0.1:8080"], "such as http://127.0.0.1:8080"),
        (["publish", "--topic", "a", "--data", "1", "--qos", "3"], "--qos"),
        (["subscribe"], "nothing to subscribe to"),
        (["subscribe", "--topic", "a/#", "--transport", "sse"], "--transport mqtt"),
        (["subscribe", "--topic", "a/#/b"], "#"),
        (["subscribe", "--topic", "a/#", "--rooms", "a"], "one command for each"),
        (["subscribe", "--rooms", "a", "--url", "mqtt://h"], "--topic"),
        (["subscribe", "--rooms", "a", "--after", "yesterday"], "yesterday"),
        (["subscribe", "--rooms", "a", "--transport", "pigeon"], "pigeon"),
        (["check"], "name one thing"),
        (["check", "tcp://h"], "tcp"),
        (["token"], "whose token"),
        (["token", "--user", "7", "--key", "/nowhere.pem"], "/nowhere.pem"),
        (["token", "--user", "7", "--claim", "x", "--key", "/nowhere.pem"], "no '='"),
        (["key", "create", "--name", "a b", "--file", "/tmp/none.json"], "no name"),
        (["revoke"], "name one of"),
        (["revoke", "--user", "7", "--key", "x"], "name one of"),
        (["demo", "--port", "-1"], "greater than or equal to 0"),
        (["torture", "--seconds", "0"], "--seconds"),
        (["torture", "--keep", "."], "not empty"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_how_to_mend_it(arguments: list[str], said: str) -> None:
    done = here(*arguments)
    assert done.code == 2, done
    assert said in done.err
    assert done.out == ""


def test_with_json_an_error_is_json_too() -> None:
    done = here("subscribe", "--json")
    assert done.code == 2
    assert done.err.startswith('{"error":{"code":"invalid_config"')


@pytest.mark.parametrize("door", ["rest", "socketio", "mqtt"])
async def test_publishing_to_a_gateway_that_is_not_there_fails_after_the_time_given(door: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = await gapless("publish", "--topic", "a", "--data", "1", "--door", door, "--url", url, "--retry-for", "0")
    assert done.code == 1
    assert "gapless serve" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("transport", ["socketio", "mqtt", "sse", "poll"])
async def test_subscribing_keeps_trying_until_the_time_is_over(transport: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = await gapless(
        "subscribe", "--rooms", "org:global", "--transport", transport, "--url", url, "--timeout", "5", "--count", "1"
    )
    assert done.code == 1
    assert "nothing listens there; trying again" in done.err
    assert done.err.count("is the gateway running there?") == 1
    assert "0 of 1 events" in done.err


async def test_colours_stay_off_with_no_color() -> None:
    done = await gapless("publish", "--help", env={"NO_COLOR": "1", "FORCE_COLOR": "1"})
    assert "\x1b[3" not in done.out
