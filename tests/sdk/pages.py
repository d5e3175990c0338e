"""The TypeScript client as a browser loads it: bundled, from a server of another origin than the gateway's."""

from __future__ import annotations

import asyncio
import functools
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
SDK = ROOT / "sdk"
HERE = Path(__file__).parent
SCRIPTS = (SDK / "packages" / "core" / "src" / "index.ts", HERE / "many.js", HERE / "react.jsx")
STYLE = SDK / "packages" / "react" / "status.css"
MANY = '<!doctype html><link rel="icon" href="data:,"><script type="module" src="many.js"></script>'


async def bundle(folder: Path) -> None:
    """Bundle the client into the folder, as an application's build would, and put the pages beside it."""
    esbuild = SDK / "node_modules" / ".bin" / "esbuild"
    options = ("--bundle", "--splitting", "--format=esm", "--platform=browser", "--target=es2022", "--log-level=error")
    core = f"--alias:@gapless/core={SCRIPTS[0]}"
    process = await asyncio.create_subprocess_exec(
        *(str(esbuild), *map(str, SCRIPTS), *options, core, "--jsx=automatic", "--jsx-dev"),
        *("--external:node:*", "--entry-names=[name]", f"--outdir={folder}"),
        env={**os.environ, "NODE_PATH": str(SDK / "node_modules")},
    )
    if code := await process.wait():
        raise subprocess.CalledProcessError(code, "esbuild")
    for page in (HERE / "page.html", HERE / "react.html", STYLE):
        shutil.copy(page, folder)
    (folder / "many.html").write_text(MANY)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Say nothing."""

    def end_headers(self) -> None:
        # A sandboxed page has no origin: it may keep nothing, and loads its scripts as another site does.
        self.send_header("Access-Control-Allow-Origin", "*")
        if self.path.endswith("&sandboxed"):
            self.send_header("Content-Security-Policy", "sandbox allow-scripts")
        super().end_headers()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder; its origin."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="pages", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
