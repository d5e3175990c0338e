"""Starting what is measured: Gapless and its peers, each in processes of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.host import NODE_PACKAGES, Cores
from bench.peers.build import NotBuilt, executable, node_packages
from bench.peers.programs import Centrifugo, Mosquitto, Nats, Program
from gapless.testing import SERVE_COMMAND, Gateway, find_mosquitto, find_node
from gapless.testing.child import Child
from gapless.testing.processes import Server

GAPLESS, FLOOR, MOSQUITTO = "Gapless", "raw floor", "Mosquitto"
PYTHON_SOCKETIO, NODE_SOCKETIO, NODE_BRIDGE = "python-socketio", "Node socket.io", "Node bridge"
NATS, AEDES, CENTRIFUGO = "nats-server", "aedes", "Centrifugo"


class NotHere(Exception):
    """A peer cannot be run on this machine; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server under load.

    Attributes:
        name: what the figures call it.
        pids: its processes.
        http, mqtt: its ports on 127.0.0.1; 0 where it has none.
    """

    name: str
    pids: tuple[int, ...]
    http: int = 0
    mqtt: int = 0


class _Ready(msgspec.Struct, frozen=True):
    pid: int
    http: int = 0
    mqtt: int = 0


class _Program(Server):
    """A peer of ours: it takes free ports and says which, in one line of JSON."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        super().__init__()
        self.name = name
        self._line = tuple(command)
        self.ready = _Ready(0)

    def _choose_ports(self) -> None:
        pass

    def _command(self) -> Sequence[str]:
        return self._line

    async def _wait_ready(self, child: Child) -> None:
        self.ready = await child.wait_line(
            "stdout", lambda line: msgspec.json.decode(line, type=_Ready) if line.startswith("{") else None
        )


@asynccontextmanager
async def run_target(
    name: str,
    folder: Path,
    cores: Cores,
    *,
    profile: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Target]:
    """Start a server on the servers' core; it is stopped, and its data removed by the caller, at the end.

    Args:
        name: one of this module's names.
        folder: an empty folder for its data.
        profile: where to write a profile of Gapless (cProfile, its main thread), which makes it slower.
        env: settings of Gapless, as environment variables.

    Raises:
        NotHere: it is not installed on this machine.
        ProcessFailed: it did not start.
    """
    if name == NODE_BRIDGE:
        async with _run_node_bridge(folder, cores) as target:
            yield target
        return
    server = _make(name, folder, profile, env)
    with cores.for_servers():
        await server.start()
    try:
        yield _target(name, server)
    finally:
        await _end(server)


@asynccontextmanager
async def _run_node_bridge(folder: Path, cores: Cores) -> AsyncIterator[Target]:
    async with run_target(MOSQUITTO, folder, cores) as broker:
        bridge = _Program(NODE_BRIDGE, _node_command(str(broker.mqtt)))
        with cores.for_servers():
            await bridge.start()
        try:
            pids = (*broker.pids, bridge.pid)
            yield Target(name=NODE_BRIDGE, pids=pids, http=bridge.ready.http, mqtt=broker.mqtt)
        finally:
            await _end(bridge)


def _make(name: str, folder: Path, profile: Path | None, env: Mapping[str, str] | None) -> Gateway | _Program | Program:
    match name:
        case "Gapless":
            command: Sequence[str] = SERVE_COMMAND
            if profile is not None:
                command = (sys.executable, "-m", "cProfile", "-o", str(profile), *SERVE_COMMAND[1:])
            return Gateway("--log-level", "warning", data=folder, command=command, env=env)
        case "raw floor":
            return _Program(name, (sys.executable, "-m", "bench.peers.raw_floor"))
        case "python-socketio":
            return _Program(name, (sys.executable, "-m", "bench.peers.plain_socketio"))
        case "Node socket.io":
            return _Program(name, _node_command())
        case "Mosquitto":
            found = find_mosquitto()
            if found is None:
                raise NotHere("there is no mosquitto on this machine")
            return Mosquitto(found, folder)
        case "nats-server":
            return Nats(_built(name), folder)
        case "Centrifugo":
            return Centrifugo(_built(name), folder)
        case "aedes":
            return _Program(name, _aedes_command())
        case _:
            raise ValueError(name)


def _node_command(*arguments: str) -> tuple[str, ...]:
    if not (NODE_PACKAGES / "socket.io").is_dir():
        raise NotHere("socket.io is not installed: make setup-test")
    return _node("node_socketio.mjs", *arguments)


def _aedes_command() -> tuple[str, ...]:
    try:
        node_packages()
    except NotBuilt as error:
        raise NotHere(str(error)) from error
    return _node("aedes.mjs")


def _built(name: str) -> Path:
    try:
        return executable(name)
    except NotBuilt as error:
        raise NotHere(str(error)) from error


def _node(script: str, *arguments: str) -> tuple[str, ...]:
    node = find_node()
    if node is None:
        raise NotHere("there is no Node.js on this machine")
    return (node, str(Path(__file__).parent / "peers" / script), *arguments)


def _target(name: str, server: Gateway | _Program | Program) -> Target:
    match server:
        case Gateway():
            return Target(name=name, pids=(server.pid,), http=server.http_port, mqtt=server.mqtt_port)
        case _Program():
            return Target(name=name, pids=(server.pid,), http=server.ready.http, mqtt=server.ready.mqtt)
        case Program():
            return Target(name=name, pids=(server.pid,), http=server.http, mqtt=server.mqtt)


async def _end(server: Server) -> None:
    """Stop it; peers need no clean exit, and a gateway that does not end is killed, and that is an error."""
    if isinstance(server, Gateway):
        await server.stop()
    elif server.is_running():
        await asyncio.shield(server.kill())
