"""`gapless serve`: run the gateway."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gapless import __version__
from gapless.cli.hidden import hidden
from gapless.cli.logs import LogFormat, LogLevel, set_up_logs
from gapless.cli.output import Output
from gapless.cli.running import OK, run, stop_signals
from gapless.errors import ConfigError

if TYPE_CHECKING:
    from gapless.auth import AuthOptions
    from gapless.config import Settings
    from gapless.gateway import Gateway

logger = logging.getLogger("gapless.cli")

EXAMPLES = """
**Examples**

`gapless serve` — HTTP on 8080, MQTT on 1883, the log in ./gapless-data

`gapless serve --port 0 --mqtt-port 0 --memory --json` — for a test: free ports, nothing on disk

`gapless serve --broker mqtts://broker.example.com:8883 --broker-user crm --broker-ca ca.pem` — with your broker

`gapless serve --topic-map map.toml --token secret --log-format json`

`gapless serve --tls-cert fullchain.pem --tls-key privkey.pem` — HTTPS, and MQTTS on 8883; renewed files are taken
"""

_BROKER = "The external broker"
_TLS = "TLS"
_SETTINGS = "Settings"
_OUTPUT = "Output"


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]", rich_help_panel=_SETTINGS)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="HTTP port; 0 takes a free one. [default: 8080]", rich_help_panel=_SETTINGS)
    ] = None,
    mqtt_port: Annotated[
        int | None, typer.Option(help="MQTT port; 0 takes a free one. [default: 1883]", rich_help_panel=_SETTINGS)
    ] = None,
    mqtts_port: Annotated[
        int | None,
        typer.Option(help="MQTT port with TLS, given --tls-cert. [default: 8883]", rich_help_panel=_TLS),
    ] = None,
    no_mqtt: Annotated[
        bool, typer.Option("--no-mqtt", help="Open no MQTT port; MQTT over WebSocket stays.", rich_help_panel=_SETTINGS)
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate with its chain, PEM: HTTPS and MQTTS.", rich_help_panel=_TLS)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Its private key, PEM. [default: in --tls-cert]", rich_help_panel=_TLS)
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="Authorities of client certificates, which clients must then show.", rich_help_panel=_TLS),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the event log. [default: gapless-data]", rich_help_panel=_SETTINGS)
    ] = None,
    memory: Annotated[
        bool,
        typer.Option("--memory", help="Keep the log in memory: all is lost at the end.", rich_help_panel=_SETTINGS),
    ] = False,
    topic_map: Annotated[
        Path | None, typer.Option(help="Topic map, TOML. [default: that of a CRM]", rich_help_panel=_SETTINGS)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file, TOML; environment and flags win over it.", rich_help_panel=_SETTINGS),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Development token that every client must show.", rich_help_panel=_SETTINGS)
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine all the same.", rich_help_panel=_SETTINGS)
    ] = False,
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="mqtt://, mqtts://, ws:// or wss://", rich_help_panel=_BROKER)
    ] = None,
    broker_user: Annotated[str | None, typer.Option(help="User name.", rich_help_panel=_BROKER)] = None,
    broker_password: Annotated[
        str | None, typer.Option(help="Password; better in GAPLESS_LINK__PASSWORD.", rich_help_panel=_BROKER)
    ] = None,
    broker_ca: Annotated[Path | None, typer.Option(help="Certificate authority, PEM.", rich_help_panel=_BROKER)] = None,
    broker_cert: Annotated[Path | None, typer.Option(help="Client certificate, PEM.", rich_help_panel=_BROKER)] = None,
    broker_key: Annotated[
        Path | None, typer.Option(help="Key of the client certificate, PEM.", rich_help_panel=_BROKER)
    ] = None,
    broker_client_id: Annotated[
        str | None, typer.Option(help="MQTT client id of the link.", rich_help_panel=_BROKER)
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON line on standard output once it serves.", rich_help_panel=_OUTPUT)
    ] = False,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(
            help="Logs go to standard error. [default: warning on a terminal, else info]", rich_help_panel=_OUTPUT
        ),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Form of the log lines.", rich_help_panel=_OUTPUT)
    ] = LogFormat.text,
) -> None:
    """Run the gateway: Socket.IO, MQTT, SSE, long polling and REST over one log."""
    output = Output(json=json)
    link = {"url": broker, "username": broker_user, "password": broker_password, "client_id": broker_client_id}
    link |= {
        name: str(path)
        for name, path in (("ca_file", broker_ca), ("cert_file", broker_cert), ("key_file", broker_key))
        if path
    }
    tls = {"cert_file": tls_cert, "key_file": tls_key, "client_ca_file": tls_client_ca}
    flags = {
        "host": host,
        "port": port,
        "mqtt_port": mqtt_port,
        "mqtts_port": mqtts_port,
        "tls": {name: str(path) for name, path in tls.items() if path is not None} or None,
        "data": None if data is None else str(data),
        "topic_map": None if topic_map is None else str(topic_map),
        "token": token,
        "link": {name: value for name, value in link.items() if value is not None} or None,
    }
    if log_level is None:
        log_level = LogLevel.warning if output.stderr.is_terminal else LogLevel.info
    set_up_logs(log_level, log_format)
    run(lambda: _serve(output, config, flags, no_mqtt=no_mqtt, memory=memory, insecure=insecure), output)


async def _serve(
    output: Output, config: Path | None, flags: dict[str, Any], *, no_mqtt: bool, memory: bool, insecure: bool
) -> int:
    with hidden("aiohttp", "requests"):  # for python-engineio's clients: a third of the start's time, not used here
        from gapless.config import load_settings
        from gapless.gateway import Gateway, tune_process

    if no_mqtt and (flags["mqtt_port"] is not None or flags["mqtts_port"] is not None):
        raise ConfigError("--no-mqtt and an MQTT port are both given", hint="leave one of them out")
    if memory and flags["data"] is not None:
        raise ConfigError("--memory and --data are both given", hint="leave one of them out")
    if (
        flags["link"] is not None
        and "url" not in flags["link"]
        and config is None
        and "GAPLESS_LINK__URL" not in os.environ
    ):
        raise ConfigError("--broker-… is given without --broker", hint="name the broker: --broker mqtt://host:1883")
    settings = load_settings(config, flags=flags)
    if no_mqtt:
        settings = msgspec.structs.replace(settings, mqtt_port=None, mqtts_port=None)
    if memory:
        settings = msgspec.structs.replace(settings, data=None)
    if insecure:
        settings = msgspec.structs.replace(settings, insecure=True)
    async with stop_signals() as stopping:
        gateway = Gateway(settings)
        async with gateway:
            tune_process()
            _announce(output, gateway)
            await stopping.wait()
            if not output.json:
                output.note("stopping: what was accepted is being committed")
    return OK


def exposure(settings: Settings) -> str:
    """What is to be said loudly at start; empty where nothing is."""
    beyond = not settings.on_loopback
    if settings.auth is not None:
        if settings.tls is not None or not beyond:
            return ""
        return f"it LISTENS ON {settings.host} WITHOUT TLS: tokens cross the network in the clear."
    if settings.token is None:
        who = "NO AUTHENTICATION: everybody who reaches it may read and publish everything"
    else:
        who = "ONLY A DEVELOPMENT TOKEN protects it: whoever has it may read and publish everything"
    clear = "" if settings.tls is not None else ", without TLS"
    where = f"and it LISTENS ON {settings.host}{clear}" if beyond else "it listens on loopback only"
    return f"{who}; {where}."


def protection(auth: AuthOptions) -> str:
    """By what clients are let in."""
    ways = []
    if auth.secret is not None or auth.keys or auth.jwks_url is not None:
        ways.append("tokens")
    if auth.api_keys_file is not None:
        ways.append("API keys")
    if auth.certificate_user is not None:
        ways.append("client certificates")
    if auth.anonymous_roles is not None:
        ways.append("and anybody as anonymous")
    return ", ".join(ways)


def _announce(output: Output, gateway: Gateway) -> None:
    if not output.json:
        _announce_to_people(output, gateway)
        return
    if warning := exposure(gateway.settings):
        logger.warning(warning)
    output.result(
        {
            "ready": True,
            "http": gateway.http_url,
            "mqtt": gateway.mqtt_url,
            "mqtts": gateway.mqtts_url,
            "epoch": gateway.epoch,
            "pid": os.getpid(),
        }
    )


def _announce_to_people(output: Output, gateway: Gateway) -> None:
    settings = gateway.settings
    websocket = "ws" + gateway.http_url.removeprefix("http") + "/mqtt"
    data = "in memory: all is lost at the end" if settings.data is None else str(settings.data.absolute())
    ports = " ".join(url for url in (gateway.mqtts_url, gateway.mqtt_url) if url is not None)
    rows = [
        ("HTTP", gateway.http_url, "Socket.IO, SSE, long polling, REST; a page to watch at /, the API at /docs"),
        ("MQTT", ports or "no TCP port", f"3.1.1 and 5; over WebSocket at {websocket}"),
        ("log", data, f"epoch {gateway.epoch}, {gateway.hub.head:,} events so far"),
    ]
    if settings.auth is not None:
        rows.append(("access", protection(settings.auth), "by the rules of the topic map"))
    if settings.link is not None:
        rows.append(("link", str(settings.link.address), "connecting; what is published meanwhile waits in the log"))
    width = max(len(where) for _, where, _ in rows)
    console = output.stderr
    console.print(f"[bold green]Gapless {__version__} is serving[/]")
    for name, where, what in rows:
        console.print(f"  [bold]{name:<6}[/] [cyan]{where:<{width}}[/]  {what}", markup=True)
    if warning := exposure(settings):
        console.print(f"  [bold yellow]{warning}[/]")
    console.print("  Ctrl-C stops it.")
