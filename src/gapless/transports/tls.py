"""TLS for what listens: certificates that are read anew when their files change, and who the client is.

A context is never changed under a connection. Each reload makes new ones from the files; the next
handshakes take them (RFC 6066 §3 names the moment: the server name), and what is connected stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
import time as _time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec
from cryptography import x509

from gapless.auth import Certificate
from gapless.errors import ConfigError

logger = logging.getLogger("gapless.tls")

RELOAD_INTERVAL = 2.0
"""Seconds between two looks at the files."""

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_MODES = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class TlsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS for the HTTP port and the MQTT port. The files are looked at every 2 seconds, and read anew
    where they changed; what is connected stays.

    Attributes:
        cert_file: the certificate and its chain, PEM.
        key_file: the private key, PEM, without a passphrase; none where it is in `cert_file`.
        client_ca_file: the authorities whose client certificates are taken, PEM.
        client_auth: whether clients show a certificate: `none`, `optional` or `required`; by default
            `required` where there is a `client_ca_file`.
        min_version: the oldest TLS that is spoken, `1.2` or `1.3`.
    """

    cert_file: Path
    key_file: Path | None = None
    client_ca_file: Path | None = None
    client_auth: Literal["none", "optional", "required"] | None = None
    min_version: Literal["1.2", "1.3"] = "1.2"

    @property
    def asks_clients(self) -> Literal["none", "optional", "required"]:
        """`client_auth`, with its default."""
        return self.client_auth or ("required" if self.client_ca_file is not None else "none")

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read."""
        return tuple(path for path in (self.cert_file, self.key_file, self.client_ca_file) if path is not None)

    def check(self) -> None:
        """Refuse what cannot work together.

        Raises:
            ConfigError: naming the option.
        """
        if self.asks_clients != "none" and self.client_ca_file is None:
            raise ConfigError(
                f"tls.client_auth is {self.client_auth!r} without tls.client_ca_file",
                hint="name the authorities whose client certificates are taken: --tls-client-ca ca.pem",
            )


class ServerTls:
    """The certificates of one gateway, as they are on disk.

    Args:
        clock: seconds since the Unix epoch.

    Attributes:
        expires: end of the certificate in use, in seconds since the Unix epoch.
        reloads: how often changed files were taken.
        problem: why the files as they are now cannot be used; None where those in use are these.

    Raises:
        ConfigError: the files cannot be used; it names what and how to mend it.
    """

    def __init__(self, options: TlsOptions, *, clock: Callable[[], float] = _time.time) -> None:
        options.check()
        self.options = options
        self.reloads = 0
        self.problem: str | None = None
        self._clock = clock
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._seen = self._look()
        self.expires = self._load()

    def context(self, protocol: str) -> ssl.SSLContext:
        """What a listener hands to each of its connections.

        Args:
            protocol: what is spoken inside, for ALPN (RFC 7301): `http/1.1`, `mqtt`.
        """
        if protocol not in self._contexts:
            self._contexts[protocol] = _make_context(self.options, protocol)

        def choose(connection: Any, _: str | None, __: ssl.SSLContext) -> None:
            connection.context = self._contexts[protocol]

        front = _make_context(self.options, protocol)
        front.sni_callback = choose  # also called where the client names no server
        return front

    @property
    def status(self) -> str:
        """`ok`, or what is wrong with the certificate in use."""
        return "ok" if self._clock() < self.expires else "the certificate has expired"

    async def watch(self) -> None:
        """Take changed files, for ever. A bad file is logged once, and the old ones stay in use."""
        while True:
            await asyncio.sleep(RELOAD_INTERVAL)
            try:
                self.reload()
            except Exception:
                logger.exception("the TLS files could not be looked at; trying again")

    def reload(self) -> bool:
        """Look at the files, and take them where they changed; whether they were taken."""
        look = self._look()
        if look == self._seen and self.problem is None:
            return False
        try:
            self.expires = self._load()
        except ConfigError as error:  # maybe half written: the next look tells
            if error.message != self.problem:
                logger.error("the TLS files changed and cannot be used, the old ones stay: %s", error.message)
            self.problem = error.message
            return False
        self._seen = look
        self.problem = None
        self.reloads += 1
        logger.warning("the TLS files changed and were taken; the certificate is valid until %s", _date(self.expires))
        return True

    def _load(self) -> float:
        fresh = {protocol: _make_context(self.options, protocol) for protocol in self._contexts or ("http/1.1",)}
        expires = _expiry(self.options.cert_file)
        if expires <= self._clock():
            raise ConfigError(
                f"the certificate in {self.options.cert_file} has expired on {_date(expires)}", hint="renew it"
            )
        self._contexts.update(fresh)
        return expires

    def _look(self) -> tuple[object, ...]:
        return tuple(_state(path) for path in self.options.files)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _make_context(options: TlsOptions, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[options.min_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([protocol])
    path: Path = options.cert_file
    try:
        context.load_cert_chain(path, options.key_file, password=_no_passphrase)
        if options.client_ca_file is not None:
            path = options.client_ca_file
            context.load_verify_locations(path)
    except OSError as error:  # an SSLError is one, too
        raise _unusable(path, options, error) from error
    except ValueError as error:
        raise ConfigError(str(error), hint="store it without a passphrase, readable by the gateway alone") from error
    context.verify_mode = _MODES[options.asks_clients]
    if options.asks_clients != "none":
        # A resumed session would skip the check of its client's certificate against the authorities of today.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context


def _no_passphrase() -> NoReturn:
    raise ValueError("the private key of tls.key_file has a passphrase")


def _unusable(path: Path, options: TlsOptions, error: OSError) -> ConfigError:
    missing = next((each for each in options.files if _state(each) is None), None)
    if missing is not None:
        return ConfigError(f"cannot read {missing}", hint="check the path, and that the gateway may read it")
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    if reason == "KEY_VALUES_MISMATCH":
        return ConfigError(f"the private key is not that of the certificate in {path}", hint="give the matching pair")
    return ConfigError(f"{path} cannot be used for TLS: {reason}", hint="give PEM files: certificate, chain, key")


def _expiry(path: Path) -> float:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc.timestamp()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no certificate", hint="give a PEM file") from error


def _date(seconds: float) -> str:
    return _time.strftime("%Y-%m-%d", _time.gmtime(seconds))


def peer_certificate(transport: asyncio.BaseTransport | None) -> Certificate | None:
    """The client certificate of a connection, which TLS has verified; None where it showed none."""
    connection = None if transport is None else transport.get_extra_info("ssl_object")
    encoded = None if connection is None else connection.getpeercert(binary_form=True)
    if connection is None or encoded is None:
        return None
    said: dict[str, Any] = connection.getpeercert() or {}  # empty where it was not verified
    if not said:
        return None
    subject = dict(pair for names in said.get("subject", ()) for pair in names)
    return Certificate(
        common_name=subject.get("commonName"),
        names=tuple(f"{kind}:{name}" for kind, name in said.get("subjectAltName", ())),
        fingerprint=hashlib.sha256(encoded).hexdigest(),
    )
