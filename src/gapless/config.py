"""All settings of a gateway: defaults here, then a file, then the environment, then flags."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from gapless.auth import AuthOptions
from gapless.brokers import BrokerAuthOptions
from gapless.errors import ConfigError
from gapless.eventlog import Retention
from gapless.limits import Limits
from gapless.link import LinkOptions
from gapless.presence import PresenceOptions
from gapless.transports.http import HttpOptions
from gapless.transports.mqtt import EdgeOptions
from gapless.transports.socketio import SocketIoOptions
from gapless.transports.tls import TlsOptions

ENVIRONMENT_PREFIX = "GAPLESS_"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One gateway.

    Attributes:
        host: address to listen on, for all doors.
        port: the HTTP port: Socket.IO, SSE, polling, REST, MQTT over WebSocket, pages. 0 takes a free one.
        mqtt_port: the MQTT port without TLS; 0 takes a free one, None opens none. With TLS on an address that
            other machines reach it is opened only where it is set.
        mqtts_port: the MQTT port with TLS, opened where there is a table `[tls]`; 0 takes a free one.
        data: folder of the log; made if absent. None keeps the log in memory (for trials only).
        topic_map: path of a TOML topic map; None takes the map of the reference domain.
        token: the development token that every client must show; None lets everybody in. With `[auth]` it
            is not looked at.
        insecure: listen beyond this machine although there is no `[auth]`.
        recent_events, recent_bytes: how much of the log's end is kept in memory for returning clients,
            with the encodings that live clients got.
        io_uring: write an event to many connections by one system call, where the machine lets us. Where it does
            not, one call each is made. Switch it off where a filter of system calls ends who tries.
        tls: certificates for the HTTP port and the MQTT port; None for none.
        auth: keys and tokens; None for a gateway on loopback, where everybody may do everything.
        presence: who is online; see docs/presence.md.
        link: the external broker; None for none.
        broker_auth: who may do what at external brokers; None leaves that to them.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    mqtt_port: int | None = 1883
    mqtts_port: int | None = 8883
    data: Path | None = Path("gapless-data")
    topic_map: Path | None = None
    token: str | None = None
    insecure: bool = False
    recent_events: int = 100_000
    recent_bytes: int = 256 << 20
    io_uring: bool = True
    limits: Limits = Limits()
    retention: Retention = Retention()
    edge: EdgeOptions = EdgeOptions()
    http: HttpOptions = HttpOptions()
    socketio: SocketIoOptions = SocketIoOptions()
    presence: PresenceOptions = PresenceOptions()
    tls: TlsOptions | None = None
    auth: AuthOptions | None = None
    link: LinkOptions | None = None
    broker_auth: BrokerAuthOptions | None = None

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the gateway."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __repr__(self) -> str:
        token = "None" if self.token is None else "'***'"
        ports = f"port={self.port}, mqtt_port={self.mqtt_port}"
        return f"Settings(host={self.host!r}, {ports}, data={self.data}, token={token})"


def check_exposure(settings: Settings) -> None:
    """Refuse to be reached from other machines without keys, unless that was asked for by name.

    Raises:
        ConfigError: the host is not a loopback address, there is no `[auth]`, and `insecure` is not set.
    """
    if settings.auth is None and not settings.on_loopback and not settings.insecure:
        raise ConfigError(
            f"{settings.host} can be reached from other machines, and the gateway has no keys to know its clients by",
            hint="set GAPLESS_AUTH__SECRET to what `gapless token --new-secret` prints (or see [auth] in "
            "docs/configuration.md); or say --insecure, if everybody who reaches it may read and publish everything",
        )


def load_settings(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from a TOML file, the environment and flags; the later wins.

    Environment variables are `GAPLESS_PORT`, `GAPLESS_DATA`, `GAPLESS_LINK__URL`, …: upper case,
    two underscores between a table and its key; lists as in TOML. Flags are keyed like the file; None is no flag.

    Raises:
        ConfigError: naming the key, what is wrong and the fix.
    """
    document: dict[str, Any] = _from_file(file) if file is not None else {}
    _merge(document, _from_environment(os.environ if environment is None else environment))
    _merge(document, dict(flags or {}))
    try:
        settings = msgspec.convert(document, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error
    ports = {"port": settings.port, "mqtt_port": settings.mqtt_port, "mqtts_port": settings.mqtts_port}
    for name, port in ports.items():
        if port is not None and not 0 <= port <= 65535:
            raise ConfigError(f"{name} is {port}", hint="use 0 (any free port) to 65535")
    settings.presence.check()
    if settings.tls is not None:
        settings.tls.check()
        if "mqtt_port" not in document and not settings.on_loopback:
            return msgspec.structs.replace(settings, mqtt_port=None)  # passwords would go over it in the clear
    return settings


def _explained(problem: str) -> ConfigError:
    """Of what msgspec says, such as "Expected `array`, got `str` - at `$.http.origins`"."""
    text, _, place = problem.rpartition(" - at `$")
    where = place.strip("`.")
    hint = "see docs/configuration.md for all settings"
    if text.startswith("Expected `array`"):
        variable = ENVIRONMENT_PREFIX + where.upper().replace(".", "__")
        hint = f"""write a list: {where} = ["…"] in the file, or {variable}='["…"]'"""
    return ConfigError(f"wrong setting{f' {where}' if where else ''}: {text or problem}", hint=hint)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check the path given to --config") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="see docs/configuration.md for an example") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            table = found
            *tables, key = name[len(ENVIRONMENT_PREFIX) :].lower().split("__")
            for part in tables:
                table = table.setdefault(part, {})
            table[key] = _list_or_text(value)
    return found


def _list_or_text(value: str) -> Any:
    """A list is written as in the file: `["https://crm.example.com"]`."""
    if not (value.startswith("[") and value.endswith("]")):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value  # such as the address [::1]


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        elif value is not None:
            into[key] = value


def _decode(expected: type, value: Any) -> Any:
    if expected is Path:
        return Path(value)
    raise NotImplementedError(expected)
