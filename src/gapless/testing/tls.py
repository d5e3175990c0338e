"""A certificate authority for one test, and what it signed, as PEM files."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gapless.testing.tools import ToolUnavailable

if TYPE_CHECKING:
    import trustme


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its chain, and its private key: paths of two PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """What `make_certificates` wrote.

    Attributes:
        ca: PEM file of the authority's certificate: what a client (or server) trusts.
        server: the server's pair, for the names asked for.
        client: a client's pair, for mutual TLS.
        client_name: the common name in the client's certificate.
    """

    ca: Path
    server: KeyPair
    client: KeyPair
    client_name: str

    def server_context(self, *, require_client: bool = False) -> ssl.SSLContext:
        """A context for a Python server, on demand with mutual TLS."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.load_cert_chain(self.server.certificate, self.server.key)
        if require_client:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self, *, with_certificate: bool = False) -> ssl.SSLContext:
        """A context for a Python client that trusts this authority alone and checks host names."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca)
        if with_certificate:
            context.load_cert_chain(self.client.certificate, self.client.key)
        return context


def make_certificates(
    folder: Path,
    *,
    names: Sequence[str] = ("localhost", "127.0.0.1"),
    client_name: str = "device-7",
    not_after: datetime | None = None,
) -> Certificates:
    """Make an authority, a server certificate and a client certificate in `folder`.

    Args:
        folder: made where it is missing; the private keys in it are readable by its owner only.
        names: host names and addresses of the server; others make a certificate that clients refuse.
        client_name: common name of the client, which brokers can take as the user's name.
        not_after: end of the server certificate; one in the past makes it expired.

    Raises:
        ToolUnavailable: the package `trustme` is not installed.
    """
    try:
        import trustme
    except ImportError as error:
        raise ToolUnavailable(
            "certificates for tests need the package trustme", hint="pip install 'gapless[testing]'"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    server = authority.issue_cert(*names, not_after=not_after)
    client = authority.issue_cert(f"{client_name}.test", common_name=client_name)
    return Certificates(
        ca=ca,
        server=_write_pair(server, folder / "server"),
        client=_write_pair(client, folder / "client"),
        client_name=client_name,
    )


def _write_pair(leaf: trustme.LeafCert, stem: Path) -> KeyPair:
    pair = KeyPair(certificate=stem.with_suffix(".pem"), key=stem.with_suffix(".key"))
    pair.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    pair.key.touch(mode=0o600)
    pair.key.write_bytes(leaf.private_key_pem.bytes())
    return pair
