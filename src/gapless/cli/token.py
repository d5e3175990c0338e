"""`gapless token`: tokens for development, and secrets to sign them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gapless.cli.output import Output
from gapless.cli.running import OK, run
from gapless.errors import ConfigError

if TYPE_CHECKING:
    from gapless.config import Settings

EXAMPLES = """
**Examples**

`export GAPLESS_AUTH__SECRET=$(gapless token --new-secret)` — then start the gateway: it asks for tokens

`gapless token --user 7 --role MANAGER` — for an hour, signed with that secret

`gapless token --user 7 --role SALES --room lead:123 --room 'note:*' --expires 8h`

`gapless token --user 7 --config gapless.toml` — the secret, issuer and audience of the gateway's settings

`gapless token --user 7 --role SALES --acl --config gapless.toml` — with the claim `acl`, for EMQX

`gapless token --user 7 --key private.pem --kid 2026-01` — RS256, ES256 or EdDSA
"""


def token(
    user: Annotated[str | None, typer.Option(help="Whose token: the claim `sub`.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="A role; may be given several times.")] = None,
    room: Annotated[
        list[str] | None, typer.Option(help="A room for the rule `rooms`; `*` is any text; several times.")
    ] = None,
    expires: Annotated[str, typer.Option(metavar="TIME", help="How long it lives: 90s, 30m, 1h, 7d.")] = "1h",
    claim: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A further claim; JSON, or else text; several times.")
    ] = None,
    acl: Annotated[
        bool, typer.Option("--acl", help="Add the claim `acl`: what the topic map allows, as EMQX reads it.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="Settings file of the gateway, TOML.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key to sign with, PEM.")] = None,
    kid: Annotated[str | None, typer.Option(help="Key id for the token's header.")] = None,
    new_secret: Annotated[bool, typer.Option("--new-secret", help="Print a new secret instead.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
) -> None:
    """Issue a token for development, signed with the gateway's own secret.

    In production your application signs the tokens of its users; the gateway only verifies them.
    """
    output = Output(json=json)

    async def command() -> int:
        from gapless.auth import AuthOptions
        from gapless.auth.issue import find_signer, issue_token, parse_duration
        from gapless.auth.issue import new_secret as make_secret
        from gapless.config import load_settings

        if new_secret:
            _print(output, "secret", make_secret())
            return OK
        if user is None:
            raise ConfigError("whose token?", hint="gapless token --user 7, or --new-secret for a secret")
        settings = load_settings(config)
        options = settings.auth
        more = dict(_claim(each) for each in claim or ())
        if acl:
            more["acl"] = _acl(settings, user, role or (), room or (), more)
        signer = find_signer(options, key, kid)
        text = issue_token(
            options or AuthOptions(),
            signer,
            user=user,
            roles=role or (),
            rooms=room or (),
            expires=parse_duration(expires),
            more=more,
        )
        _print(output, "token", text)
        return OK

    run(command, output)


def _acl(
    settings: Settings, user: str, roles: Sequence[str], rooms: Sequence[str], claims: Mapping[str, object]
) -> list[dict[str, str]]:
    """What the gateway's rules allow; the rule `ask` cannot be asked here."""
    from gapless.auth import Identity, Policy, acl_of
    from gapless.brokers.asked.emqx import acl_claim
    from gapless.brokers.link_topics import link_filters, link_topics
    from gapless.brokers.options import BrokerAuthOptions
    from gapless.topicmap import crm_map, load_map

    options = settings.broker_auth or BrokerAuthOptions()
    identity = Identity(user_id=user, roles=frozenset(roles), rooms=tuple(rooms), claims=claims)
    policy = Policy(crm_map() if settings.topic_map is None else load_map(settings.topic_map))
    rights = acl_of(policy, identity).with_more(
        subscribe=link_filters(settings.link, identity, heartbeat=options.heartbeat),
        publish=link_topics(settings.link),
    )
    return acl_claim(rights, limit=options.jwt_lines)


def _print(output: Output, name: str, text: str) -> None:
    if output.json:
        output.result({name: text})
    else:
        print(text)


def _claim(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(f"--claim {text!r} has no '='", hint="such as --claim team=5")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
