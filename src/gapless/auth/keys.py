"""Keys that tokens are verified with: each bound to one algorithm, whatever a token says.

So a token cannot turn a public key into an HMAC secret, nor do without a signature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key, load_ssh_public_key

from gapless.auth.options import ALGORITHMS, AuthOptions, KeyOptions
from gapless.errors import ConfigError

SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Least bytes of a secret: as long as the hash (RFC 7518 §3.2)."""

LEAST_RSA_BITS = 2048
"""RFC 7518 §3.3."""

_KEY_FILE_BYTES = 64 << 10
_NEW_SECRET = "make one with: gapless token --new-secret"


class Key(msgspec.Struct, frozen=True):
    """A key, and the one algorithm it is for.

    Attributes:
        material: as PyJWT takes it.
        kid: None serves tokens that name no key, or one that no key has.
    """

    algorithm: str
    material: Any
    kid: str | None = None

    def __repr__(self) -> str:
        return f"Key(algorithm={self.algorithm!r}, kid={self.kid!r})"


def load_keys(options: AuthOptions) -> list[Key]:
    """The keys of the settings.

    Raises:
        ConfigError: naming the key, what is wrong and the fix.
    """
    keys = [_load(entry, f"auth.keys entry {number}") for number, entry in enumerate(options.keys, 1)]
    if options.secret is not None:
        keys.insert(0, _load(KeyOptions(secret=options.secret), "auth.secret"))
    kids = [key.kid for key in keys if key.kid is not None]
    for kid in kids:
        if kids.count(kid) > 1:
            raise ConfigError(f"two keys have the kid {kid!r}", hint="give each its own")
    return keys


def _load(entry: KeyOptions, where: str) -> Key:
    if entry.algorithm is not None and entry.algorithm not in ALGORITHMS:
        raise ConfigError(f"{where}: no algorithm {entry.algorithm!r}", hint=f"one of {', '.join(ALGORITHMS)}")
    if (entry.secret is None) == (entry.file is None):
        raise ConfigError(f"{where}: give a secret or a file", hint="a public key is a PEM file")
    if entry.secret is not None:
        text = entry.secret.encode()
    else:
        assert entry.file is not None
        text = read_key_file(entry.file, where)
    if looks_like_key(text):
        return _public_key(entry, text, where)
    algorithm = entry.algorithm or "HS256"
    if algorithm not in SECRET_BYTES:
        raise ConfigError(f"{where}: {algorithm} needs a public key", hint="file = 'public.pem'")
    secret = text if entry.file is None else text.strip()
    _check_secret(secret, algorithm, where)
    return Key(algorithm, secret, entry.kid)


def read_key_file(path: Path, where: str) -> bytes:
    """The content of a key file.

    Raises:
        ConfigError: it cannot be read, or is no key file by its size.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{where}: cannot read {path}: {error.strerror}", hint="check the path") from error
    if len(content) > _KEY_FILE_BYTES:
        raise ConfigError(f"{where}: {path} is too large for a key", hint="one PEM key, or a secret")
    return content


def looks_like_key(text: bytes) -> bool:
    """Whether it is a public or private key, or a certificate, and so must not serve as a secret."""
    return b"-----BEGIN" in text or text.lstrip().startswith((b"ssh-", b"ecdsa-"))


def _check_secret(secret: bytes, algorithm: str, where: str) -> None:
    least = SECRET_BYTES[algorithm]
    if len(secret) < least:
        raise ConfigError(
            f"{where}: the secret has {len(secret)} bytes; {algorithm} needs {least} or more (RFC 7518 §3.2)",
            hint=_NEW_SECRET,
        )
    if len(set(secret)) < 8:
        raise ConfigError(f"{where}: the secret is easily guessed", hint=_NEW_SECRET)


def _public_key(entry: KeyOptions, text: bytes, where: str) -> Key:
    if entry.algorithm in SECRET_BYTES:
        raise ConfigError(
            f"{where}: a key file is no secret for {entry.algorithm}: whoever has the public key could sign",
            hint="leave the algorithm out, or use a secret",
        )
    try:
        material = _parse_pem(text)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{where}: the key cannot be read: {error}", hint="a PEM file with the public key") from error
    return bind(material, entry.algorithm, entry.kid, where)


def _parse_pem(text: bytes) -> Any:
    if b"CERTIFICATE-----" in text:
        return x509.load_pem_x509_certificate(text).public_key()
    if b"PRIVATE KEY-----" in text:
        return load_pem_private_key(text, password=None).public_key()
    if b"-----BEGIN" in text:
        return load_pem_public_key(text)
    return load_ssh_public_key(text)


def bind(material: Any, algorithm: str | None, kid: str | None, where: str) -> Key:
    """A public key with its algorithm; by the kind of key where none is named.

    Raises:
        ConfigError: the key does not serve the algorithm, or is too weak.
    """
    match material:
        case RSAPublicKey():
            fitting: tuple[str, ...] = ("RS256", "PS256")
            if material.key_size < LEAST_RSA_BITS:
                raise ConfigError(
                    f"{where}: the RSA key has {material.key_size} bits (RFC 7518 §3.3)",
                    hint=f"make one of {LEAST_RSA_BITS} bits or more",
                )
        case EllipticCurvePublicKey():
            if not isinstance(material.curve, SECP256R1):
                raise ConfigError(f"{where}: the curve is {material.curve.name}", hint="ES256 wants P-256")
            fitting = ("ES256",)
        case Ed25519PublicKey():
            fitting = ("EdDSA",)
        case _:
            raise ConfigError(f"{where}: this kind of key is not supported", hint="RSA, P-256 or Ed25519")
    if algorithm is not None and algorithm not in fitting:
        raise ConfigError(f"{where}: the key is not one for {algorithm}", hint=f"it serves {' or '.join(fitting)}")
    return Key(algorithm or fitting[0], material, kid)


def keys_from_jwks(document: Any, allowed: tuple[str, ...]) -> list[Key]:
    """The usable keys of a key set (RFC 7517 §5); what cannot be used is left out, as §5 says.

    Args:
        allowed: what a key may be used for where it does not say it itself.

    Raises:
        ValueError: it is no key set.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("it has no list 'keys'")
    keys: list[Key] = []
    for entry in entries[:100]:
        if isinstance(entry, dict) and entry.get("use", "sig") == "sig" and entry.get("kty") != "oct":
            keys += _from_jwk(entry, allowed)
    return keys


def _from_jwk(entry: dict[str, Any], allowed: tuple[str, ...]) -> list[Key]:
    kid = entry.get("kid")
    stated = entry.get("alg")
    if (kid is not None and not isinstance(kid, str)) or (stated is not None and stated not in ALGORITHMS):
        return []
    found: list[Key] = []
    for algorithm in (stated,) if stated is not None else allowed:
        try:
            material = jwt.PyJWK(entry, algorithm=algorithm).key
            found.append(bind(material, algorithm, kid, "jwks"))
        except (jwt.PyJWTError, ConfigError, ValueError, TypeError):
            continue
    return found
