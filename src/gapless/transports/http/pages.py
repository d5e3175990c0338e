"""The pages: a few static files, read once, under a strict content security policy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

import gapless
from gapless.transports.http.request import Request

FOLDER = Path(gapless.__file__).parent / "gateway" / "pages"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, nothing inline, and nobody frames the page (CSP 3)."""

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}


class Page(msgspec.Struct, frozen=True):
    """One file, with the tag by which a browser knows that it has it already (RFC 9110 §8.8.3)."""

    body: bytes
    content_type: bytes
    etag: bytes


class Pages:
    """The files of a folder.

    Args:
        folder: what it holds is served; nothing else can be named.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._pages = {path.name: _read(path) for path in sorted(folder.iterdir()) if path.suffix in _TYPES}

    @property
    def names(self) -> list[str]:
        """What there is."""
        return list(self._pages)

    async def send(self, request: Request, name: str) -> None:
        """Answer with the file of a name."""
        page = self._pages[name]
        headers = (
            (b"etag", page.etag),
            (b"cache-control", b"no-cache"),  # keep it, but ask each time
            (b"content-security-policy", POLICY.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        )
        if request.header(b"if-none-match") == page.etag.decode():
            await request.answer(304, b"", content_type=page.content_type, headers=headers)
        else:
            await request.answer(200, page.body, content_type=page.content_type, headers=headers)


def _read(path: Path) -> Page:
    body = path.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    return Page(body, _TYPES[path.suffix], etag.encode())
