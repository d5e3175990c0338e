"""Where a broker is: the URL, taken apart and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from gapless.errors import ConfigError

_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_EXAMPLE = "write it like mqtt://user:password@broker.example:1883 (mqtt, mqtts, ws or wss)"


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Host, port and way to an MQTT broker.

    Attributes:
        scheme: `mqtt`, `mqtts`, `ws` or `wss`.
        path: for WebSocket, with its query; empty otherwise.
        username, password: from the URL; None where it has none.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def tls(self) -> bool:
        """Whether the way is encrypted."""
        return self.scheme in ("mqtts", "wss")

    @property
    def websocket(self) -> bool:
        """Whether MQTT travels in WebSocket frames (MQTT 5 §6)."""
        return self.scheme in ("ws", "wss")

    def __str__(self) -> str:
        """The URL without user and password: fit for logs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = self.path.partition("?")[0]  # a query may hold a token
        return f"{self.scheme}://{host}:{self.port}{path}"


def parse_address(url: str) -> BrokerAddress:
    """Take a broker's URL apart.

    Default ports are 1883 (mqtt), 8883 (mqtts), 80 (ws) and 443 (wss); the default path of a
    WebSocket is `/mqtt`. User and password are percent-decoded.

    Raises:
        ConfigError: the URL is not one of a broker; the message shows no password.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ConfigError("the broker's URL has a wrong host or port", hint=_EXAMPLE) from error
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        found = f"{scheme}://" if "://" in url and scheme else "no scheme"
        raise ConfigError(f"the broker's URL has {found}", hint=_EXAMPLE)
    if not parts.hostname:
        raise ConfigError("the broker's URL names no host", hint=_EXAMPLE)
    if port == 0:
        raise ConfigError("the broker's URL has port 0", hint=_EXAMPLE)
    websocket = scheme in ("ws", "wss")
    if parts.fragment or (not websocket and (parts.path not in ("", "/") or parts.query)):
        raise ConfigError(f"a {scheme}:// URL ends after the port", hint="only ws:// and wss:// URLs have a path")
    path = ""
    if websocket:
        path = (parts.path or "/mqtt") + (f"?{parts.query}" if parts.query else "")
    return BrokerAddress(
        scheme=scheme,
        host=parts.hostname,
        port=port or _PORTS[scheme],
        path=path,
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )
