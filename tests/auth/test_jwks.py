"""A key set at a real HTTP server: rotation, failures, bounds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gapless.auth import AuthOptions, Credentials, Identity
from gapless.auth.authenticator import Authenticator
from gapless.auth.jwks import lifetime
from gapless.auth.keys import keys_from_jwks
from gapless.errors import Unauthorized
from tests.auth.support import Clock, LocalHttp, Reply, local_http, token

FIRST = rsa.generate_private_key(65537, 2048)
SECOND = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
ALL = ("RS256", "ES256", "EdDSA")


def jwk(private: Any, kid: str | None = None, **more: Any) -> dict[str, Any]:
    kinds: dict[str, Any] = {
        "RSA": jwt.algorithms.RSAAlgorithm,
        "EC": jwt.algorithms.ECAlgorithm,
        "Ed": jwt.algorithms.OKPAlgorithm,
    }
    kind = next(kind for name, kind in kinds.items() if type(private).__name__.startswith(("_" + name, name)))
    entry: dict[str, Any] = {**json.loads(kind.to_jwk(private.public_key())), **more}
    entry.pop("key_ops", None)
    return entry if kid is None else {**entry, "kid": kid}


def published(*keys: dict[str, Any]) -> Reply:
    return Reply(json.dumps({"keys": keys}).encode(), headers="cache-control: public, max-age=600\r\n")


class Provider:
    """An identity provider."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.clock = Clock(0.0)
        self.server: LocalHttp
        self.gate: Authenticator

    async def identify(self, text: str) -> Identity:
        return await self.gate.identify(Credentials(token=text))

    async def refuses(self, text: str) -> bool:
        try:
            await self.identify(text)
        except Unauthorized:
            return True
        return False


@asynccontextmanager
async def provider(reply: Reply, **options: Any) -> AsyncIterator[Provider]:
    found = Provider(reply)
    async with local_http(lambda _: found.reply) as found.server:
        settings = AuthOptions(jwks_url=found.server.url, **options)
        found.gate = Authenticator(settings, clock=Clock())
        assert found.gate.key_set is not None
        found.gate.key_set._clock = found.clock
        await found.gate.start()
        try:
            yield found
        finally:
            await found.gate.stop()


def signed(private: Any, kid: str, algorithm: str = "RS256", **more: Any) -> str:
    return token(private, algorithm, headers={"kid": kid}, **more)


async def test_a_new_key_is_fetched_when_it_is_first_seen() -> None:
    async with provider(published(jwk(FIRST, "1"))) as there:
        assert (await there.identify(signed(FIRST, "1"))).user_id == "7"
        there.reply = published(jwk(FIRST, "1"), jwk(SECOND, "2"))
        there.clock.now += 31
        assert (await there.identify(signed(SECOND, "2"))).user_id == "7"
        assert (await there.identify(signed(FIRST, "1"))).user_id == "7"
        assert len(there.server.asked) == 2


async def test_a_key_that_is_published_no_more_is_refused() -> None:
    async with provider(published(jwk(FIRST, "1"))) as there:
        await there.identify(signed(FIRST, "1"))
        there.reply = published(jwk(SECOND, "2"))
        there.clock.now += 31
        await there.identify(signed(SECOND, "2"))
        assert await there.refuses(signed(FIRST, "1"))


async def test_unknown_keys_are_looked_for_only_so_often() -> None:
    async with provider(published(jwk(FIRST, "1"))) as there:
        there.clock.now += 31
        for number in range(20):
            assert await there.refuses(signed(SECOND, f"x{number}"))
        assert len(there.server.asked) == 2


@pytest.mark.parametrize(
    "reply", [Reply(b"", 500), Reply(b"no JSON"), Reply(b"[]"), Reply(b'{"keys": 5}'), Reply(b" " * 300_000)]
)
async def test_while_it_fails_the_known_keys_go_on(reply: Reply) -> None:
    async with provider(published(jwk(FIRST, "1"))) as there:
        there.reply = reply
        there.clock.now += 31
        assert await there.refuses(signed(SECOND, "2"))
        assert (await there.identify(signed(FIRST, "1", jti="again"))).user_id == "7"
        assert there.gate.key_set is not None
        assert there.gate.key_set.counts == {"fetched": 1, "failed": 1}
        assert there.gate.key_set.problem


async def test_a_start_without_the_key_set_is_mended_later() -> None:
    async with provider(Reply(b"", 503)) as there:
        assert await there.refuses(signed(FIRST, "1"))
        there.reply = published(jwk(FIRST, "1"))
        there.clock.now += 31
        assert (await there.identify(signed(FIRST, "1"))).user_id == "7"


async def test_the_keys_algorithm_rules_whatever_the_token_says() -> None:
    async with provider(published(jwk(FIRST, "1", alg="PS256"), jwk(EC, "2"), jwk(ED, "3"))) as there:
        assert (await there.identify(signed(FIRST, "1", "PS256"))).user_id == "7"
        assert await there.refuses(signed(FIRST, "1", "RS256"))
        assert (await there.identify(signed(EC, "2", "ES256"))).user_id == "7"
        assert (await there.identify(signed(ED, "3", "EdDSA"))).user_id == "7"


def test_what_cannot_be_used_is_left_out() -> None:
    shared = {"kty": "oct", "k": "c2VjcmV0LW9mLXRoaXJ0eS10d28tYnl0ZXMtYW5kLW1vcmU", "alg": "HS256", "kid": "0"}
    document = {
        "keys": [
            shared,
            jwk(FIRST, "1", use="enc"),
            jwk(FIRST, "2", alg="none"),
            jwk(FIRST, "3", alg="HS256"),
            jwk(rsa.generate_private_key(65537, 1024), "4"),
            jwk(ec.generate_private_key(ec.SECP384R1()), "5"),
            {"kty": "RSA", "n": "x"},
            {"kty": ["RSA"]},
            "text",
            jwk(FIRST, "good"),
        ]
    }
    assert [(key.kid, key.algorithm) for key in keys_from_jwks(document, ALL)] == [("good", "RS256")]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", 3600),
        ("max-age=600", 600),
        ("public, MAX-AGE=600, must-revalidate", 600),
        ("max-age=1", 30),
        ("max-age=99999999", 3600),
        ("no-store", 30),
        ("max-age=600, no-cache", 30),
        ("s-maxage=5", 3600),
    ],
)
def test_how_long_a_key_set_is_kept(header: str, seconds: float) -> None:
    assert lifetime({"cache-control": header}, AuthOptions()) == seconds
