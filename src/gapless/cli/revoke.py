"""`gapless revoke`: take access back at a running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gapless.cli.output import Output
from gapless.cli.running import OK, run
from gapless.errors import ConfigError

EXAMPLES = """
**Examples**

`gapless revoke --user 7` — all tokens made for user 7 so far, and the connections made with them

`gapless revoke --token-id 5f2c…` — one token, by its claim `jti`

`gapless revoke --key crm-backend --url https://events.example.com` — an API key, by its name

`gapless revoke --recheck --user 7` — nothing is revoked: rights changed, and are looked at again
"""


def revoke(
    user: Annotated[str | None, typer.Option(help="All tokens of a user made so far.")] = None,
    token_id: Annotated[str | None, typer.Option("--token-id", "--jti", help="One token, by its claim `jti`.")] = None,
    key: Annotated[str | None, typer.Option(help="An API key, by its name.")] = None,
    recheck: Annotated[
        bool, typer.Option("--recheck", help="Only ask the application again, about --user or everybody.")
    ] = False,
    url: Annotated[str, typer.Option(help="The gateway.")] = "http://127.0.0.1:8080",
    token: Annotated[
        str | None, typer.Option(envvar="GAPLESS_TOKEN", help="Token or API key with an admin role.")
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Authority of the server's certificate, PEM. [default: the system]"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The gateway's answer.")] = False,
) -> None:
    """Take access back: it ends on every door within a second, and a restart does not give it back."""
    output = Output(json=json)

    async def command() -> int:
        body = {"user": user, "token": token_id, "key": key}
        named = {name: value for name, value in body.items() if value is not None}
        if recheck and set(named) <= {"user"}:
            answer = await _post(url, "/api/admin/recheck", named, token, ca)
            text = f"{answer.get('connections')} connections look again at what they hear"
        elif len(named) == 1 and not recheck:
            answer = await _post(url, "/api/admin/revocations", named, token, ca)
            text = f"revoked; {answer.get('connectionsEnded')} connections ended"
        else:
            raise ConfigError("name one of --user, --token-id and --key", hint="gapless revoke --user 7")
        if output.json:
            output.result(answer)
        else:
            output.note(text)
        return OK

    run(command, output)


async def _post(url: str, path: str, body: dict[str, str], token: str | None, ca: Path | None) -> dict[str, Any]:
    from gapless.client.http import decode_answer, http_client, trust

    async with http_client(url, token, tls=trust(ca)) as client:
        answer: dict[str, Any] = decode_answer(await client.post(path, json=body))
        return answer
