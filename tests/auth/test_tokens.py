"""Tokens: signatures bound to their key's algorithm, and what the claims must say."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gapless.auth import AuthOptions, KeyOptions
from gapless.auth.keys import load_keys
from gapless.auth.tokens import TokenVerifier
from gapless.errors import ConfigError, Unauthorized
from tests.auth.support import NOW, SECRET, Clock, claims, forged, token

RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def pem(private: Any) -> str:
    public = private.public_key()
    return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).decode()


def verifier(*keys: KeyOptions, clock: Clock | None = None, **options: Any) -> TokenVerifier:
    settings = AuthOptions(keys=keys or (KeyOptions(secret=SECRET),), **options)
    return TokenVerifier(settings, load_keys(settings), clock or Clock())


def reason(verify: TokenVerifier, text: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        verify.verify(text)
    return str(caught.value.details["reason"])


# --- keys and algorithms


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        (SECRET, "HS256"),
        (SECRET * 2, "HS384"),
        (SECRET * 2, "HS512"),
        (RSA, "RS256"),
        (RSA, "PS256"),
        (EC, "ES256"),
        (ED, "EdDSA"),
    ],
)
def test_each_algorithm(private: Any, algorithm: str) -> None:
    material = private if isinstance(private, str) else pem(private)
    verify = verifier(KeyOptions(secret=material, algorithm=algorithm))
    identity = verify.verify(token(private, algorithm, roles=["SALES"], rooms=["lead:1"], jti="t1"))
    assert (identity.user_id, identity.roles, identity.rooms) == ("7", frozenset({"SALES"}), ("lead:1",))
    assert (identity.issued, identity.expires, identity.token_id) == (NOW, NOW + 60, "t1")
    assert not identity.service


def test_the_kind_of_key_tells_the_algorithm(tmp_path: Path) -> None:
    for private, algorithm in ((RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")):
        path = tmp_path / f"{algorithm}.pem"
        path.write_text(pem(private))
        assert [key.algorithm for key in load_keys(AuthOptions(keys=(KeyOptions(file=path),)))] == [algorithm]


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 5])
def test_no_token_without_a_signature(alg: Any) -> None:
    assert reason(verifier(), forged({"alg": alg, "typ": "JWT"}, claims())) in ("key", "malformed")
    assert reason(verifier(KeyOptions(secret=pem(RSA))), forged({"alg": alg}, claims())) in ("key", "malformed")


def test_a_public_key_is_no_secret() -> None:
    """The classic: an RS256 gateway, and a token signed by HS256 with the public key as its secret."""
    public = pem(RSA)
    header = {"alg": "HS256", "typ": "JWT"}
    unsigned = forged(header, claims()).rsplit(".", 1)[0]
    signature = hmac.new(public.encode(), unsigned.encode(), hashlib.sha256).digest()
    assert reason(verifier(KeyOptions(secret=public)), forged(header, claims(), signature)) == "key"
    with pytest.raises(ConfigError, match="no secret"):
        verifier(KeyOptions(secret=public, algorithm="HS256"))
    with pytest.raises(ConfigError):
        load_keys(AuthOptions(secret=f"  {public}", keys=(KeyOptions(secret=public, algorithm="HS512"),)))


@pytest.mark.parametrize(("private", "algorithm"), [(RSA, "PS256"), (SECRET * 2, "HS512"), (EC, "ES256")])
def test_a_key_serves_its_algorithm_only(private: Any, algorithm: str) -> None:
    verify = verifier(KeyOptions(secret=pem(RSA), algorithm="RS256"), KeyOptions(secret=SECRET * 2, algorithm="HS256"))
    assert reason(verify, token(private, algorithm)) == "key"


def test_a_foreign_signature() -> None:
    assert reason(verifier(), token("another-secret-of-thirty-two-bytes")) == "signature"
    assert reason(verifier(KeyOptions(secret=pem(RSA))), token(OTHER_RSA, "RS256")) == "signature"
    good = token()
    assert reason(verifier(), good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB")) == "signature"


def test_the_kid_chooses_the_key() -> None:
    old, new = "old-secret-of-thirty-two-bytes-xx", "new-secret-of-thirty-two-bytes-xx"
    verify = verifier(KeyOptions(secret=old, kid="old"), KeyOptions(secret=new, kid="new"))
    assert verify.verify(token(old, headers={"kid": "old"})).user_id == "7"
    assert verify.verify(token(new, headers={"kid": "new"})).user_id == "7"
    assert verify.verify(token(new)).user_id == "7"  # without one, each is tried
    assert reason(verify, token(new, headers={"kid": "old"})) == "signature"
    assert reason(verify, token(new, headers={"kid": "other"})) == "key"


def test_a_key_that_is_gone_verifies_nothing_it_verified_before() -> None:
    verify = verifier()
    published = load_keys(AuthOptions(keys=(KeyOptions(secret=pem(RSA), kid="1"),)))
    verify.use(published)
    text = token(RSA, "RS256", headers={"kid": "1"})
    assert verify.verify(text) is verify.verify(text)  # the second time without looking at the signature
    verify.use([])
    assert reason(verify, text) == "key"


@pytest.mark.parametrize(
    ("key", "named"),
    [
        (KeyOptions(secret="short"), "needs 32 or more"),
        (KeyOptions(secret="a" * 40), "guessed"),
        (KeyOptions(secret=SECRET, algorithm="HS512"), "needs 64"),
        (KeyOptions(secret=SECRET, algorithm="none"), "no algorithm 'none'"),
        (KeyOptions(secret=SECRET, algorithm="RS256"), "needs a public key"),
        (KeyOptions(secret=pem(RSA), algorithm="ES256"), "not one for ES256"),
        (KeyOptions(secret="-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----"), "cannot be read"),
        (KeyOptions(), "a secret or a file"),
        (KeyOptions(file=Path("/nowhere/key.pem")), "cannot read"),
        (KeyOptions(secret=pem(rsa.generate_private_key(65537, 1024))), "1024 bits"),
        (KeyOptions(secret=pem(ec.generate_private_key(ec.SECP384R1()))), "secp384r1"),
    ],
)
def test_keys_that_are_refused(key: KeyOptions, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        verifier(key)
    assert named in caught.value.message
    assert caught.value.hint
    assert "short" not in repr(key) or key.secret is None


def test_no_two_keys_with_one_kid() -> None:
    with pytest.raises(ConfigError, match="two keys"):
        verifier(KeyOptions(secret=SECRET, kid="1"), KeyOptions(secret=SECRET + "x", kid="1"))


def test_a_private_key_file_and_a_secret_file(tmp_path: Path) -> None:
    private = tmp_path / "private.pem"
    private.write_bytes(RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert verifier(KeyOptions(file=private)).verify(token(RSA, "RS256")).user_id == "7"
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    assert verifier(KeyOptions(file=secret)).verify(token()).user_id == "7"


# --- the token's form


@pytest.mark.parametrize(
    "text",
    ["", "x", "..", "a.b.c", "é.é.é", "\udcff.a.b", "eyJ.eyJ.", "." * 1000, forged({}, {}), "null.null.null"],
)
def test_what_is_no_token(text: str) -> None:
    assert reason(verifier(), text) in ("malformed", "key")


def test_a_huge_token_is_refused_unread() -> None:
    assert reason(verifier(), "a" * 8193) == "malformed"
    assert reason(verifier(), token(padding="x" * 9000)) == "malformed"
    assert verifier(max_token_bytes=20_000).verify(token(padding="x" * 9000)).user_id == "7"


def test_deep_claims_and_headers() -> None:
    deep = "[" * 3000 + "]" * 3000
    header = '{"alg":"HS256","x":' + deep + "}"
    import base64

    raw = base64.urlsafe_b64encode(header.encode()).rstrip(b"=").decode()
    assert reason(verifier(), f"{raw}.e30.xx") in ("malformed", "key", "signature")


def test_extensions_that_we_do_not_know_are_refused() -> None:
    """RFC 7515 §4.1.11."""
    assert reason(verifier(), token(headers={"crit": ["exp"], "exp": 1})) == "malformed"
    assert reason(verifier(), token(headers={"crit": ["b64"], "b64": False})) == "malformed"


# --- claims


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"exp": None}, "no_expiry"),
        ({"exp": NOW}, "expired"),
        ({"exp": NOW - 1}, "expired"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"exp": 10**400}, "malformed"),
        ({"nbf": -(10**400)}, "malformed"),
        ({"nbf": NOW + 6}, "not_yet"),
        ({"iat": NOW + 6}, "not_yet"),
        ({"exp": NOW + 8 * 86400}, "lifetime"),
        ({"exp": NOW + 8 * 86400, "iat": None}, "lifetime"),
        ({"aud": "elsewhere"}, "audience"),
        ({"sub": None}, "no_user"),
        ({"sub": ""}, "no_user"),
        ({"sub": True}, "no_user"),
        ({"sub": "a\nb"}, "no_user"),
        ({"sub": "x" * 257}, "no_user"),
        ({"sub": ["7"]}, "no_user"),
    ],
)
def test_claims_that_are_refused(more: dict[str, Any], expected: str) -> None:
    assert reason(verifier(), token(**more)) == expected


def test_the_issuers_clock_may_be_ahead_by_the_leeway() -> None:
    assert verifier().verify(token(iat=NOW + 5, nbf=NOW + 5)).user_id == "7"
    assert verifier(leeway=60).verify(token(nbf=NOW + 60)).user_id == "7"


def test_a_token_that_was_verified_expires_all_the_same() -> None:
    clock = Clock()
    verify = verifier(clock=clock)
    text = token()
    verify.verify(text)
    clock.now += 60
    assert reason(verify, text) == "expired"


def test_issuer_and_audience() -> None:
    verify = verifier(issuer="https://id", audience=("gapless", "other"))
    assert verify.verify(token(iss="https://id", aud="gapless")).user_id == "7"
    assert verify.verify(token(iss="https://id", aud=["x", "other"])).user_id == "7"
    assert reason(verify, token(iss="https://evil", aud="gapless")) == "issuer"
    assert reason(verify, token(aud="gapless")) == "issuer"
    assert reason(verify, token(iss="https://id")) == "audience"
    assert reason(verify, token(iss="https://id", aud=["x", 5])) == "audience"


def test_claims_may_have_other_names() -> None:
    verify = verifier(user_claim="user.id", roles_claims=("realm_access.roles",), rooms_claim="https://crm/rooms")
    more: dict[str, Any] = {"user": {"id": 42}, "realm_access": {"roles": ["ADMIN", 5]}, "https://crm/rooms": "lead:*"}
    identity = verify.verify(token(sub=None, **more))
    assert (identity.user_id, identity.roles, identity.rooms) == ("42", frozenset({"ADMIN"}), ("lead:*",))


def test_roles_may_be_words() -> None:
    assert verifier().verify(token(role="SALES MANAGER")).roles == {"SALES", "MANAGER"}


def test_a_token_without_jti_can_be_named_too() -> None:
    first, second = verifier().verify(token()), verifier().verify(token(x=1))
    assert first.token_id
    assert first.token_id.startswith("sha256-")
    assert first.token_id != second.token_id


def test_a_token_written_in_another_way_is_none_or_has_the_same_name() -> None:
    """So it can neither be revoked in vain nor be asked about anew each time."""
    verify = verifier()
    text = token()
    for other in (text + "=", text + "==", text + "!", text[:-5] + "\n" + text[-5:], text + "."):
        assert reason(verify, other) == "malformed"
    verify = verifier(KeyOptions(secret=pem(EC)))
    first, second = token(EC, "ES256"), token(EC, "ES256")
    assert first != second  # each signature is another
    assert verify.verify(first).token_id == verify.verify(second).token_id


def test_a_secret_shows_nowhere() -> None:
    settings = AuthOptions(secret=SECRET, keys=(KeyOptions(secret=SECRET + "2", kid="2"),))
    assert SECRET not in repr(settings) + repr(load_keys(settings))
