"""Keys, tokens and revocations by the command line, against a gateway that asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest

from gapless.auth import AuthOptions
from gapless.auth.api_keys import create_key
from gapless.auth.issue import find_signer, issue_token
from gapless.cli.serve import protection
from gapless.config import Settings
from gapless.gateway import Gateway
from gapless.testing import make_certificates, run_gateway
from gapless.transports.tls import TlsOptions
from tests.auth.test_tokens import RSA, pem
from tests.cli.harness import gapless, here, running

SECRET = "of-thirty-two-bytes-and-a-few-more"
WITH_SECRET = {"GAPLESS_AUTH__SECRET": SECRET}


def token(*arguments: str) -> str:
    done = here("token", *arguments, env=WITH_SECRET)
    assert done.code == 0, done
    return done.out.strip()


async def test_from_a_secret_to_a_revoked_user(tmp_path: Path) -> None:
    """The recipe of README.md: a secret, a gateway, a token, a subscriber; and the end of its access."""
    keys = tmp_path / "keys.json"
    backend = create_key(keys, "crm")
    options = AuthOptions(secret=SECRET)
    manager = issue_token(options, find_signer(options), user="7", roles=["MANAGER"])
    env = {**WITH_SECRET, "GAPLESS_AUTH__API_KEYS_FILE": str(keys), "GAPLESS_PRESENCE__PUBLISH": ""}
    async with run_gateway(env=env, mqtt=False) as gateway:
        to = ("--url", gateway.http, "--json")
        refused = await gapless("publish", "--topic", "crm/leads/7/created", "--data", "{}", *to)
        assert refused.code == 1
        assert '"unauthorized"' in refused.err
        assert "--token or GAPLESS_TOKEN" in refused.err
        async with running("subscribe", "--rooms", "org:global", "--token", manager, *to) as subscriber:
            await subscriber.note("subscribed")
            event = ("publish", "--type", "lead:created", "--data", '{"leadId": "7"}')
            published = await gapless(*event, "--token", backend, *to)
            assert published.code == 0, published
            assert json.loads(await subscriber.line())["topic"] == "crm/leads/7/created"
            denied = await gapless("revoke", "--user", "7", "--token", manager, *to)
            assert '"forbidden"' in denied.err
            revoked = await gapless("revoke", "--user", "7", "--token", backend, *to)
            assert revoked.lines[0]["connectionsEnded"] == 1
            assert await subscriber.end() == 1
        rechecked = await gapless("revoke", "--recheck", "--token", backend, *to)
        assert rechecked.lines == [{"connections": 0}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (AuthOptions(secret=SECRET), "tokens"),
        (AuthOptions(jwks_url="https://example.com/jwks", api_keys_file=Path("keys")), "tokens, API keys"),
        (AuthOptions(certificate_user="cn", anonymous_roles=()), "client certificates, and anybody as anonymous"),
    ],
)
def test_what_protects_it_is_said_at_the_start(options: AuthOptions, said: str) -> None:
    assert protection(options) == said


async def test_each_command_comes_to_a_gateway_whose_authority_is_private(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    pair = certificates.server
    options = AuthOptions(secret=SECRET)
    admin = issue_token(options, find_signer(options), user="1", roles=["ADMIN"])
    settings = Settings(
        port=0,
        mqtt_port=0,
        mqtts_port=0,
        data=None,
        auth=options,
        tls=TlsOptions(cert_file=pair.certificate, key_file=pair.key),
    )
    async with Gateway(settings) as gateway:
        to = ("--url", gateway.http_url, "--token", admin, "--json")
        commands = [
            ("publish", "--topic", "crm/leads/1/created", "--data", "{}", *to),
            ("subscribe", "--rooms", "lead:1", "--after", "start", "--count", "1", *to),
            ("revoke", "--recheck", *to),
        ]
        for command in commands:
            done = await gapless(*command, "--ca", str(certificates.ca))
            assert done.code == 0, (command[0], done)
        distrusted = await gapless(*commands[-1])
        assert distrusted.code == 1
        assert "certificate" in distrusted.err


def test_a_token_says_what_was_asked_for() -> None:
    text = token(
        *("--user", "7", "--role", "SALES", "--role", "X", "--room", "lead:1", "--expires", "90s"),
        *("--claim", "team=5", "--claim", "plan=gold"),
    )
    claims = jwt.decode(text, SECRET, ["HS256"])
    assert claims["exp"] - claims["iat"] == 90
    wanted = {"sub": "7", "roles": ["SALES", "X"], "rooms": ["lead:1"], "team": 5, "plan": "gold"}
    assert {name: claims[name] for name in wanted} == wanted


def test_a_token_as_the_settings_want_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key, config = tmp_path / "private.pem", tmp_path / "gapless.toml"
    key.write_bytes(RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    config.write_text(f'[auth]\nissuer = "crm"\naudience = "gapless"\n[[auth.keys]]\nkid = "1"\nfile = "{key}"\n')
    done = here("token", "--user", "7", "--config", str(config))
    assert done.code == 0, done
    text = done.out.strip()
    assert jwt.get_unverified_header(text) == {"alg": "RS256", "typ": "JWT", "kid": "1"}
    assert jwt.decode(text, pem(RSA), ["RS256"], audience="gapless", issuer="crm")["sub"] == "7"


def test_a_new_secret_is_another_each_time() -> None:
    secrets = {here("token", "--new-secret").out.strip() for _ in range(2)}
    assert len(secrets) == 2
    assert all(len(secret) == 43 for secret in secrets)


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    at = ("--file", str(tmp_path / "keys.json"))
    made = here("key", "create", "--name", "prometheus", "--role", "METRICS", *at)
    assert made.out.startswith("gk_")
    listed = here("key", "list", *at, "--json")
    assert [(line["name"], line["roles"]) for line in listed.lines] == [("prometheus", ["METRICS"])]
    assert made.out.strip() not in listed.out
    assert here("key", "revoke", "prometheus", *at).code == 0
    assert here("key", "list", *at, "--json").out == ""
    assert here("key", "revoke", "prometheus", *at).code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("token", "--user", "7"), "GAPLESS_AUTH__SECRET"),
        (("token",), "whose token"),
        (("key", "list"), "--file"),
    ],
)
def test_without_settings(arguments: tuple[str, ...], said: str) -> None:
    done = here(*arguments)
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize("expires", ["8d", "0", "soon", "-1h"])
def test_a_lifetime_that_is_none(expires: str) -> None:
    done = here("token", "--user", "7", "--expires", expires, env=WITH_SECRET)
    assert done.code == 2


def test_a_token_that_says_to_emqx_what_it_allows() -> None:
    claims = jwt.decode(
        token("--user", "7", "--role", "SALES", "--room", "lead:1", "--acl"), options={"verify_signature": False}
    )
    assert {"permission": "allow", "action": "subscribe", "topic": "crm/leads/1/updated"} in claims["acl"]
    assert claims["acl"][-1] == {"permission": "deny", "action": "all", "topic": "#"}
