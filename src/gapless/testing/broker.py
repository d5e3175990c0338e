"""A real Mosquitto on free loopback ports, for tests of what talks to an external broker."""

from __future__ import annotations

import asyncio
import base64
import getpass
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gapless.testing.child import Child
from gapless.testing.ports import free_port
from gapless.testing.processes import Server
from gapless.testing.tls import Certificates
from gapless.testing.tools import ToolUnavailable, find_dynamic_security, find_mosquitto

_HOST = "127.0.0.1"

# MQTT 3.1.1 §3.1: CONNECT, clean session, keep alive off, client id assigned by the broker.
_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"
_CONNACK_TYPE = 0x20


class BrokerUnavailable(ToolUnavailable):
    """There is no Mosquitto on this machine; `hint` says how to install it."""

    code = "broker_unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """How a test's Mosquitto is set up.

    Attributes:
        persistence: keep sessions and retained messages in a file, written at a clean stop.
        save_every_change: write that file after every change too (of subscriptions, queues, retained
            messages). SIGKILL then loses at most what was acknowledged in the same turn of Mosquitto's
            loop: a PINGRESP after the PUBACK says that it is on disk. Without it a killed Mosquitto
            forgets everything since its start (by default it saves every 1,800 s).
        max_queued_messages: messages above those in flight that are kept for a client that is away; None
            is Mosquitto's default of 1,000, 0 no limit.
        max_inflight_messages: QoS 1 and 2 messages in flight to a client; None is the default of 20, 0
            no limit.
        users: passwords by user name; when there are any, anonymous clients are refused.
        tls: certificates for listeners with TLS beside the plain ones.
        require_client_certificate: refuse clients with no certificate of that authority (TLS only).
        websocket: WebSocket listeners beside the TCP ones.
        dynamic_security: user and password of who administers the dynamic security plug-in; it then decides
            who comes in, and keeps its clients and roles over restarts.
        lines: more lines for the configuration file, after all others.
    """

    persistence: bool = True
    save_every_change: bool = False
    max_queued_messages: int | None = None
    max_inflight_messages: int | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: Certificates | None = None
    require_client_certificate: bool = False
    websocket: bool = False
    dynamic_security: tuple[str, str] | None = field(default=None, repr=False)
    lines: Sequence[str] = ()


class Broker(Server):
    """A running Mosquitto; see `run_broker`. Ports and data are kept over restarts."""

    name = "mosquitto"

    def __init__(self, config: BrokerConfig, *, folder: Path, executable: str | None = None) -> None:
        super().__init__()
        found = executable or find_mosquitto()
        if found is None:
            raise BrokerUnavailable(
                "there is no Mosquitto on this machine",
                hint="Debian: apt-get install mosquitto; macOS: brew install mosquitto; or make setup-test",
            )
        self.config = config
        self._executable = found
        self._folder = folder
        self._ports: dict[str, int] = {}

    @property
    def port(self) -> int:
        """Port of the plain TCP listener."""
        return self._port("mqtt")

    @property
    def url(self) -> str:
        """`mqtt://127.0.0.1:PORT`."""
        return self._url("mqtt")

    @property
    def tls_url(self) -> str:
        """`mqtts://127.0.0.1:PORT`; RuntimeError where the configuration has no `tls`."""
        return self._url("mqtts")

    @property
    def ws_url(self) -> str:
        """`ws://127.0.0.1:PORT/mqtt`; RuntimeError where the configuration has no `websocket`."""
        return f"{self._url('ws')}/mqtt"

    @property
    def wss_url(self) -> str:
        """`wss://127.0.0.1:PORT/mqtt`; RuntimeError without both `tls` and `websocket`."""
        return f"{self._url('wss')}/mqtt"

    def _port(self, scheme: str) -> int:
        try:
            return self._ports[scheme]
        except KeyError:
            raise RuntimeError(f"this broker has no {scheme} listener, or was not started") from None

    def _url(self, scheme: str) -> str:
        return f"{scheme}://{_HOST}:{self._port(scheme)}"

    def _choose_ports(self) -> None:
        schemes = ["mqtt"]
        if self.config.tls is not None:
            schemes.append("mqtts")
        if self.config.websocket:
            schemes.append("ws")
        if self.config.tls is not None and self.config.websocket:
            schemes.append("wss")
        self._ports = {scheme: free_port(_HOST) for scheme in schemes}
        self._write_configuration()

    def _command(self) -> Sequence[str]:
        return (self._executable, "-c", str(self._folder / "mosquitto.conf"))

    async def _wait_ready(self, child: Child) -> None:
        # Logged after all listeners are open; the probe then proves that it answers.
        await child.wait_line("stderr", lambda line: line.endswith(" running") or None)
        reader, writer = await asyncio.open_connection(_HOST, self.port)
        try:
            writer.write(_CONNECT)
            answer = await reader.read(4)
        finally:
            writer.close()
            await writer.wait_closed()
        if not answer or answer[0] != _CONNACK_TYPE:  # a refusal is an answer too
            raise child.failed(f"answered CONNECT with {answer!r}", exit_code=child.exit_code)

    def _write_configuration(self) -> None:
        config = self.config
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        lines = [
            "per_listener_settings false",
            "log_dest stderr",
            "log_type all",
            # As root Mosquitto would become its own user, who may not write here.
            f"user {getpass.getuser()}",
            f"allow_anonymous {_yes(not config.users and config.dynamic_security is None)}",
            f"persistence {_yes(config.persistence)}",
            f"persistence_location {data}{os.sep}",
        ]
        if config.save_every_change:
            lines += ["autosave_on_changes true", "autosave_interval 1"]
        if config.max_queued_messages is not None:
            lines.append(f"max_queued_messages {config.max_queued_messages}")
        if config.max_inflight_messages is not None:
            lines.append(f"max_inflight_messages {config.max_inflight_messages}")
        if config.users:
            lines.append(f"password_file {self._write_passwords()}")
        if config.dynamic_security is not None:
            lines += self._dynamic_security(*config.dynamic_security)
        for scheme, port in self._ports.items():
            lines += self._listener(scheme, port)
        lines += config.lines
        (self._folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def _listener(self, scheme: str, port: int) -> list[str]:
        lines = [f"listener {port} {_HOST}"]
        if scheme in ("ws", "wss"):
            lines.append("protocol websockets")
        tls = self.config.tls
        if scheme in ("mqtts", "wss") and tls is not None:
            lines += [
                f"cafile {tls.ca}",
                f"certfile {tls.server.certificate}",
                f"keyfile {tls.server.key}",
                f"require_certificate {_yes(self.config.require_client_certificate)}",
            ]
        return lines

    def _dynamic_security(self, user: str, password: str) -> list[str]:
        plugin = find_dynamic_security()
        if plugin is None:
            raise BrokerUnavailable(
                "there is no plug-in for dynamic security on this machine", hint="Debian's package mosquitto has it"
            )
        path = self._folder / "dynamic-security.json"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(json.dumps(_administered_by(user, password)))
        return [f"plugin {plugin}", f"plugin_opt_config_file {path}"]

    def _write_passwords(self) -> Path:
        path = self._folder / "passwords"
        path.touch(mode=0o600)
        path.write_text("".join(f"{user}:{_hashed(word)}\n" for user, word in self.config.users.items()))
        return path


def _yes(value: bool) -> str:
    return "true" if value else "false"


def _hashed(password: str) -> str:
    """A password as mosquitto_passwd writes it: `$7$`, PBKDF2 with SHA-512, 101 rounds."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _administered_by(user: str, password: str) -> dict[str, object]:
    """What `mosquitto_ctrl dynsec init` writes: one account, which may administer and nothing else."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    acls = [
        {"acltype": kind, "topic": "$CONTROL/dynamic-security/#", "allow": True}
        for kind in ("publishClientSend", "publishClientReceive", "subscribePattern")
    ]
    client = {
        "username": user,
        "password": base64.b64encode(digest).decode(),
        "salt": base64.b64encode(salt).decode(),
        "iterations": 101,
        "roles": [{"rolename": "admin"}],
    }
    defaults = {"publishClientSend": False, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    return {"clients": [client], "roles": [{"rolename": "admin", "acls": acls}], "defaultACLAccess": defaults}


@asynccontextmanager
async def run_broker(
    config: BrokerConfig | None = None, *, folder: Path | None = None, executable: str | None = None
) -> AsyncIterator[Broker]:
    """Start a real Mosquitto on free loopback ports and wait until it answers CONNECT.

        async with run_broker(BrokerConfig(max_queued_messages=0)) as broker:
            ...
            await broker.kill()   # SIGKILL
            await broker.start()  # same ports, same data

    Args:
        config: default: anonymous, persistence on, Mosquitto's own limits.
        folder: for its configuration and data; default: a new one that is removed at the end.
        executable: the `mosquitto` to run; default `find_mosquitto()`.

    Raises:
        BrokerUnavailable: there is no Mosquitto on this machine.
        ProcessFailed: it did not start, or at the end did not exit cleanly; with its log.
    """
    if folder is not None:
        async with Broker(config or BrokerConfig(), folder=folder, executable=executable) as broker:
            yield broker
        return
    with tempfile.TemporaryDirectory(prefix="gapless-mosquitto-") as temporary:
        async with Broker(config or BrokerConfig(), folder=Path(temporary), executable=executable) as broker:
            yield broker
