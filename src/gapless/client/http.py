"""What the HTTP transports share: the client, and how answers become errors."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from gapless.client.model import ConnectionLost, Refused
from gapless.errors import ConfigError

CONNECT_TIMEOUT = 10.0
_decode = msgspec.json.Decoder().decode


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine, by its name alone."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def trust(
    ca_file: Path | None, *, cert_file: Path | None = None, key_file: Path | None = None
) -> ssl.SSLContext | None:
    """How to verify a server, and what certificate to show it; None where nothing is given.

    Args:
        ca_file: authorities, PEM; None trusts the system's.

    Raises:
        ConfigError: a file cannot be used.
    """
    if ca_file is None and cert_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
    except OSError as error:  # an SSLError is one, too
        names = " or ".join(str(path) for path in (ca_file, cert_file, key_file) if path is not None)
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        raise ConfigError(f"cannot use {names}: {reason}", hint="give PEM files that can be read") from error
    return context


def make_client(
    url: str, token: str | None, *, read_timeout: float, tls: ssl.SSLContext | None = None
) -> httpx.AsyncClient:
    """An httpx client for one gateway; a loopback gateway is never asked through a proxy."""
    headers = {} if not token else {"Authorization": f"Bearer {token}"}
    timeout = httpx.Timeout(CONNECT_TIMEOUT, read=read_timeout)
    return httpx.AsyncClient(
        base_url=url,
        headers=headers,
        timeout=timeout,
        trust_env=not is_loopback(url),
        verify=True if tls is None else tls,
    )


@contextmanager
def wire_errors(url: str) -> Iterator[None]:
    """What goes wrong on the wire inside the context becomes `ConnectionLost`."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise Refused(f"{url!r} is not the URL of a gateway: {error}", hint="use http://HOST:PORT") from error
    except httpx.HTTPError as error:
        raise ConnectionLost(f"{url}: {describe(error)}") from error


@asynccontextmanager
async def http_client(
    url: str, token: str | None, *, read_timeout: float = 30.0, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[httpx.AsyncClient, None]:
    """`make_client`, closed at the end, inside `wire_errors`."""
    with wire_errors(url):
        async with make_client(url, token, read_timeout=read_timeout, tls=tls) as client:
            yield client


def describe(error: Exception) -> str:
    """An exception in a few words; some of httpx's say nothing of their own."""
    text = str(error)
    match error:
        case httpx.ConnectError() if text == "All connection attempts failed":
            return "nothing listens there"
        case httpx.ConnectTimeout():
            return "no answer to the connection attempt"
        case httpx.ReadTimeout():
            return "no answer in time"
        case httpx.ConnectError() if "Connect" in text and "failed" in text:
            return "connection refused"
    return text or type(error).__name__


def decode_answer(response: httpx.Response) -> Any:
    """The JSON of an answer that was read.

    Raises:
        ConnectionLost: the server says that the same request may succeed later.
        Refused: it says no, or is no gateway.
    """
    try:
        body = _decode(response.content)
    except msgspec.DecodeError as error:
        what = f"{response.request.url} answered {response.status_code}, and not with JSON"
        if response.status_code >= 500:
            raise ConnectionLost(what) from error
        raise Refused(what, hint="is this the URL of a Gapless gateway?") from error
    if response.is_success:
        return body
    raise error_of(body, f"{response.request.url} answered {response.status_code}")


def error_of(body: object, otherwise: str) -> ConnectionLost | Refused:
    """A server's error body, `{error: {code, message, retryable, hint?}}` or the inner object, as an exception."""
    error = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return Refused(otherwise, hint="is this the URL of a Gapless gateway?")
    kind = ConnectionLost if error.get("retryable") is True else Refused
    details = {"code": error.get("code")}
    if isinstance(error.get("details"), dict):
        details |= {"details": error["details"]}
    return kind(error["message"], hint=str(error.get("hint", "")), **details)
