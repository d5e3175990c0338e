"""Render docs/configuration.md from the settings themselves.

python scripts/configuration.py           write it
python scripts/configuration.py --check   exit 1 if it is stale
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from gapless.auth import AskOptions, AuthOptions, KeyOptions
from gapless.brokers import BrokerAuthOptions
from gapless.brokers.options import MosquittoOptions
from gapless.config import Settings
from gapless.eventlog import Retention
from gapless.limits import AddressShares, Limits, Rates, Shares
from gapless.link import LinkOptions
from gapless.presence import PresenceOptions
from gapless.transports.http import HttpOptions
from gapless.transports.mqtt import EdgeOptions
from gapless.transports.socketio import SocketIoOptions
from gapless.transports.tls import TlsOptions

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
TABLES: dict[str, tuple[str, type[Any]]] = {
    "": ("The gateway", Settings),
    "tls": ("TLS", TlsOptions),
    "auth": ("Who is let in", AuthOptions),
    "auth.keys": ("A key of the application (a list: `[[auth.keys]]`)", KeyOptions),
    "auth.ask": ("The application's answers to the rule `ask`", AskOptions),
    "limits": ("What may come in", Limits),
    "limits.connection": ("What one connection may send", Rates),
    "limits.user": ("What all connections of one user may take", Shares),
    "limits.address": ("What all connections from one address may take", AddressShares),
    "retention": ("How long the log keeps events", Retention),
    "socketio": ("Socket.IO", SocketIoOptions),
    "edge": ("The MQTT server", EdgeOptions),
    "http": ("REST, polling, server-sent events, pages", HttpOptions),
    "presence": ("Who is online", PresenceOptions),
    "link": ("The external broker", LinkOptions),
    "broker_auth": ("Who may do what at external brokers", BrokerAuthOptions),
    "broker_auth.mosquitto": ("How Mosquitto's dynamic security is told", MosquittoOptions),
}
INTRODUCTION = """# Configuration

<!-- Rendered by scripts/configuration.py from the settings' own documentation; change it there. -->

Defaults are in the code; a TOML file (`gapless serve --config gateway.toml`) goes before them, environment
variables before the file, and flags before all. A variable is `GAPLESS_` and the key in upper case, with two
underscores between a table and its key: `GAPLESS_PORT=9000`, `GAPLESS_LINK__URL=mqtt://broker:1883`;
lists are written as in the file: `GAPLESS_HTTP__ORIGINS='["https://crm.example.com"]'`.
A wrong setting stops the start and is named. Times are in seconds and sizes in bytes.

```toml
port = 8080
data = "/var/lib/gapless"
topic_map = "map.toml"

[retention]
seconds = 604800

[link]
url = "mqtts://broker.example:8883"
username = "crm"
```
"""


def descriptions(options: type[Any]) -> dict[str, str]:
    """What the docstring's `Attributes` (or `Args`) say, by name."""
    found: dict[str, str] = {}
    names: list[str] = []
    section = re.split(r"^(?:Attributes|Args):\n", inspect.getdoc(options) or "", flags=re.MULTILINE)[-1]
    for line in section.splitlines():
        if not line.strip() or not line.startswith("    "):
            break
        entry = re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2].strip())
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """The default as TOML would write it."""
    value = field.default if field.default is not msgspec.NODEFAULT else None
    if field.required:
        return "needed"
    if value is None:
        return "none"
    if isinstance(value, Path):
        return f'`"{value}"`'
    return f"`{msgspec.json.encode(value).decode()}`"


def render() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for table, (title, options) in TABLES.items():
        texts = descriptions(options)
        parts.append(f"## {title}{f' · `[{table}]`' if table else ''}\n\n| key | default | meaning |\n|---|---|---|")
        for field in msgspec.structs.fields(options):
            if f"{table}.{field.name}".lstrip(".") in TABLES:  # a table of its own
                continue
            text = texts[field.name].replace("|", "\\|")
            parts.append(f"| `{field.name}` | {default_of(field)} | {text[:1].upper()}{text[1:]} |")
        parts.append("")
    return "\n".join(parts)


def main() -> int:
    """Write the page, or with `--check` compare it."""
    page = render()
    if "--check" in sys.argv:
        if PAGE.read_text() != page:
            print("docs/configuration.md is stale: run python scripts/configuration.py")
            return 1
        return 0
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
