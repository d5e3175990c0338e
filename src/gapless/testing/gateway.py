"""The real gateway as a process of its own, for tests that kill it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from gapless.testing.child import Child
from gapless.testing.ports import free_port
from gapless.testing.processes import Server
from gapless.testing.tls import Certificates

_HOST = "127.0.0.1"

#: how the gateway is started; `serve` options follow
SERVE_COMMAND = (sys.executable, "-m", "gapless", "serve")


class _Ready(msgspec.Struct, frozen=True):
    """The one line of JSON that `gapless serve --json` prints once it serves."""

    ready: bool
    http: str
    epoch: str
    pid: int
    mqtt: str | None = None
    mqtts: str | None = None


def _read_ready(line: str) -> _Ready | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.get("ready") is not True:
        return None
    return msgspec.convert(fields, _Ready)


class Gateway(Server):
    """A running gateway; see `run_gateway`.

    Attributes:
        data: its data folder, kept over restarts.
    """

    name = "gateway"

    def __init__(
        self,
        *options: str,
        data: Path,
        mqtt: bool = True,
        tls: Certificates | None = None,
        command: Sequence[str] = SERVE_COMMAND,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.data = data
        self._options = options
        self._with_mqtt = mqtt
        self._serve = command
        self._env = dict(env or {})
        self._http_port = 0
        self._mqtt_port = 0
        self._mqtts_port = 0
        self._tls = tls
        self._ready: _Ready | None = None

    @property
    def http(self) -> str:
        """Base URL of the HTTP doors, `http://127.0.0.1:PORT`: REST, SSE, polling and Socket.IO."""
        return self._was_ready().http

    @property
    def ws(self) -> str:
        """Base URL of the WebSocket doors, `ws://127.0.0.1:PORT`, or `wss`."""
        return "ws" + self.http.removeprefix("http")

    @property
    def mqtt(self) -> str:
        """URL of the MQTT edge on TCP, `mqtt://127.0.0.1:PORT`.

        Raises:
            RuntimeError: the gateway was started without it.
        """
        url = self._was_ready().mqtt
        if url is None:
            raise RuntimeError("this gateway was started without its MQTT port")
        return url

    @property
    def mqtts(self) -> str:
        """URL of the MQTT edge on TLS, `mqtts://127.0.0.1:PORT`.

        Raises:
            RuntimeError: the gateway was started without certificates, or without its MQTT port.
        """
        url = self._was_ready().mqtts
        if url is None:
            raise RuntimeError("this gateway was started without MQTT over TLS")
        return url

    @property
    def mqtt_ws(self) -> str:
        """URL of the MQTT edge on WebSocket, `ws://127.0.0.1:PORT/mqtt`."""
        return f"{self.ws}/mqtt"

    @property
    def http_port(self) -> int:
        """The one HTTP port."""
        return _port(self.http)

    @property
    def mqtt_port(self) -> int:
        """The TCP port of the MQTT edge; raises as `mqtt` does."""
        return _port(self.mqtt)

    @property
    def epoch(self) -> str:
        """Epoch of its log, as the last start reported it."""
        return self._was_ready().epoch

    def _was_ready(self) -> _Ready:
        if self._ready is None:
            raise RuntimeError("this gateway was not started")
        return self._ready

    def _choose_ports(self) -> None:
        self._http_port = free_port(_HOST)
        self._mqtt_port = free_port(_HOST)
        if self._tls is not None:
            self._mqtts_port = free_port(_HOST)

    def _command(self) -> Sequence[str]:
        mqtt = ("--mqtt-port", str(self._mqtt_port)) if self._with_mqtt else ("--no-mqtt",)
        return (
            *self._serve,
            "--json",
            *("--host", _HOST, "--port", str(self._http_port), *mqtt),
            *("--data", str(self.data)),
            *self._tls_options(),
            *self._options,
        )

    def _tls_options(self) -> Sequence[str]:
        if self._tls is None:
            return ()
        pair = self._tls.server
        port = ("--mqtts-port", str(self._mqtts_port)) if self._with_mqtt else ()
        return ("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key), *port)

    def _environment(self) -> Mapping[str, str]:
        return self._env

    async def _wait_ready(self, child: Child) -> None:
        self._ready = await child.wait_line("stdout", _read_ready)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


@asynccontextmanager
async def run_gateway(
    *options: str,
    data: Path | None = None,
    mqtt: bool = True,
    tls: Certificates | None = None,
    command: Sequence[str] = SERVE_COMMAND,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Gateway]:
    """Start the real gateway as a process, on free loopback ports, and wait until it serves.

        async with run_gateway() as gateway:
            ...
            await gateway.kill()   # as a crash
            await gateway.start()  # same ports, same data

    Ports are chosen here, not by the gateway (`--port 0`), from below the range of outgoing connections,
    so that nothing takes them while it is down (see `free_port`).

    Args:
        options: more options of `gapless serve`.
        data: the data folder; default: a new one that is removed at the end.
        mqtt: whether the MQTT edge listens on TCP too.
        tls: certificates with which it serves HTTPS, and MQTT over TLS beside the plain port.
        command: what to run instead of `python -m gapless serve`; it gets the same options and has to
            print the same ready line.
        env: variables added to this process's own.

    Raises:
        ProcessFailed: it ended before it was ready, or at the end did not exit cleanly; with its output.
    """
    if data is not None:
        async with Gateway(*options, data=data, mqtt=mqtt, tls=tls, command=command, env=env) as gateway:
            yield gateway
        return
    with tempfile.TemporaryDirectory(prefix="gapless-") as folder:
        async with Gateway(*options, data=Path(folder), mqtt=mqtt, tls=tls, command=command, env=env) as gateway:
            yield gateway
