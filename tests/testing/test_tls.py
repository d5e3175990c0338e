from __future__ import annotations

import asyncio
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gapless.testing import Certificates, make_certificates


async def handshake(
    certificates: Certificates, client: ssl.SSLContext, *, host: str = "localhost", mutual: bool = False
) -> str | None:
    """The name in the client's certificate as the server saw it, after one byte each way."""
    seen: asyncio.Queue[str | None] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("peercert")
        subject = dict(pair[0] for pair in certificate["subject"]) if certificate else {}
        seen.put_nowait(subject.get("commonName"))
        writer.write(await reader.read(1))
        await writer.drain()
        writer.close()

    context = certificates.server_context(require_client=mutual)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=host)
        try:
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            return await seen.get()
        finally:
            writer.transport.abort()
    finally:
        server.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_client_that_trusts_the_authority_is_served(tmp_path: Path, host: str) -> None:
    certificates = make_certificates(tmp_path)
    assert await handshake(certificates, certificates.client_context(), host=host) is None


async def test_mutual_tls_shows_the_client_name(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, client_name="device-42")
    client = certificates.client_context(with_certificate=True)
    assert await handshake(certificates, client, mutual=True) == "device-42"


async def test_another_authority_is_refused(tmp_path: Path) -> None:
    ours, theirs = make_certificates(tmp_path / "ours"), make_certificates(tmp_path / "theirs")
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(ours, theirs.client_context())


async def test_another_host_name_is_refused(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, names=["other.example"])
    with pytest.raises(ssl.SSLCertVerificationError, match="localhost"):
        await handshake(certificates, certificates.client_context())


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, not_after=datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        await handshake(certificates, certificates.client_context())


def test_private_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "new" / "folder")
    for pair in (certificates.server, certificates.client):
        assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600
