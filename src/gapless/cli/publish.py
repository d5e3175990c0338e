"""`gapless publish`: one event, or a stream of them."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gapless.cli.lines import line_batches
from gapless.cli.output import Output
from gapless.cli.running import OK, run
from gapless.client import Published
from gapless.client.http import trust
from gapless.client.single import ConnectionLost, Outgoing, RetryingPublisher, publisher_to
from gapless.errors import ConfigError, GaplessError, InvalidRequest
from gapless.event import EventIds

EXAMPLES = """
**Examples**

`gapless publish --type lead:created --data '{"leadId": "7", "company": "Acme Corp"}'`

`gapless publish --topic crm/leads/7/updated --data @lead.json --door socketio`

`gapless publish --topic sensors/1 --data 21.5 --url mqtt://127.0.0.1:1883 --qos 2`

`gapless publish --ndjson - < events.ndjson` — one `{"type" or "topic", "data"}` a line, with progress
"""

BATCH = 500
"""Most events of NDJSON handed over at a time."""

_DEFAULT_URL = "http://127.0.0.1:8080"


class Door(StrEnum):
    """The doors by which a client can publish."""

    rest = "rest"
    socketio = "socketio"
    mqtt = "mqtt"


class Line(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One event of NDJSON; the options of the command hold where a line is silent."""

    id: str | None = None
    type: str | None = None
    topic: str | None = None
    data: Any = None
    user_id: str | None = None
    qos: int | None = None
    retain: bool | None = None


def publish(
    event_type: Annotated[
        str | None, typer.Option("--type", help="Event type; its topic comes from the topic map.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="MQTT topic, in place of the type.")] = None,
    data: Annotated[str | None, typer.Option(help="JSON, `@FILE`, or `-` for standard input.")] = None,
    ndjson: Annotated[str | None, typer.Option(metavar="FILE|-", help="Many events, one JSON object a line.")] = None,
    url: Annotated[str, typer.Option(help="The gateway, or an MQTT server (mqtt, mqtts, ws, wss).")] = _DEFAULT_URL,
    door: Annotated[Door | None, typer.Option(help="By which door. [default: rest; mqtt for an MQTT URL]")] = None,
    qos: Annotated[
        int | None, typer.Option(min=0, max=2, help="Quality of service. [default: the topic map's; 1 on MQTT]")
    ] = None,
    retain: Annotated[bool, typer.Option("--retain", help="Keep it as its topic's last value.")] = False,
    event_id: Annotated[str | None, typer.Option("--id", help="Its id: publishing it again changes nothing.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Who caused it.")] = None,
    token: Annotated[str | None, typer.Option(envvar="GAPLESS_TOKEN", help="The gateway's token.")] = None,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Authority of the server's certificate, PEM. [default: the system]"),
    ] = None,
    retry_for: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long to try again while the gateway is away.")
    ] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="The answers as JSON, one line an event.")] = False,
) -> None:
    """Publish an event, and wait until the gateway has it for good.

    Every event gets an id here, so that what is sent again after a lost connection is still one event.
    """
    output = Output(json=json)
    chosen = door or (Door.mqtt if not url.startswith("http") else Door.rest)
    defaults = Line(type=event_type, topic=topic, qos=qos, retain=retain or None, user_id=user_id)

    async def command() -> int:
        _check(defaults, data=data, ndjson=ndjson, event_id=event_id, url=url, door=chosen)
        tls = trust(ca)
        told = False

        def on_retry(error: ConnectionLost, delay: float) -> None:
            nonlocal told
            if not told:
                output.note(f"{error.message}; trying again for {retry_for:g} s")
            told = True

        publisher = RetryingPublisher(
            lambda: publisher_to(url, chosen.value, token=token, tls=tls), retry_for=retry_for, on_retry=on_retry
        )
        try:
            async with publisher:
                if ndjson is not None:
                    await _publish_lines(output, publisher, defaults, ndjson)
                else:
                    assert data is not None
                    event = _outgoing(defaults, _read_data(data), event_id or EventIds()())
                    for answer in await publisher.publish([event]):
                        _print(output, answer)
        except ConnectionLost as error:
            error.hint = error.hint or f"is the gateway running at {url}? start it with: gapless serve"
            raise
        return OK

    run(command, output)


