"""`gapless subscribe`: print events as they arrive, over any transport."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from gapless.cli.output import Output
from gapless.cli.running import FAILED, OK, run
from gapless.client import ClientEvent, Hole, Reconnecting, Subscribed, Subscription, Target, connection_to, follow
from gapless.client.http import trust
from gapless.errors import ConfigError, InvalidPosition, InvalidTopic
from gapless.event import Position
from gapless.mqtt.filters import validate_filter

EXAMPLES = """
**Examples**

`gapless subscribe --rooms org:global` — everything for everybody, over Socket.IO

`gapless subscribe --rooms lead:7,user:3 --transport sse --json | jq .data`

`gapless subscribe --topic 'crm/leads/+/updated'` — over MQTT

`gapless subscribe --rooms lead:7 --transport mqtt` — a whole room over MQTT, also what the payload puts there

`gapless subscribe --rooms org:global --transport poll --after start --count 10 --timeout 5`

It comes back for ever when the connection is lost, and resumes from where it was.
"""

_DEFAULT_URL = "http://127.0.0.1:8080"


class Transport(StrEnum):
    """How to hear."""

    socketio = "socketio"
    mqtt = "mqtt"
    sse = "sse"
    poll = "poll"


def subscribe(
    rooms: Annotated[str | None, typer.Option(help="Rooms, separated by commas: org:global,lead:7")] = None,
    topic: Annotated[
        list[str] | None, typer.Option(metavar="FILTER", help="MQTT topic filter; may be repeated.")
    ] = None,
    transport: Annotated[
        Transport | None, typer.Option(help="How to hear. [default: socketio; mqtt with --topic or an MQTT URL]")
    ] = None,
    url: Annotated[str, typer.Option(help="The gateway, or an MQTT server (mqtt, mqtts, ws, wss).")] = _DEFAULT_URL,
    after: Annotated[
        str | None, typer.Option(metavar="POSITION", help="Resume after this position; 'start': all that is kept.")
    ] = None,
    qos: Annotated[int, typer.Option(min=0, max=1, help="Quality of service of an MQTT subscription.")] = 1,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="End after so long; with --count: fail, if there were fewer."),
    ] = None,
    token: Annotated[str | None, typer.Option(envvar="GAPLESS_TOKEN", help="The gateway's token.")] = None,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Authority of the server's certificate, PEM. [default: the system]"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One envelope a line.")] = False,
) -> None:
    """Print events as they arrive; reconnect for ever, and resume without a gap."""
    output = Output(json=json)
    filters = tuple(topic or ())
    chosen = transport or (Transport.mqtt if filters or not url.startswith("http") else Transport.socketio)

    async def command() -> int:
        target = Target(url=url, rooms=_split(rooms), filters=filters, qos=qos, token=token, tls=trust(ca))
        _check(target, chosen, after)
        printer = _Printer(output, count)
        try:
            async with asyncio.timeout(timeout):
                await _print_events(printer, target, chosen, after)
        except TimeoutError:
            if count is None:
                return OK
            output.note(f"{printer.printed} of {count} events came within {timeout:g} s")
            return FAILED
        return OK

    run(command, output)


def _split(rooms: str | None) -> tuple[str, ...]:
    return tuple(room.strip() for room in (rooms or "").split(",") if room.strip())


def _check(target: Target, transport: Transport, after: str | None) -> None:
    gateway = target.url.startswith(("http://", "https://"))
    if not target.rooms and not target.filters:
        raise ConfigError("there is nothing to subscribe to", hint="give --rooms org:global, or --topic 'crm/#'")
    if transport is not Transport.mqtt:
        if target.filters:
            raise ConfigError(
                f"topic filters are MQTT's, and the transport is {transport.value}",
                hint="give --rooms, or --transport mqtt",
            )
        if not gateway:
            raise ConfigError(f"{transport.value} is not at {target.url}", hint="give the gateway's http:// URL")
    elif target.rooms and not gateway:
        raise ConfigError("an MQTT server knows no rooms", hint="give --topic, or the gateway's http:// URL")
    for each in target.filters:
        try:
            validate_filter(each)
        except InvalidTopic as error:
            raise ConfigError(
                f"{each!r}: {error.message}", hint="use a filter such as 'crm/leads/+/updated'"
            ) from error
    if after == "start" and not gateway:
        raise ConfigError("an MQTT server keeps no log to start from", hint="give the gateway's http:// URL")
    if after is not None and after != "start":
        try:
            Position.parse(after)
        except InvalidPosition as error:
            raise ConfigError(error.message, hint=error.hint) from error


async def _print_events(printer: _Printer, target: Target, transport: Transport, after: str | None) -> None:
    if after == "start":
        from gapless.client.description import describe_gateway

        # offset 0 lies before everything
        after = f"{(await describe_gateway(target)).epoch}:0"
    state = Subscription(after)
    connection = connection_to(target, transport.value)
    async with aclosing(follow(connection, subscription=state)) as signals:
        async for signal in signals:
            match signal:
                case Subscribed():
                    printer.subscribed(signal, target, transport, state)
                case Hole():
                    printer.hole(signal)
                case Reconnecting():
                    printer.reconnecting(signal, state)
                case ClientEvent():
                    printer.event(signal)
                    if printer.done:
                        return


class _Printer:
    def __init__(self, output: Output, count: int | None) -> None:
        self._output = output
        self._count = count
        self.printed = 0

    @property
    def done(self) -> bool:
        return self._count is not None and self.printed >= self._count

    def subscribed(self, signal: Subscribed, target: Target, transport: Transport, state: Subscription) -> None:
        what = ", ".join((*target.rooms, *target.filters))
        place = f" from {state.cursor}" if state.cursor else ""
        how = "again " if state.reconnects else ""
        self._output.note(f"subscribed {how}to {what} over {transport.value}{place}")

    def hole(self, signal: Hole) -> None:
        place = f"; it goes on after {signal.position}" if signal.position else ""
        self._output.warn(f"events are missing: the log no longer keeps what came before{place}")

    def reconnecting(self, signal: Reconnecting, state: Subscription) -> None:
        place = f", to resume after {state.cursor}" if state.cursor else ""
        self._output.note(f"{signal.reason}; trying again in {signal.delay:.1f} s{place}")

    def event(self, event: ClientEvent) -> None:
        self.printed += 1
        if self._output.json:
            self._output.result(event.to_envelope())
            return
        kept = " (retained)" if event.retained else ""
        head = f"{_clock(event.time)}  {event.type}  {event.topic}{kept}  "
        data = _shown(event.data)
        console = self._output.stdout
        if console.is_terminal:
            room = max(20, console.width - len(head))
            data = data if len(data) <= room else data[: room - 1] + "…"
        time, name, topic = _clock(event.time), escape(event.type), escape(event.topic)
        self._output.line(f"[dim]{time}[/]  [bold cyan]{name}[/]  {topic}{kept}  {escape(data)}")


def _clock(time: str | None) -> str:
    """The event's time of day, here; the time now where it tells none."""
    moment = datetime.now().astimezone() if time is None else datetime.fromisoformat(time).astimezone()
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"


def _shown(data: Any) -> str:
    if isinstance(data, bytes):
        return f"<{len(data)} bytes: {data[:32].hex(' ')}{' …' if len(data) > 32 else ''}>"
    return msgspec.json.encode(data).decode()
