"""Whatever comes in as a token, a claim or a rule: a clear refusal, and nothing else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gapless.auth import AuthOptions, Identity
from gapless.auth.claims import check_claims, identity_from
from gapless.auth.keys import keys_from_jwks, load_keys
from gapless.auth.tokens import TokenVerifier
from gapless.errors import ConfigError, Unauthorized
from gapless.topicmap.load import map_from
from tests.auth.support import NOW, SECRET, Clock, forged

OPTIONS = AuthOptions(secret=SECRET, audience="gapless")
VERIFIER = TokenVerifier(OPTIONS, load_keys(OPTIONS), Clock())

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=4), scalars, max_size=2)
header_names = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5u"])
header_values = st.sampled_from(["HS256", "none", "RS256", "JWT", ["exp"]]) | values
claim_names = st.sampled_from(["sub", "exp", "iat", "nbf", "aud", "iss", "jti", "roles", "role", "rooms"])
claim_values = st.sampled_from([NOW + 60, NOW, "gapless", ["gapless"], "7", ["SALES"], float("inf")]) | values


def verify(text: str) -> Identity | None:
    try:
        return VERIFIER.verify(text)
    except Unauthorized:
        return None


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.text("eyJhbGciOi.-_=", max_size=200))
@example("\udc80..")
@example("e30.e30.")
def test_any_text_is_no_token(text: str) -> None:
    assert verify(text) is None


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(header_names, header_values, max_size=4),
    st.dictionaries(claim_names, claim_values, max_size=6),
    st.binary(max_size=64),
)
def test_no_token_without_the_secret(header: dict[str, Any], body: dict[str, Any], signature: bytes) -> None:
    assert verify(forged(header, body, signature)) is None


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(claim_names, claim_values, max_size=3))
def test_any_claims_are_refused_or_of_one_user_with_an_end(changed: dict[str, Any]) -> None:
    claims = {"sub": "7", "exp": NOW + 60, "aud": "gapless", **changed}
    refused: Unauthorized | None = None
    try:
        check_claims(claims, OPTIONS, NOW)
        identity = identity_from(claims, OPTIONS, token_id="t")
    except Unauthorized as error:
        refused = error
    if refused is not None:
        assert refused.details["reason"]
        return
    assert identity.user_id
    assert identity.expires is not None
    assert NOW < identity.expires <= NOW + OPTIONS.max_lifetime + OPTIONS.leeway
    assert all(isinstance(each, str) for each in (*identity.roles, *identity.rooms))
    assert not identity.service


@settings(max_examples=50, deadline=None)
@given(
    values
    | st.fixed_dictionaries({"keys": st.lists(st.dictionaries(st.sampled_from(["kty", "n", "e", "crv", "x"]), values))})
)
def test_any_document_is_a_key_set_or_none(document: Any) -> None:
    try:
        keys = keys_from_jwks(json.loads(json.dumps(document)), OPTIONS.jwks_algorithms)
    except ValueError:
        return
    assert keys == []


pieces = st.lists(
    st.sampled_from(
        ["role:", "A", "claim:", "sub", "=", "{x}", "{", "}", "rooms", "room:", "r:", "ask", " and ", "nobody"]
    ),
    max_size=6,
).map("".join)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(pieces | scalars, max_size=3) | values,
    st.lists(pieces, max_size=3) | values,
    st.lists(st.fixed_dictionaries({"pattern": pieces | scalars, "subscribe": st.lists(pieces, max_size=2) | values})),
    values,
)
def test_any_rules_are_read_or_refused_with_a_hint(publish: Any, everything: Any, rooms: Any, unmapped: Any) -> None:
    row = {"pattern": "t/{x}", "type": "t", "rooms": ["r:{x}"], "publish": publish}
    document = {"topic": [row], "room": rooms, "everything": everything, "unmapped_publish": unmapped}
    refused: ConfigError | None = None
    try:
        map_from(document)
    except ConfigError as error:
        refused = error
    assert refused is None or (refused.message and refused.hint)
