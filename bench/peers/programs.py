"""The peers that are programs of others, each set up at its best for the benchmark's loads."""

from __future__ import annotations

import asyncio
import getpass
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gapless.testing import free_port
from gapless.testing.child import Child
from gapless.testing.processes import Server

CHANNEL = "lead_123"
"""What Centrifugo calls the benchmark's room: a colon would name a namespace."""


class Program(Server):
    """A server that is configured by a file and listens where it is told.

    Attributes:
        http, mqtt: its ports; 0 where it has none.
    """

    def __init__(self, executable: Path | str, folder: Path) -> None:
        super().__init__()
        self.executable = str(executable)
        self.folder = folder
        self.config = folder / "config"
        self.http = 0
        self.mqtt = 0

    @abstractmethod
    def _config(self) -> str:
        """The configuration file for the ports chosen."""

    def _choose_ports(self) -> None:
        self._take_ports()
        self.config.write_text(self._config())

    def _take_ports(self) -> None:
        self.mqtt = free_port()


class Mosquitto(Program):
    """Nothing stored, nothing logged per message, no queue that overflows."""

    name = "mosquitto"

    def _config(self) -> str:
        lines = (
            f"listener {self.mqtt} 127.0.0.1",
            f"user {getpass.getuser()}",
            "allow_anonymous true",
            "persistence false",
            "set_tcp_nodelay true",
            "max_queued_messages 0",
            "log_dest stderr",
            "log_type error",
            "log_type information",
            "connection_messages false",
        )
        return "\n".join(lines) + "\n"

    def _command(self) -> Sequence[str]:
        return (self.executable, "-c", str(self.config))

    async def _wait_ready(self, child: Child) -> None:
        await child.wait_line("stderr", lambda line: line.endswith(" running") or None)


class Nats(Program):
    """JetStream on disk, which its MQTT needs; `sync_interval` as it comes: written, but synced every 2 minutes."""

    name = "nats-server"

    def _take_ports(self) -> None:
        super()._take_ports()
        self._native = free_port()

    def _config(self) -> str:
        document: Mapping[str, Any] = {
            "server_name": "bench",
            "host": "127.0.0.1",
            "port": self._native,
            "max_connections": 100_000,
            # A QoS 1 subscription is a consumer, and it allows a thousand for each stream by itself.
            "jetstream": {"store_dir": str(self.folder), "limits": {"default_max_consumers": -1}},
            "mqtt": {"host": "127.0.0.1", "port": self.mqtt, "max_ack_pending": 65_535},
        }
        return json.dumps(document)

    def _command(self) -> Sequence[str]:
        return (self.executable, "-c", str(self.config))

    async def _wait_ready(self, child: Child) -> None:
        await child.wait_line("stderr", lambda line: "Server is ready" in line or None)


class Centrifugo(Program):
    """The memory engine without history: nothing is stored, as with Socket.IO."""

    name = "centrifugo"

    def _take_ports(self) -> None:
        self.http = free_port()
        self.config = self.folder / "config.json"

    def _config(self) -> str:
        document: Mapping[str, Any] = {
            "http_server": {"address": "127.0.0.1", "port": self.http},
            "log": {"level": "info"},
            "client": {"allow_anonymous_connect_without_token": True},
            "channel": {
                "without_namespace": {
                    "allow_subscribe_for_client": True,
                    "allow_subscribe_for_anonymous": True,
                    "allow_publish_for_client": True,
                    "allow_publish_for_anonymous": True,
                }
            },
            "usage_stats": {"disabled": True},
        }
        return json.dumps(document)

    def _command(self) -> Sequence[str]:
        return (self.executable, "--config", str(self.config))

    async def _wait_ready(self, child: Child) -> None:
        await child.wait_line("stderr", lambda line: "serving websocket" in line or None)
        while child.exit_code is None:  # it says so before it listens
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.http)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return
