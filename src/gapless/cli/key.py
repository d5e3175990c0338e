"""`gapless key`: API keys of trusted back ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from gapless.cli.output import Output
from gapless.cli.running import OK, run
from gapless.errors import ConfigError

CREATE = """
**Examples**

`gapless key create --name crm-backend --file keys.json` — it may hear and publish everything

`gapless key create --name prometheus --role METRICS --config gapless.toml` — only what the role may
"""

app = typer.Typer(
    no_args_is_help=True,
    help="API keys of trusted back ends: made, listed and revoked in a file that a running gateway follows.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_File = Annotated[
    Path | None, typer.Option("--file", help="Where the keys are. [default: auth.api_keys_file of the settings]")
]
_Config = Annotated[Path | None, typer.Option("--config", help="Settings file of the gateway, TOML.")]
_Json = Annotated[bool, typer.Option("--json", help="As JSON, one line a key.")]


@app.command(epilog=CREATE)
def create(
    name: Annotated[str, typer.Option(help="What to call it: in the audit log, and to revoke it.")],
    role: Annotated[
        list[str] | None,
        typer.Option(help="A role that it has; several times. Without one the rule `service` holds for it."),
    ] = None,
    file: _File = None,
    config: _Config = None,
    json: _Json = False,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    output = Output(json=json)

    async def command() -> int:
        from gapless.auth.api_keys import create_key

        path = _path(file, config)
        key = create_key(path, name, role or ())
        if output.json:
            output.result({"name": name, "roles": role or [], "key": key})
        else:
            may = f"it may do what {' and '.join(role)} may" if role else "it may do all that the rule `service` allows"
            output.note(f"key {name}, in {path}: {may}. Keep it now, it is shown this once:")
            print(key)
        return OK

    run(command, output)


@app.command(name="list")
def list_keys(file: _File = None, config: _Config = None, json: _Json = False) -> None:
    """List the keys there are; none is shown itself."""
    output = Output(json=json)

    async def command() -> int:
        from gapless.auth.api_keys import read_keys

        path = _path(file, config)
        keys = read_keys(path)
        for key in keys:
            if output.json:
                output.result({"name": key.name, "id": key.id, "roles": key.roles, "created": key.created})
            else:
                roles = ", ".join(key.roles) or "(service)"
                output.line(f"[bold]{escape(key.name):<24}[/] {key.id}  {escape(roles):<24} {key.created}")
        if not keys:
            output.note(f"no keys in {path}")
        return OK

    run(command, output)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Its name, or its id.")],
    file: _File = None,
    config: _Config = None,
    json: _Json = False,
) -> None:
    """Remove a key. A running gateway ends its connections within a second."""
    output = Output(json=json)

    async def command() -> int:
        from gapless.auth.api_keys import remove_key

        key = remove_key(_path(file, config), name)
        if output.json:
            output.result({"revoked": key.name, "id": key.id})
        else:
            output.note(f"revoked {key.name} ({key.id})")
        return OK

    run(command, output)


def _path(file: Path | None, config: Path | None) -> Path:
    from gapless.config import load_settings

    if file is not None:
        return file
    auth = load_settings(config).auth
    if auth is None or auth.api_keys_file is None:
        raise ConfigError(
            "no file for the keys is named",
            hint="give --file keys.json, and the gateway the same as auth.api_keys_file (GAPLESS_AUTH__API_KEYS_FILE)",
        )
    return auth.api_keys_file
