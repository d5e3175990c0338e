"""A real RabbitMQ with its MQTT plugin, which asks a gateway whom to let in and what they may.

Everything is its own: node name, data, cookie, ports, and the port mapper, on loopback. It takes about ten seconds
to start.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from gapless.testing import Server, free_port
from gapless.testing.child import Child

_FOLDERS = (Path("/usr/lib/rabbitmq/bin"), Path("/opt/homebrew/sbin"), Path("/usr/local/sbin"))
_HOST = "127.0.0.1"


def find_rabbitmq() -> str | None:
    """The path of `rabbitmq-server` itself (not Debian's wrapper, which wants to be root), or None."""
    for folder in _FOLDERS:
        if (folder / "rabbitmq-server").exists() and shutil.which("epmd") is not None:
            return str(folder / "rabbitmq-server")
    return None


class RabbitMq(Server):
    """One node. `url` is that of its MQTT listener."""

    name = "rabbitmq"
    ready_within = 100.0

    def __init__(self, folder: Path, *, port: int, asks: str, mapper: int) -> None:
        super().__init__()
        self._folder = folder
        self._asks = asks
        self._mapper = mapper
        self.port = port
        self.url = f"mqtt://{_HOST}:{port}"

    def _choose_ports(self) -> None:
        lines = [
            "listeners.tcp = none",
            f"mqtt.listeners.tcp.1 = {_HOST}:{self.port}",
            "mqtt.allow_anonymous = false",
            "auth_backends.1 = http",
            "auth_http.http_method = post",
        ]
        lines += [f"auth_http.{each}_path = {self._asks}/{each}" for each in ("user", "vhost", "resource", "topic")]
        (self._folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self._folder / "enabled_plugins").write_text("[rabbitmq_mqtt,rabbitmq_auth_backend_http].\n")

    def _command(self) -> Sequence[str]:
        executable = find_rabbitmq()
        assert executable is not None
        return ("nice", "-n", "5", executable)

    def _environment(self) -> Mapping[str, str]:
        folder = self._folder
        return {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"gapless-{self._mapper}@localhost",
            "RABBITMQ_BASE": str(folder),
            "RABBITMQ_MNESIA_BASE": str(folder / "db"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
            "RUNNING_UNDER_SYSTEMD": "1",  # one process, which ends at SIGTERM, without a shell around it
            "ERL_EPMD_ADDRESS": _HOST,
            "ERL_EPMD_PORT": str(self._mapper),
        }

    async def _wait_ready(self, child: Child) -> None:
        await child.wait_line("stdout", lambda line: "Server startup complete" in line or None)


@asynccontextmanager
async def run_rabbitmq(folder: Path, *, port: int, asks: str) -> AsyncIterator[RabbitMq]:
    """Start a node, and its port mapper, which ends with it.

    Args:
        port: of MQTT.
        asks: the URL below which the gateway answers RabbitMQ.
    """
    mapper = free_port()
    epmd = await Child.spawn(["epmd", "-port", str(mapper), "-address", _HOST], name="epmd")
    try:
        async with RabbitMq(folder, port=port, asks=asks, mapper=mapper) as running:
            yield running
    finally:
        await epmd.kill()