def _check(defaults: Line, *, data: str | None, ndjson: str | None, event_id: str | None, url: str, door: Door) -> None:
    if (data is None) == (ndjson is None):
        problem = "there is nothing to publish" if data is None else "--data and --ndjson are both given"
        raise ConfigError(problem, hint="give one of --data JSON and --ndjson FILE")
    if ndjson is None and defaults.type is None and defaults.topic is None:
        raise ConfigError("the event has neither a type nor a topic", hint="give --type lead:created, or --topic …")
    if ndjson is not None and event_id is not None:
        raise ConfigError("--id is for one event", hint='give each line its own "id"')
    if "://" not in url:
        raise ConfigError(f"{url} is no URL", hint=f"such as http://{url}, or mqtt://HOST:PORT")
    if door is not Door.mqtt and not url.startswith(("http://", "https://")):
        raise ConfigError(f"the {door.value} door is not at {url}", hint="give the gateway's http:// URL")
    if door is Door.mqtt and defaults.type is not None:
        raise ConfigError("an MQTT publish needs a topic", hint="give --topic; only the gateway can make one of a type")


def _outgoing(line: Line, data: Any, event_id: str) -> Outgoing:
    return Outgoing(
        id=event_id,
        type=line.type,
        topic=line.topic,
        data=data,
        qos=line.qos,
        retain=line.retain,
        user_id=line.user_id,
    )


def _read_data(data: str) -> Any:
    try:
        if data == "-":
            text: bytes = sys.stdin.buffer.read()
        elif data.startswith("@"):
            text = Path(data[1:]).read_bytes()
        else:
            text = data.encode()
        return msgspec.json.decode(text)
    except OSError as error:
        raise ConfigError(f"cannot read {data[1:]}: {error.strerror}", hint="check the path after @") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ConfigError(
            f"the data is not JSON: {error}", hint='quote it for the shell: --data \'{"leadId": "7"}\''
        ) from error


def _print(output: Output, answer: Published) -> None:
    if output.json:
        output.result(msgspec.to_builtins(answer))
        return
    what = "already there" if answer.duplicate else "published"
    rest = "".join(f"  {escape(text)}" for text in (answer.type, answer.topic) if text)
    place = f"  position {answer.position}" if answer.position else ""
    output.line(f"[green]{what}[/]{rest}{place}  [dim]id {escape(answer.id)}[/]")


async def _publish_lines(output: Output, publisher: RetryingPublisher, defaults: Line, source: str) -> None:
    ids = EventIds()
    published = duplicates = 0
    started = time.monotonic()
    with ExitStack() as stack:
        progress = stack.enter_context(_progress(output))
        task = progress.add_task("publishing", total=None, rate=0.0)
        descriptor = _open(source, stack)
        async for batch in line_batches(descriptor, most=BATCH):
            try:
                events = [_event_of(number, line, defaults, ids) for number, line in batch]
                answers = await publisher.publish(events)
            except GaplessError as error:
                where = f"lines {batch[0][0]} to {batch[-1][0]}: " if not error.message.startswith("line ") else ""
                error.message = f"{where}{error.message} ({published:,} events before were published)"
                raise
            published += len(answers)
            duplicates += sum(answer.duplicate for answer in answers)
            rate = published / max(time.monotonic() - started, 1e-9)
            progress.update(task, completed=published, rate=rate)
            if output.json:
                for answer in answers:
                    _print(output, answer)
    seconds = time.monotonic() - started
    already = f", {duplicates:,} of them were there already" if duplicates else ""
    output.note(f"published {published:,} events in {seconds:.2f} s ({published / max(seconds, 1e-9):,.0f}/s){already}")


def _progress(output: Output) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.completed:,} published"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        console=output.stderr,
        transient=True,
        disable=not output.stderr.is_terminal,
    )


def _open(source: str, stack: ExitStack) -> int:
    if source == "-":
        return sys.stdin.fileno()
    try:
        descriptor = os.open(source, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"cannot read {source}: {error.strerror}", hint="check the path") from error
    stack.callback(os.close, descriptor)
    return descriptor


def _event_of(number: int, text: bytes, defaults: Line, ids: EventIds) -> Outgoing:
    try:
        line = msgspec.json.decode(text, type=Line)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidRequest(
            f"line {number}: {error}", hint='each line is an object: {"type" or "topic", "data", "id"?}'
        ) from error
    if line.type is None and line.topic is None:
        line.type, line.topic = defaults.type, defaults.topic
    for name in ("user_id", "qos", "retain"):
        if getattr(line, name) is None:
            setattr(line, name, getattr(defaults, name))
    if line.type is None and line.topic is None:
        raise InvalidRequest(f"line {number} has neither a type nor a topic", hint="add one, or give --type or --topic")
    return _outgoing(line, line.data, line.id or ids())
