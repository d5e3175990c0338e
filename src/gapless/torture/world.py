"""The processes and links of a run: started, harmed and ended from here."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from gapless.errors import GaplessError
from gapless.testing import Broker, BrokerConfig, Gateway, Link, find_node
from gapless.testing.child import Child
from gapless.torture import gateway as gateway_module
from gapless.torture.kinds import DOORS, KINDS, Language, Port
from gapless.torture.plan import ClientPlan, Plan
from gapless.torture.publisher import DoorConfig, PublisherConfig
from gapless.torture.subscriber import SubscriberConfig, filters_of

_JS = Path(__file__).parent / "js"
_PACKAGES = ("socket.io-client", "mqtt", "eventsource")

_SETTINGS = """\
recent_events = 500  # so that those who come back are fed from the log, and not only from memory

[socketio]
ping_interval = 5.0
ping_timeout = 4.0

[http]
stream_heartbeat = 5.0
"""


_LINK_SETTINGS = """
[link]
reconnect_max = 3.0  # with its default of 30 s it might still wait when everybody has to be whole
"""


class TortureFailed(GaplessError):
    """The run could not be made: this says nothing about the gateway's promise."""

    code = "torture_failed"


def find_modules(folder: Path | None) -> Path | None:
    """The `node_modules` with the stock JavaScript clients, or None.

    Looked for where the caller says, else in `NODE_PATH`, `node_modules` and `tests/js/node_modules`.

    Raises:
        TortureFailed: they are not where the caller says.
    """
    if folder is not None:
        if not _has_packages(folder):
            packages = " ".join(_PACKAGES)
            raise TortureFailed(f"{folder} lacks some of {packages}", hint=f"there: npm install {packages}")
        return folder
    named = [Path(each) for each in os.environ.get("NODE_PATH", "").split(os.pathsep) if each]
    places = (*named, Path("node_modules"), Path("tests/js/node_modules"))
    return next((place for place in places if _has_packages(place)), None)


def find_sdk() -> Path | None:
    """The TypeScript client's folder, where this runs in a clone of the repository that has its packages; or None."""
    place = Path("sdk/packages/core")
    packages = Path("sdk/node_modules")
    return place if (place / "src/index.ts").is_file() and (packages / "mqtt").is_dir() else None


def _has_packages(folder: Path) -> bool:
    return all((folder / package).is_dir() for package in _PACKAGES)


class Player:
    """A process of clients or publishers that can be killed, paused, started again and told something."""

    def __init__(self, name: str, command: tuple[str, ...], ended: dict[str, str]) -> None:
        self.name = name
        self._command = command
        self._ended = ended
        self._child: Child | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it; it goes on from its journal."""
        self._child = await Child.spawn(self._command, name=self.name, stdin=True)
        self._watching = asyncio.create_task(self._watch(self._child), name=f"watch-{self.name}")

    async def _watch(self, child: Child) -> None:
        code = await child.wait()
        self._ended[self.name] = f"exit code {code}; {child.tail('stderr', 12)}"

    async def kill(self) -> None:
        """SIGKILL."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if self._child is not None:
            await self._child.kill()

    def signal(self, number: int) -> None:
        """Send a signal."""
        if self._child is not None:
            self._child.send(number)  # type: ignore[arg-type]

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        if self._child is not None and self._child.exit_code is None:
            assert self._child.process.stdin is not None
            self._child.process.stdin.write(line.encode() + b"\n")


