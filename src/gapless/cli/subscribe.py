"""`gapless subscribe`: print events as they arrive, over any transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
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
from gapless.client import Client, ClientEvent, Gap, TransportName
from gapless.client.http import trust
from gapless.client.hybrid.machine import LADDER
from gapless.client.single import Hole, Reconnecting, Subscribed, Subscription, Target, follow
from gapless.errors import ConfigError, GaplessError, InvalidPosition, InvalidTopic
from gapless.event import Position
from gapless.mqtt.filters import validate_filter

EXAMPLES = """
**Examples**

`gapless subscribe --rooms org:global` — everything for everybody, over whichever transport is alive

`gapless subscribe --rooms lead:7,user:3 --json | jq .data`

`gapless subscribe --rooms org:global --transport sse` — over server-sent events alone

`gapless subscribe --rooms org:global --after start --count 10 --timeout 5` — what the log keeps

`gapless subscribe --topic 'crm/leads/+/updated'` — MQTT topics in place of rooms

`gapless subscribe --topic 'sensors/#' --url mqtt://127.0.0.1:1883` — at any MQTT server

It comes back for ever when the connection is lost, and resumes from where it was. What will not be allowed later either
(a token or a room that is refused) ends it with 1.
"""

_DEFAULT_URL = "http://127.0.0.1:8080"
_FINAL = ("not_a_gateway", "no_transport")
"""Errors that a client in an application waits out, and somebody at a terminal wants to hear of."""


class Transport(StrEnum):
    """How to hear."""

    socketio = "socketio"
    mqtt = "mqtt"
    sse = "sse"
    poll = "poll"


def subscribe(
    rooms: Annotated[str | None, typer.Option(help="Rooms, separated by commas: org:global,lead:7")] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(metavar="FILTER", help="MQTT topic filter, in place of rooms; may be repeated."),
    ] = None,
    transport: Annotated[
        Transport | None,
        typer.Option(help="Hear rooms over this one alone. [default: the first of them that can be used]"),
    ] = None,
    url: Annotated[str, typer.Option(help="The gateway, or an MQTT server (mqtt, mqtts, ws, wss).")] = _DEFAULT_URL,
    after: Annotated[
        str | None, typer.Option(metavar="POSITION", help="Resume after this position; 'start': all that is kept.")
    ] = None,
    qos: Annotated[int, typer.Option(min=0, max=1, help="Quality of service, with --topic.")] = 1,
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
    chosen, filters = _split(rooms), tuple(topic or ())

    async def command() -> int:
        _check(url, chosen, filters, transport, after)
        printer = _Printer(output, count)
        tls = trust(ca)
        try:
            async with asyncio.timeout(timeout):
                if filters:
                    target = Target(url=url, filters=filters, qos=qos, token=token, tls=tls)
                    await _hear_topics(printer, target, after)
                else:
                    ladder: Sequence[TransportName] = LADDER if transport is None else [transport.value]
                    client = Client(
                        url, token=token, after=after or "now", transports=ladder, tls=tls, on_error=printer.error
                    )
                    await _hear_rooms(printer, client, chosen)
        except TimeoutError:
            if count is None:
                return OK
            output.note(f"{printer.printed} of {count} events came within {timeout:g} s")
            return FAILED
        return OK

    run(command, output)


def _split(rooms: str | None) -> tuple[str, ...]:
    return tuple(room.strip() for room in (rooms or "").split(",") if room.strip())


def _check(
    url: str, rooms: tuple[str, ...], filters: tuple[str, ...], transport: Transport | None, after: str | None
) -> None:
    gateway = url.startswith(("http://", "https://"))
    if not rooms and not filters:
        raise ConfigError("there is nothing to subscribe to", hint="give --rooms org:global, or --topic 'crm/#'")
    if rooms and filters:
        raise ConfigError("rooms and topic filters are both given", hint="start one command for each")
    if filters and transport not in (None, Transport.mqtt):
        raise ConfigError(
            f"topic filters are MQTT's, and the transport is {transport.value}",
            hint="give --rooms, or --transport mqtt",
        )
    if not gateway and rooms:
        raise ConfigError(
            f"{url} is not a gateway's URL, and only gateways know rooms", hint="give http://…, or --topic"
        )
    for each in filters:
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


async def _hear_rooms(printer: _Printer, client: Client, rooms: tuple[str, ...]) -> None:
    async with client:
        events = client.subscribe(*rooms)
        hearing = asyncio.create_task(printer.events(events), name="hear")
        watching = asyncio.create_task(printer.statuses(client, ", ".join(rooms)), name="watch")
        tasks: set[asyncio.Future[None]] = {hearing, watching, printer.refused}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _hear_topics(printer: _Printer, target: Target, after: str | None) -> None:
    from gapless.client.mqtt import MqttConnection  # its library is loaded when it is used

    if after == "start":
        from gapless.client.description import describe_gateway

        # offset 0 lies before everything
        after = f"{(await describe_gateway(target)).epoch}:0"
    state = Subscription(after)
    async with aclosing(follow(MqttConnection(target), subscription=state)) as signals:
        async for signal in signals:
            match signal:
                case Subscribed():
                    printer.subscribed(", ".join(target.filters), "mqtt", state.cursor, again=state.reconnects > 0)
                case Hole():
                    printer.missing(signal.position)
                case Reconnecting():
                    printer.waits(signal.reason, signal.delay, state.cursor)
                case ClientEvent():
                    printer.event(signal)
                    if printer.done:
                        return


class _Printer:
    def __init__(self, output: Output, count: int | None) -> None:
        self._output = output
        self._count = count
        self.printed = 0
        self.refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def done(self) -> bool:
        return self._count is not None and self.printed >= self._count

    async def events(self, events: AsyncIterator[ClientEvent | Gap]) -> None:
        async for item in events:
            match item:
                case Gap():
                    self.missing(item.position)
                case ClientEvent():
                    self.event(item)
                    if self.done:
                        return

    async def statuses(self, client: Client, rooms: str) -> None:
        over: str | None = None
        again = False
        retry_at: float | None = None
        async for status in client.changes():
            error = status.error
            if error is not None and (not error.retryable or error.code in _FINAL):
                raise error
            if status.is_whole and status.transport is not None and status.transport != over:
                self.subscribed(rooms, status.transport, client.cursor, again=again)
                again = True
            elif status.retry_at is not None and status.retry_at != retry_at and error is not None:
                self.waits(error.message, max(0.0, status.retry_at - time.time()), client.cursor)
                if retry_at is None and not again and error.code == "network":
                    self._output.note("is the gateway running there? start it with: gapless serve")
            over, retry_at = status.transport, status.retry_at

    def error(self, error: GaplessError, room: str | None) -> None:
        if room is None:
            self._output.warn(error.message)
        elif not self.refused.done():
            self.refused.set_exception(error)

    def subscribed(self, what: str, over: str, position: str | None, *, again: bool) -> None:
        place = f" from {position}" if position else ""
        self._output.note(f"subscribed {'again ' if again else ''}to {what} over {over}{place}")

    def missing(self, position: str | None) -> None:
        place = f"; it goes on after {position}" if position else ""
        self._output.warn(f"events are missing: the log no longer keeps them, or is another one than then{place}")

    def waits(self, reason: str, delay: float, position: str | None) -> None:
        place = f", to resume after {position}" if position else ""
        self._output.note(f"{reason}; trying again in {delay:.1f} s{place}")

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