class World:
    """All processes and links of a plan; an asynchronous context manager that ends them all.

    Args:
        folder: where everything is kept.
        plant: a defect for the gateway; see `plants`.
        modules: folder of `node_modules`, where JavaScript clients take part.

    Attributes:
        links: each client's, each publisher's, and `broker`: the gateway's own to the broker.
        ended: processes that ended by themselves.
    """

    def __init__(self, plan: Plan, folder: Path, *, plant: str | None = None, modules: Path | None = None) -> None:
        self.plan = plan
        self.folder = folder
        self.links: dict[str, Link] = {}
        self.players: dict[str, Player] = {}
        self.ended: dict[str, str] = {}
        self.gateway: Gateway
        self.broker: Broker | None = None
        self._plant = plant
        sdk = find_sdk()
        self._sdk = str(sdk.resolve()) if sdk is not None else ""
        self._modules = str(modules.resolve()) if modules is not None else ""
        self._stack = AsyncExitStack()

    @property
    def clock(self) -> str:
        """The file with the gateway's clock's offset."""
        return str(self.folder / "clock")

    def journal(self, name: str) -> Path:
        """Where a client's or publisher's journal is."""
        return self.folder / f"{name}.jsonl"

    def server_of(self, target: str) -> str:
        """The server that a client or publisher talks to."""
        kinds = {client.name: KINDS[client.kind].port for client in self.plan.clients}
        port = kinds.get(target) or DOORS[target].port
        return "broker" if port == "broker" else "gateway"

    async def __aenter__(self) -> World:
        try:
            await self._start_servers()
            await self._start_clients()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _start_servers(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "gateway.toml"
        settings.write_text(_SETTINGS + (_LINK_SETTINGS if self.plan.broker else ""))
        gateway_module.set_clock(self.clock, 0.0)
        options = ["--config", str(settings)]
        if self.plan.broker:
            config = BrokerConfig(save_every_change=True, max_queued_messages=0, max_inflight_messages=100)
            (self.folder / "broker").mkdir(exist_ok=True)
            self.broker = await self._stack.enter_async_context(Broker(config, folder=self.folder / "broker"))
            link = self.links["broker"] = await self._stack.enter_async_context(Link.to(self.broker.url))
            options += ["--broker", link.url("mqtt")]
        environment = {gateway_module.CLOCK: self.clock}
        if self._plant is not None:
            environment[gateway_module.PLANT] = self._plant
        command = (sys.executable, "-m", "gapless.torture.gateway", "serve")
        self.gateway = Gateway(*options, data=self.folder / "data", command=command, env=environment)
        await self.gateway.start()
        self._stack.push_async_callback(self._end_gateway)
        self._stack.push_async_callback(self._end_players)

    async def _end_gateway(self) -> None:
        if self.gateway.is_running():
            await self.gateway.kill()

    async def _end_players(self) -> None:
        await asyncio.gather(*(player.kill() for player in self.players.values()))

    async def stop(self) -> None:
        """End the players, then the gateway cleanly: what is wrong then is noted in `ended`."""
        await self._end_players()
        if not self.gateway.is_running():
            self.ended["gateway"] = self.gateway.stderr_tail(20)
            return
        try:
            await self.gateway.stop()
        except GaplessError as error:
            self.ended["gateway"] = error.message

    async def _start_clients(self) -> None:
        start = f"{self.gateway.epoch}:0"
        for number, client in enumerate(self.plan.clients):
            kind = KINDS[client.kind]
            config = SubscriberConfig(
                name=client.name,
                kind=client.kind,
                url=await self._link_to(client.name, kind.port),
                rooms=client.rooms,
                filters=self._filters(client, number, kind.port),
                journal=str(self.journal(client.name)),
                start=start,
                modules=self._modules,
                sdk=self._sdk,
            )
            await self._start_player(client.name, "subscriber", kind.language, config)

    @staticmethod
    def _filters(client: ClientPlan, number: int, port: Port) -> tuple[str, ...]:
        return () if port == "http" else filters_of(client.rooms, number=number, broker=port == "broker")

    async def start_publishers(self) -> float:
        """Start all publishers; when their first events are due, in seconds since the Unix epoch."""
        began = time.time() + 1.0
        groups: dict[str, list[DoorConfig]] = {}
        for publisher in self.plan.publishers:
            door = DOORS[publisher.name]
            config = DoorConfig(
                door=door.name,
                url=await self._link_to(door.name, door.port),
                events=publisher.events,
                rate=publisher.rate,
                journal=str(self.journal(door.name)),
                began=began,
            )
            groups.setdefault(door.group, []).append(config)
        for name, doors in groups.items():
            language = DOORS[doors[0].door].language
            config_of = PublisherConfig(doors=tuple(doors), modules=self._modules)
            await self._start_player(name, "publisher", language, config_of)
        return began

    async def _link_to(self, name: str, port: Port) -> str:
        if port == "broker":
            assert self.broker is not None
            url = self.broker.url
        else:
            url = self.gateway.http if port == "http" else self.gateway.mqtt
        # Small buffers of the link's own, so that a slow reader is felt by who writes to it.
        link = self.links[name] = await self._stack.enter_async_context(Link.to(url, kernel_buffer=16_384))
        return link.url("http" if port == "http" else "mqtt")

    async def _start_player(self, name: str, role: str, language: Language, config: msgspec.Struct) -> None:
        path = self.folder / f"{name}.config.json"
        path.write_bytes(msgspec.json.encode(config))
        if language != "python":
            node = find_node()
            assert node is not None, "JavaScript clients are planned only where Node is"
            script = "hybrid" if language == "sdk" else role
            command: tuple[str, ...] = (node, str(_JS / f"{script}.mjs"), str(path))
        else:
            command = (sys.executable, "-m", f"gapless.torture.{role}", str(path))
        player = self.players[name] = Player(name, command, self.ended)
        await player.start()

    def publisher_groups(self) -> Iterator[Player]:
        """The processes of publishers."""
        for name in dict.fromkeys(DOORS[publisher.name].group for publisher in self.plan.publishers):
            yield self.players[name]

    def journals(self) -> Mapping[str, Path]:
        """Every client's and publisher's journal, by name."""
        names = [*(each.name for each in self.plan.clients), *(each.name for each in self.plan.publishers)]
        return {name: self.journal(name) for name in names}
